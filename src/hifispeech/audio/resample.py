"""Resampling by soxr at its best setting (VHQ): exact length, no delay, whole and block by block alike.

soxr VHQ keeps the band up to about 0.95 of the lower Nyquist frequency (-3 dB there) and is silent above 1.0.
"""

from fractions import Fraction
from numbers import Real

import numpy as np
import numpy.typing as npt
import soxr

from hifispeech.errors import AudioError

MIN_RATE, MAX_RATE = 2000, 768000
QUALITY = "VHQ"
PASS_SHARE = 0.94  # of the lower Nyquist: soxr VHQ has lost less than 1 dB below it
HALF_SHARE = 0.955  # and less than 6 dB below this


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


def resample(audio: npt.NDArray[np.floating], rate_in: int, rate_out: int = 48000) -> npt.NDArray[np.float32]:
    """Resample a whole signal.

    Shape: `[channels, time]` or `[time]` to the same with `round(time * rate_out / rate_in)` samples.

    Raises:
        AudioError: for a rate outside 2000..768000 Hz.
    """
    signal = np.atleast_2d(np.asarray(audio, dtype=np.float32))
    resampler = Resampler(rate_in, rate_out, signal.shape[0])
    out = np.concatenate([resampler.push(signal), resampler.flush()], axis=1)
    return out if np.ndim(audio) == 2 else out[0]


class Resampler:
    """Streaming resampler: the concatenated blocks equal `resample` of the whole, whatever the block sizes.

    Raises:
        AudioError: for a rate outside 2000..768000 Hz.
    """

    def __init__(self, rate_in: int, rate_out: int, channels: int) -> None:
        self.rate_in, self.rate_out = check_rate(rate_in, "rate_in"), check_rate(rate_out, "rate_out")
        self.channels = channels
        self.received = self.sent = 0
        self.stream = None
        if self.rate_in != self.rate_out:
            self.stream = soxr.ResampleStream(
                self.rate_in, self.rate_out, channels, dtype="float32", quality=QUALITY
            )

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
