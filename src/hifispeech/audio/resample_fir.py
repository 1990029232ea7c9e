"""The engine of the low-latency resampling: a linear-phase FIR filter in polyphase form (NumPy).

soxr's filters are long and run in long blocks: 20 to 330 ms late at 4 to 16 kHz. Here the filter is a
Kaiser-windowed sinc that reaches `REACH` samples of the lower rate to either side, and an output sample comes
as soon as the last input sample it needs is there.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

REACH = 96  # samples of the lower rate on either side: 12 ms at 8 kHz
MOST_DELAY_S = 0.0155  # below 6.2 kHz the filter is shorter and its transition band wider
STOP_DB = 90.0
PHASES = 1024  # ratios with more phases are interpolated linearly between these, good to -106 dB
FEW_PHASES = 24  # up to these, all output samples of a phase are computed in one go
LONG_PART = 1 << 14
PART = 512  # output samples computed at once: all of it stays in the processor's cache


def reach(rate_in: int, rate_out: int) -> int:
    """How many input samples the filter reaches to either side."""
    low_rate = min(rate_in, rate_out)
    return math.ceil(min(REACH, MOST_DELAY_S * low_rate) * rate_in / low_rate)


def transition_share(rate_in: int, rate_out: int) -> float:
    """Where the transition band begins, as a share of the lower Nyquist frequency; it ends at 1.

    Up to there the level is kept within 0.01 dB, in its middle it is 6 dB lower, above 1 `STOP_DB`.
    """
    taps = 2 * reach(rate_in, rate_out) * min(rate_in, rate_out) / rate_in
    return 1.0 - (STOP_DB - 7.95) / (2.285 * math.pi * taps)  # Kaiser's formula


@lru_cache(maxsize=16)
def polyphase(rate_in: int, rate_out: int) -> npt.NDArray[np.float32]:
    """Filter taps for each phase, the one after the last included. Shape: `[phases + 1, 2 * reach]`.

    Row `p` holds the weights of the input samples around a point `p / phases` after the middle one; each row
    sums to 1, so that a constant stays one.
    """
    phases = min(rate_out // math.gcd(rate_in, rate_out), PHASES)
    half = reach(rate_in, rate_out)
    middle_share = (1.0 + transition_share(rate_in, rate_out)) / 2
    cutoff = middle_share * min(rate_in, rate_out) / rate_in
    distance = np.arange(1 - half, half + 1) - np.arange(phases + 1)[:, None] / phases
    window = np.i0(0.1102 * (STOP_DB - 8.7) * np.sqrt(np.maximum(1.0 - (distance / half) ** 2, 0.0)))
    taps = np.sinc(cutoff * distance) * window
    taps = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
    taps.setflags(write=False)
    return taps


class FirStream:
    """Streaming FIR resampler with the interface of `soxr.ResampleStream`."""

    def __init__(self, rate_in: int, rate_out: int, channels: int) -> None:
        divisor = math.gcd(rate_in, rate_out)
        self.up, self.down = rate_out // divisor, rate_in // divisor
        self.reach = reach(rate_in, rate_out)
        self.taps = polyphase(rate_in, rate_out)
        self.buffer = np.zeros((channels, self.reach - 1), np.float32)
        self.first = 1 - self.reach  # number of the input sample that the buffer begins with
        self.sent = 0

    def needed(self, samples_out: int) -> int:
        """How many input samples it takes until `samples_out` are out."""
        return (samples_out - 1) * self.down // self.up + self.reach + 1

    def resample_chunk(self, x: npt.NDArray[np.float32], last: bool = False) -> npt.NDArray[np.float32]:
        """Shape: `[time, channels]` to `[whatever is ready, channels]`."""
        rest = np.zeros((self.buffer.shape[0], self.reach if last else 0), np.float32)
        self.buffer = np.concatenate([self.buffer, x.T, rest], axis=1)
        settled = self.first + self.buffer.shape[1] - self.reach
        ready = max(-(-settled * self.up // self.down), 0)
        part = PART if self.up > FEW_PHASES else LONG_PART
        parts = [self._compute(min(part, ready - at)) for at in range(self.sent, ready, part)]
        return np.concatenate(parts, axis=1).T if parts else np.zeros((0, len(self.buffer)), np.float32)

    def _compute(self, count: int) -> npt.NDArray[np.float32]:
        """The next `count` output samples, `[channels, count]`."""
        base, ahead = divmod(self.sent * self.down, self.up)
        position = ahead + np.arange(count) * self.down  # in input samples / up, from `base` on
        index, phase = np.divmod(position, self.up)
        index += base - self.reach + 1 - self.first
        row, between = np.divmod(phase * (len(self.taps) - 1), self.up)
        windows = np.lib.stride_tricks.sliding_window_view(self.buffer, 2 * self.reach, axis=1)
        if self.up <= FEW_PHASES:  # every up-th output sample has the same taps, down samples further on
            out = np.empty((len(self.buffer), count), np.float32)
            for i in range(min(self.up, count)):
                own = windows[:, index[i] : index[-1] + 1 : self.down][:, : len(range(i, count, self.up))]
                np.einsum("cnt,t->cn", own, self.taps[row[i]], out=out[:, i :: self.up])
        else:
            taps = self.taps[row]
            if between.any():
                share = (between / self.up).astype(np.float32)[:, None]
                taps += share * (self.taps[row + 1] - taps)
            out = np.einsum("cnt,nt->cn", windows[:, index], taps)
        self.sent += count
        used = self.sent * self.down // self.up - self.reach + 1 - self.first
        self.buffer, self.first = self.buffer[:, used:], self.first + used
        return out
