"""The stored noise: white, of unit power, periodic, and far more even than white noise; its maker agrees."""

import numpy as np
import pytest

from hifispeech.audio.excitation import (
    low_scatter_noise,
    noise_frames,
    wrapped_signal,
    wrapped_spectra,
)
from hifispeech.audio.spectral import HOP, stft


def scatter(power: np.ndarray) -> float:
    """Standard deviation of the log10 power of bins, the outermost left out. Shape: `[frames, bins]`."""
    return float(np.log10(power[:, 2:-2]).std())


def test_table_is_white_with_unit_power_and_little_scatter() -> None:
    power = np.sum(noise_frames().astype(np.float64) ** 2, axis=1)
    assert power[:, 2:-2].mean() == pytest.approx(1.0, abs=1e-3)
    assert np.abs(10 * np.log10(power[:, 2:-2].mean(0))).max() < 1.0
    assert scatter(power) < 0.15
    white = np.abs(stft(np.random.default_rng(0).standard_normal(200 * HOP))) ** 2
    assert scatter(white) > 0.5


def test_as_a_signal_it_is_gaussian_noise() -> None:
    """The evenness is not bought with a pulse train or a sweep."""
    frames = noise_frames()
    audio = wrapped_signal(frames[:, 0].astype(np.float64) + 1j * frames[:, 1])
    audio -= audio.mean()
    assert np.mean(audio**4) / np.mean(audio**2) ** 2 == pytest.approx(3.0, abs=0.2)
    spectrum = np.abs(np.fft.rfft(audio)) ** 2
    lags = np.fft.irfft(spectrum)[: len(audio) // 2]
    assert np.abs(lags[64:] / lags[0]).max() < 0.2  # no echo to be heard, no period


def test_table_repeats_without_a_seam() -> None:
    audio = np.random.default_rng(1).standard_normal(32 * HOP)
    np.testing.assert_allclose(wrapped_signal(wrapped_spectra(audio)), audio, atol=1e-12)


def test_iteration_evens_the_spectrogram() -> None:
    scatters = [scatter(np.abs(wrapped_spectra(low_scatter_noise(64, 3, n))) ** 2) for n in (0, 5, 40)]
    assert scatters[0] > 0.5 > scatters[1] > scatters[2]
    assert scatters[2] < 0.2
