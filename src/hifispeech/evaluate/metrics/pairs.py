"""Which two signals can be compared at all: shapes, rates, lengths, silence."""

import numpy as np
import numpy.typing as npt

from hifispeech.errors import AudioError

Array = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]


def check_pair(
    reference: Array, estimate: Array, sample_rate: int = 48000, estimate_rate: int | None = None
) -> tuple[Float64, Float64]:
    """The two signals as float64 `[channels, time]`, or an error that says why they cannot be compared.

    Args:
        estimate_rate: sample rate of the estimate in hertz if it is known separately.

    Raises:
        AudioError: for different rates, shapes or lengths, empty audio, NaN or infinity, or a silent
            reference channel.
    """
    if estimate_rate is not None and estimate_rate != sample_rate:
        raise AudioError(
            f"reference has {sample_rate} Hz and estimate {estimate_rate} Hz; resample one of them first"
        )
    ref, est = np.asarray(reference, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    for name, signal in (("reference", ref), ("estimate", est)):
        if signal.ndim not in (1, 2) or signal.size == 0:
            raise AudioError(
                f"{name} has shape {signal.shape}; pass [time] or [channels, time] with at least one sample"
            )
        if not np.isfinite(signal).all():
            raise AudioError(f"{name} holds NaN or infinite samples; pass finite audio")
    ref, est = np.atleast_2d(ref), np.atleast_2d(est)
    if ref.shape[0] != est.shape[0]:
        raise AudioError(
            f"reference has {ref.shape[0]} channels and estimate {est.shape[0]}; pass equal channel counts"
        )
    if ref.shape[1] != est.shape[1]:
        raise AudioError(
            f"reference has {ref.shape[1]} samples and estimate {est.shape[1]}; align and cut them first"
        )
    silent = np.flatnonzero(~ref.any(axis=1))
    if silent.size:
        raise AudioError(
            f"reference channel {silent[0]} is digital silence; leave it out, there is nothing to compare"
        )
    return ref, est


def check_audible(estimate: Float64, metric: str) -> None:
    """Raise `AudioError` if a channel of `estimate` `[channels, time]` is silent: `metric` is undefined."""
    silent = np.flatnonzero(~estimate.any(axis=1))
    if silent.size:
        raise AudioError(
            f"estimate channel {silent[0]} is digital silence; {metric} is undefined, report it as failed"
        )
