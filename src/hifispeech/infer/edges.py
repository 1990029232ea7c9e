"""Bandwidth over time of every channel, and the crossover edges that follow from it.

Long recordings are measured in spans of five minutes, so that memory does not grow with their length.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from hifispeech.audio.bandwidth.meter import Bandwidth, BandwidthMeter
from hifispeech.audio.resample import HALF_SHARE, PASS_SHARE
from hifispeech.audio.spectral import N_FFT
from hifispeech.errors import AudioError
from hifispeech.infer.frames import BINS, EdgeTrack

RATE = 48000
LOWEST_CUTOFF_HZ = 1000.0
SPAN_S = 300
LEAST_ACTIVE_S = 4.0  # with less signal, a span does not tell of a change (nor does `BandwidthMeter.track`)
SAME_RATIO = 1.15  # edges of neighbouring spans this close are one and the same

Track = list[tuple[float, Bandwidth]]  # (start_s, bandwidth from there on), the first at 0.0


def fixed_track(cutoff_hz: float, sample_rate: int) -> Track:
    """The track of a cutoff given by the user.

    Raises:
        AudioError: if the cutoff is outside 1000 Hz..Nyquist of the input (24000 at most).
    """
    highest = min(sample_rate, RATE) / 2
    if not LOWEST_CUTOFF_HZ <= cutoff_hz <= highest:
        raise AudioError(
            f"cutoff_hz={cutoff_hz:g} is outside {LOWEST_CUTOFF_HZ:g}..{highest:g}; "
            "leave it out to have it measured"
        )
    return [(0.0, Bandwidth(cutoff_hz=cutoff_hz, pass_hz=cutoff_hz, is_full_band=False, is_silent=False))]


def measure(blocks: Iterable[npt.NDArray[np.float32]], sample_rate: int, channels: int) -> list[Track]:
    """Bandwidth over time of every channel of a stream of blocks `[channels, time]` of any size."""
    span = SPAN_S * sample_rate
    meters = [BandwidthMeter(sample_rate) for _ in range(channels)]
    tracks: list[Track] = [[] for _ in range(channels)]
    frames = 0
    for block in blocks:
        while block.shape[1]:
            part, block = np.split(block, [span - frames % span], axis=1)
            for meter, channel in zip(meters, part, strict=True):
                meter.push(channel)
            frames += part.shape[1]
            if frames % span == 0:
                _close_span(tracks, meters, frames / sample_rate - SPAN_S)
                meters = [BandwidthMeter(sample_rate) for _ in range(channels)]
    if frames % span or not frames:
        _close_span(tracks, meters, frames // span * SPAN_S)
    return tracks


def _close_span(tracks: list[Track], meters: list[BandwidthMeter], offset_s: float) -> None:
    for track, meter in zip(tracks, meters, strict=True):
        if track and not track[0][1].is_silent and meter.active_s < LEAST_ACTIVE_S:
            continue
        for start_s, band in meter.track():
            if not track:
                track.append((0.0, band))
            elif track[-1][1].is_silent:
                track[0] = (0.0, band)  # leading silence has no bandwidth of its own
            elif not _same(track[-1][1], band):
                track.append((offset_s + start_s, band))


def _same(a: Bandwidth, b: Bandwidth) -> bool:
    if a.is_full_band or b.is_full_band:
        return a.is_full_band == b.is_full_band
    return max(a.cutoff_hz, b.cutoff_hz) < SAME_RATIO * min(a.cutoff_hz, b.cutoff_hz)


def edge_track(track: Track, sample_rate: int) -> EdgeTrack:
    """Edges at 48 kHz in bins.

    The input is kept up to its -6 dB point: attenuated by less than that, it is still closer to the truth
    than any generated band. The model predicts from where the input is intact.
    """
    intact, crossover = [], []
    low_rate = sample_rate < RATE
    for _, band in track:
        if band.is_silent or band.is_full_band:
            intact.append(BINS)
            crossover.append(BINS)
            continue
        pass_hz = min(band.pass_hz, PASS_SHARE * sample_rate / 2) if low_rate else band.pass_hz
        cutoff_hz = min(band.cutoff_hz, HALF_SHARE * sample_rate / 2) if low_rate else band.cutoff_hz
        intact.append(int(max(pass_hz, LOWEST_CUTOFF_HZ) * N_FFT / RATE))
        crossover.append(int(max(cutoff_hz, LOWEST_CUTOFF_HZ) * N_FFT / RATE))
    return EdgeTrack(tuple(round(start_s * RATE) for start_s, _ in track), tuple(intact), tuple(crossover))
