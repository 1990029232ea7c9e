"""LSD on the quiet and on the active frames of a recording: a good mean may hide either."""

from dataclasses import dataclass

import numpy as np

from hifispeech.audio.spectral import HOP, N_FFT, stft
from hifispeech.evaluate.metrics.measures import P1_FLOOR, split_bin
from hifispeech.evaluate.metrics.pairs import Array, Float64, check_pair

MIN_SPREAD_DB = 12.0  # between quiet and loud frames; a recording with less has no quiet frames
QUIET_PERCENTILE, LOUD_PERCENTILE = 5, 95


@dataclass(frozen=True)
class ActivityLSD:
    """LSD (P1) above the input's Nyquist frequency: quiet frames (`None` if there are none), active ones."""

    quiet: float | None
    active: float


def lsd_activity(
    reference: Array, estimate: Array, sample_rate_in: int, *, sample_rate: int = 48000
) -> ActivityLSD:
    """LSD (P1) above the input's Nyquist frequency, on quiet and on active frames apart.

    A frame is quiet if the reference's power there (whole band) is nearer, in dB, to its 5th than to its
    95th percentile (of frames that are not digital silence, which is quiet). Where these are less than 12 dB
    apart, all frames are active.

    Blind to: what LSD is blind to; the boundary frames of words may fall to either side. Any rate, 2048-point
    frames.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
        ValueError: for a split outside the band.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    quiet, active = [], []
    for a, b in zip(ref, est, strict=True):
        true, made = _power(a), _power(b)
        split = split_bin(true.shape[-1], sample_rate_in, sample_rate)
        difference = np.log10(np.maximum(made, P1_FLOOR)) - np.log10(np.maximum(true, P1_FLOOR))
        distances = np.sqrt(np.square(difference[:, split:]).mean(axis=-1))
        is_active = active_frames(true.sum(axis=-1))
        active.append(distances[is_active].mean())
        if not is_active.all():
            quiet.append(distances[~is_active].mean())
    return ActivityLSD(float(np.mean(quiet)) if quiet else None, float(np.mean(active)))


def active_frames(power: Float64) -> np.ndarray:
    """Which frames are active, from their powers; at least one is. Shape: `[frames]`."""
    audible = power > 0
    if not audible.any():
        return np.ones(len(power), bool)
    level_db = 10 * np.log10(power, where=audible, out=np.full(len(power), -np.inf))
    low, high = np.percentile(level_db[audible], (QUIET_PERCENTILE, LOUD_PERCENTILE))
    return audible if high - low < MIN_SPREAD_DB else level_db >= (low + high) / 2


def _power(signal: Float64) -> Float64:
    spectrum = stft(signal, N_FFT, HOP)
    return np.asarray(spectrum.real**2 + spectrum.imag**2, np.float64)
