"""Mel-cepstral distortion."""

from functools import lru_cache

import numpy as np

from hifispeech.audio.spectral import HOP, N_FFT, stft
from hifispeech.evaluate.metrics.measures import P1_FLOOR
from hifispeech.evaluate.metrics.pairs import Array, Float64, check_pair

MELS = 80
COEFFICIENTS = 24  # 1 to 24; the first, the level, is left out


def mcd(reference: Array, estimate: Array, *, sample_rate: int = 48000) -> float:
    """Mel-cepstral distortion in dB: 10 / ln 10 sqrt(2 sum of squared differences), mean over frames.

    Cepstra 1 to 24 of the natural log power of 80 mel bands (0 Hz to Nyquist, HTK scale, 2048-point frames,
    hop 512, mean bin power clamped at 1e-8). Frames are compared as they stand, without time warping. Other
    papers take other bands and counts: the numbers are not theirs.

    Blind to: level, pitch and fine structure, phase; half of the mel bands are below 3 kHz, so it is dull
    for the high band. Any rate, frames in samples.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    return float(
        np.mean([distortion_db(*(_log_mel(x, sample_rate) for x in p)) for p in zip(ref, est, strict=True)])
    )


def distortion_db(ref: Float64, est: Float64) -> float:
    """MCD of two natural log mel powers. Shape: `[frames, mels]`."""
    mels = ref.shape[-1]
    order = np.arange(1, COEFFICIENTS + 1)
    basis = np.cos(np.pi * np.outer(np.arange(mels) + 0.5, order) / mels) / mels
    difference = (est - ref) @ basis
    return float(np.mean(10 / np.log(10) * np.sqrt(2 * np.square(difference).sum(axis=-1))))


def _log_mel(signal: Float64, rate: int) -> Float64:
    spectrum = stft(signal, N_FFT, HOP)
    power = (spectrum.real**2 + spectrum.imag**2) @ mel_bands(rate)
    return np.log(np.maximum(power, P1_FLOOR))


@lru_cache(maxsize=4)
def mel_bands(sample_rate: int) -> Float64:
    """Triangles of unit sum (means of bin powers). Shape: `[bins, MELS]`."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    centres = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(N_FFT, 1 / sample_rate)[:, None]
    rise = (frequency - centres[:-2]) / np.diff(centres)[:-1]
    fall = (centres[2:] - frequency) / np.diff(centres)[1:]
    bands = np.maximum(0, np.minimum(rise, fall))
    nearest = np.abs(frequency - centres[1:-1]).argmin(axis=0)  # bands narrower than a bin take the nearest
    empty = bands.sum(axis=0) == 0
    bands[nearest[empty], np.flatnonzero(empty)] = 1
    return bands / bands.sum(axis=0)
