"""The bandwidth of a live signal, followed as it goes on: decisions at fixed places, with hysteresis."""

from collections import deque

import numpy as np
import numpy.typing as npt

from hifispeech.audio.bandwidth.meter import FULL_BAND_HZ, Bandwidth, BandwidthMeter
from hifispeech.audio.resample import check_rate, pass_and_half_share
from hifispeech.infer.edges import RATE, edge_track
from hifispeech.infer.frames import SILENCE, EdgeTrack

DECISION_S = 0.5  # the band is measured after each half second of input, wherever its blocks end,
WINDOW_S = 3.0  # over the last seconds of signal, digital silence not counted
SAME_RATIO = 1.05  # edges closer than this are one and the same
VOTES = 2  # successive measurements that must agree on another band
VOTES_NARROWER = 4  # and on a clearly narrower one, once the window is full: there is real band to lose
NARROWER_RATIO = 1.15


class BandwidthFollower:
    """Follows the bandwidth of one channel; what it says depends on the samples, not on how they are cut.

    At first the band is taken to reach up to the Nyquist frequency of the input, so that nothing that is
    there is lost. A wider band is believed after two measurements that agree: within 1.5 s of sounds that
    reach into it. A narrower one needs four, and the wider one must have left the window: within 5.5 s of
    signal. Memory is constant.

    Raises:
        AudioError: for a rate outside 2000..768000 Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._meter = BandwidthMeter(check_rate(sample_rate))
        nyquist = sample_rate / 2
        self.bandwidth = Bandwidth(nyquist, nyquist, nyquist >= FULL_BAND_HZ)
        self._measured: deque[Bandwidth] = deque(maxlen=round(WINDOW_S / DECISION_S))
        self._period = round(DECISION_S * sample_rate)
        self._parts: list[npt.NDArray[np.float32]] = []
        self.until_decision = self._period  # samples to push until the next decision

    def push(self, samples: npt.NDArray[np.float32]) -> bool:
        """Take in at most `until_decision` samples; True if the bandwidth is another one from here on.

        Shape: `[time]`.
        """
        assert len(samples) <= self.until_decision
        self._parts.append(samples)
        self.until_decision -= len(samples)
        if self.until_decision:
            return False
        signal, self._parts = np.concatenate(self._parts), []
        self.until_decision = self._period
        self._meter.push(signal)
        self._meter.forget(WINDOW_S)
        if signal.max() - signal.min() <= SILENCE:
            return False  # nothing was heard
        window_is_full = len(self._measured) == self._measured.maxlen
        self._measured.append(self._meter.result())
        return self._decide(window_is_full)

    def _decide(self, window_is_full: bool) -> bool:
        new = self._measured[-1]
        is_narrower = new.cutoff_hz * NARROWER_RATIO < self.bandwidth.cutoff_hz
        needed = VOTES_NARROWER if is_narrower and window_is_full else VOTES
        votes = list(self._measured)[-needed:]
        is_certain = len(votes) == needed and all(is_same(new, vote) for vote in votes)
        if not is_certain or is_same(new, self.bandwidth):
            return False
        self.bandwidth = new
        return True


def is_same(a: Bandwidth, b: Bandwidth) -> bool:
    """Whether two measurements tell the same edge."""
    if a.is_full_band and b.is_full_band:
        return True
    return max(a.cutoff_hz, b.cutoff_hz) < SAME_RATIO * min(a.cutoff_hz, b.cutoff_hz)


def edge_of(bandwidth: Bandwidth, sample_rate: int) -> EdgeTrack:
    """The edge at 48 kHz that follows from a band and from the low-latency resampling, for all time."""
    if sample_rate < RATE and not bandwidth.is_full_band:
        passed, half = (share * sample_rate / 2 for share in pass_and_half_share(sample_rate))
        bandwidth = Bandwidth(min(bandwidth.cutoff_hz, half), min(bandwidth.pass_hz, passed), False)
    return edge_track([(0.0, bandwidth)], sample_rate)
