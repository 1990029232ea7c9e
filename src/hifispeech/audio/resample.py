"""Resampling: exact length, no shift in time, whole and block by block alike.

Files go through soxr at its best setting (VHQ), which keeps the band up to about 0.95 of the lower Nyquist
frequency (-3 dB there) and is silent above 1.0. Live streams cannot wait for it (20 to 330 ms) and go through
a short filter of our own, `low_latency=True`: 12 ms at 8 kHz, transition band from 0.94 to 1.0.
"""

from fractions import Fraction
from numbers import Real

import numpy as np
import numpy.typing as npt
import soxr

from hifispeech.audio.resample_fir import FirStream, transition_share
from hifispeech.errors import AudioError

MIN_RATE, MAX_RATE = 2000, 768000
QUALITY = "VHQ"
PASS_SHARE = 0.94  # of the lower Nyquist: soxr VHQ has lost less than 1 dB below it
HALF_SHARE = 0.955  # and less than 6 dB below this


def pass_and_half_share(rate_in: int, rate_out: int = 48000) -> tuple[float, float]:
    """`PASS_SHARE` and `HALF_SHARE` of the low-latency setting: smaller where the rate is below 6.2 kHz."""
    passed = transition_share(rate_in, rate_out)
    return min(PASS_SHARE, passed), min(HALF_SHARE, (1.0 + passed) / 2)


def output_length(samples: int, rate_in: int, rate_out: int) -> int:
    """Samples after resampling: `round(samples * rate_out / rate_in)`, exact at any length."""
    return round(Fraction(samples * rate_out, rate_in))


def check_rate(rate: float, name: str = "sample_rate") -> int:
    """The rate as an int (8000.0 will do), if it is one that can be resampled.

    Raises:
        AudioError: if it is not a whole number in 2000..768000 Hz.
    """
    if not isinstance(rate, Real) or not MIN_RATE <= rate <= MAX_RATE or int(rate) != rate:
        raise AudioError(
            f"{name}={rate!r} is not a whole number from {MIN_RATE} to {MAX_RATE} Hz; check the file's header"
        )
    return int(rate)


def resample(
    audio: npt.NDArray[np.floating], rate_in: int, rate_out: int = 48000, *, low_latency: bool = False
) -> npt.NDArray[np.float32]:
    """Resample a whole signal.

    Shape: `[channels, time]` or `[time]` to the same with `round(time * rate_out / rate_in)` samples.

    Raises:
        AudioError: for a rate outside 2000..768000 Hz.
    """
    signal = np.atleast_2d(np.asarray(audio, dtype=np.float32))
    resampler = Resampler(rate_in, rate_out, signal.shape[0], low_latency=low_latency)
    out = np.concatenate([resampler.push(signal), resampler.flush()], axis=1)
    return out if np.ndim(audio) == 2 else out[0]


class Resampler:
    """Streaming resampler: the concatenated blocks equal `resample` of the whole, whatever the block sizes.

    Args:
        rate_in, rate_out: in Hz.
        channels: of every block.
        low_latency: the short filter in place of soxr's best; what it waits for is in `needed`.

    Raises:
        AudioError: for a rate outside 2000..768000 Hz.
    """

    def __init__(self, rate_in: int, rate_out: int, channels: int, *, low_latency: bool = False) -> None:
        self.rate_in, self.rate_out = check_rate(rate_in, "rate_in"), check_rate(rate_out, "rate_out")
        self.channels = channels
        self.received = self.sent = 0
        self.stream: soxr.ResampleStream | FirStream | None = None
        if self.rate_in == self.rate_out:
            return
        if low_latency:
            self.stream = FirStream(self.rate_in, self.rate_out, channels)
        else:
            self.stream = soxr.ResampleStream(
                self.rate_in, self.rate_out, channels, dtype="float32", quality=QUALITY
            )

    def needed(self, samples_out: int) -> int:
        """How many input samples it takes at least until `samples_out` are out.

        Exact without resampling and for `low_latency`; for soxr, whose blocks are its own affair, 0.
        """
        if isinstance(self.stream, FirStream):
            return self.stream.needed(samples_out)
        return samples_out if self.stream is None else 0

    def push(self, block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Shape: `[channels, time]` in, `[channels, whatever is ready]` out."""
        self.received += block.shape[1]
        return block if self.stream is None else self._run(block, last=False)

    def flush(self) -> npt.NDArray[np.float32]:
        """The rest, cut or zero-padded to the exact total length. Shape: `[channels, rest]`."""
        if self.stream is None:
            return np.zeros((self.channels, 0), np.float32)
        already = self.sent
        rest = self._run(np.zeros((self.channels, 0), np.float32), last=True)
        wanted = output_length(self.received, self.rate_in, self.rate_out) - already
        rest = rest[:, :wanted]
        return np.pad(rest, ((0, 0), (0, wanted - rest.shape[1])))

    def _run(self, block: npt.NDArray[np.float32], last: bool) -> npt.NDArray[np.float32]:
        assert self.stream is not None
        frames = np.ascontiguousarray(block.T, dtype=np.float32)
        out = np.asarray(self.stream.resample_chunk(frames, last=last), dtype=np.float32)
        self.sent += len(out)
        return np.ascontiguousarray(out.reshape(-1, self.channels).T)
