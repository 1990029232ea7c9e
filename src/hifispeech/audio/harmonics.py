"""What the generated band is made of: harmonics that fit the pitch, and noise, both spectrally flat.

The rectified low band has partials at every multiple of the pitch and pulses in phase with it. An envelope is
then all that is needed to shape the sum into speech.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from hifispeech.audio.bands import BANDS, BINS, CENTRES, SAMPLE_RATE
from hifispeech.audio.spectral import HOP, N_FFT, frame_spectra

HARMONIC, NOISE = 0.75, 0.66  # amplitudes of the two; their powers add to one
NOISE_FRAMES = 1024  # after which the noise repeats: 11 s
NOISE_SEED = 20501
SMOOTH_BINS = 24  # 560 Hz: what is flattened is the envelope, not the partials
TINY = 1e-24

ComplexFrames = npt.NDArray[np.complexfloating]


def excitation(
    spectrum: ComplexFrames, first_frame: int, edge_bin: npt.NDArray[np.integer], lowest: int = 0
) -> ComplexFrames:
    """Frames of unit power per bin that are periodic where the input is.

    Shape: spectrum `[frames, bins]`, of which the bins below `edge_bin` `[frames]` are heard, to
    `[frames, bins - lowest]`: the bins from `lowest` on. `first_frame` is the absolute number of the first
    frame, which picks the noise.
    """
    rows = (first_frame + np.arange(len(spectrum))) % NOISE_FRAMES
    harmonics = flattened(rectified(spectrum, edge_bin), lowest)
    harmonics *= np.float32(HARMONIC)
    harmonics += np.float32(NOISE) * noise_frames()[rows, lowest:]
    return harmonics


def rectified(spectrum: ComplexFrames, edge_bin: npt.NDArray[np.integer]) -> ComplexFrames:
    """Spectra of the absolute value of the upper part of the low band.

    A window is positive, so the absolute value of a windowed segment is the windowed absolute value.
    Shape: `[frames, bins]` kept.
    """
    hertz = np.arange(BINS, dtype=np.float32) * (SAMPLE_RATE / N_FFT)
    edge_hz = edge_bin[:, None].astype(np.float32) * (SAMPLE_RATE / N_FFT)
    # From 1.2 to 2.4 kHz on where the input reaches that far, else from 0.5 kHz on.
    corner = np.where(edge_hz > 2600.0, np.float32(1200.0), np.float32(500.0))
    weights = np.clip((hertz - corner) / corner, 0.0, 1.0) * (hertz < edge_hz)
    segments = np.fft.irfft(spectrum * weights, n=N_FFT, axis=-1)
    return np.fft.rfft(np.abs(segments, out=segments), axis=-1)


def flattened(spectrum: ComplexFrames, lowest: int = 0) -> ComplexFrames:
    """Divide every bin by the root mean power around it.

    Shape: `[frames, bins]` to complex64 `[frames, bins - lowest]`.
    """
    start = min(max(0, lowest - SMOOTH_BINS), BINS - 2 * SMOOTH_BINS)
    spectrum = spectrum[:, start:]
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    total = np.zeros((len(power), power.shape[1] + 1))
    np.cumsum(power, axis=1, out=total[:, 1:])
    count = power.shape[1]
    low = np.clip(np.arange(lowest - start, count) - SMOOTH_BINS // 2, 0, count - SMOOTH_BINS)
    mean = (total[:, low + SMOOTH_BINS] - total[:, low]) / SMOOTH_BINS
    return (spectrum[:, lowest - start :] / np.sqrt(np.maximum(mean, TINY))).astype(np.complex64)


@lru_cache(maxsize=1)
def noise_frames() -> npt.NDArray[np.complex64]:
    """STFT frames of periodic white noise, unit mean power per bin.

    A table, not a generator: any frame can be addressed, so chunks and channels hear the same noise.
    Shape: `[NOISE_FRAMES, bins]`.
    """
    audio = np.random.default_rng(NOISE_SEED).standard_normal(NOISE_FRAMES * HOP)
    spectrum = frame_spectra(np.concatenate([audio, audio[: N_FFT - HOP]]))
    return flattened(spectrum).astype(np.complex64)


@lru_cache(maxsize=1)
def _between() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For every bin the band whose centre follows it, and how far it is on the way there. Shape: `[bins]`."""
    bins = np.arange(BINS)
    upper = np.clip(np.searchsorted(CENTRES, bins), 1, BANDS - 1)
    weight = np.clip((bins - CENTRES[upper - 1]) / (CENTRES[upper] - CENTRES[upper - 1]), 0.0, 1.0)
    return upper, weight.astype(np.float32)


def interpolate_envelope(
    logs: npt.NDArray[np.float32], first: npt.NDArray[np.integer], lowest: int = 0
) -> npt.NDArray[np.float32]:
    """Amplitude per bin from log10 band powers, interpolated on the logarithm between the bands' centres.

    Below the first generated band its own value is used: what lies there is the input's, not the network's.
    Shape: `[frames, BANDS]` and `[frames]` to `[frames, bins - lowest]`: the bins from `lowest` on.
    """
    own = np.take_along_axis(logs, np.minimum(first, BANDS - 1)[:, None], axis=1)
    logs = np.where(np.arange(BANDS) < first[:, None], own, logs) * np.float32(0.5 * np.log(10.0))
    upper, weight = _between()
    upper, weight = upper[lowest:], weight[lowest:]
    low = np.take(logs, upper - 1, axis=1)
    amplitude = np.take(logs, upper, axis=1)
    amplitude -= low
    amplitude *= weight
    amplitude += low
    return np.exp(amplitude, out=amplitude)
