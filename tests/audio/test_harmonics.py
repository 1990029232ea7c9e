"""Excitation: flat, periodic where the input is, and independent of gain and of where chunks begin."""

import numpy as np

from hifispeech.audio.bands import BANDS, BINS, CENTRES, CENTRES_HZ, band_powers, first_band
from hifispeech.audio.harmonics import (
    NOISE_FRAMES,
    excitation,
    flattened,
    interpolate_envelope,
    noise_frames,
    rectified,
)
from hifispeech.audio.spectral import N_FFT, stft

EDGE = 160  # 3.75 kHz


def voice(pitch_hz: float = 150.0, seconds: float = 1.0) -> np.ndarray:
    """All partials of a pitch below 3.6 kHz, `[time]`."""
    time = np.arange(int(48000 * seconds)) / 48000
    partials = np.arange(1, int(3600 / pitch_hz) + 1)
    return (0.05 * np.cos(2 * np.pi * pitch_hz * partials[:, None] * time).sum(0)).astype(np.float32)


def edges(frames: int) -> np.ndarray:
    return np.full(frames, EDGE)


def test_rectified_partials_are_multiples_of_the_pitch() -> None:
    spectrum = stft(voice(pitch_hz=468.75))  # 20 bins
    power = np.square(np.abs(rectified(spectrum, edges(len(spectrum)))))[20:-20].mean(0)
    assert power[400:800].reshape(-1, 20)[:, 0].sum() > 100 * power[410:810].reshape(-1, 20)[:, 0].sum()


def test_excitation_is_flat() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(96_000).astype(np.float32)
    spectrum = stft(noise)
    power = np.square(np.abs(excitation(spectrum, 0, edges(len(spectrum)))))
    np.testing.assert_allclose(band_powers(power.mean(0))[50:-4], 1.0, atol=0.15)


def test_gain_does_not_change_it() -> None:
    spectrum = stft(voice())
    loud, soft = (excitation(spectrum * gain, 5, edges(len(spectrum))) for gain in (1.0, 1e-3))
    np.testing.assert_allclose(np.abs(loud), np.abs(soft), rtol=1e-3, atol=1e-4)


def test_chunks_hear_the_same() -> None:
    spectrum = stft(voice())
    whole = excitation(spectrum, 0, edges(len(spectrum)))
    np.testing.assert_array_equal(excitation(spectrum[30:], 30, edges(len(spectrum) - 30)), whole[30:])


def test_the_upper_bins_alone_are_the_same() -> None:
    spectrum = stft(voice())
    for lowest in (1, 160, 500, BINS - 1):
        whole = excitation(spectrum, 3, edges(len(spectrum)))[:, lowest:]
        part = excitation(spectrum, 3, edges(len(spectrum)), lowest)
        np.testing.assert_allclose(part, whole, atol=1e-5)
    logs = np.random.default_rng(1).normal(-3, 1, (6, BANDS)).astype(np.float32)
    first = np.full(6, 44)
    np.testing.assert_array_equal(
        interpolate_envelope(logs, first, 500), interpolate_envelope(logs, first)[:, 500:]
    )


def test_digital_silence_leaves_noise_only() -> None:
    silent = excitation(np.zeros((4, BINS), np.complex64), 0, edges(4))
    assert np.isfinite(silent).all()
    assert np.abs(flattened(np.zeros((4, BINS), np.complex64))).max() == 0.0


def test_noise_is_as_random_as_noise() -> None:
    """No trick on one frame size: the power of a bin scatters as that of white noise, 5.6 dB."""
    logs = 10 * np.log10(np.square(np.abs(noise_frames()[:, 50:-50])))
    assert noise_frames().shape == (NOISE_FRAMES, BINS)
    assert 5.0 < logs.std() < 6.0


def test_interpolation_meets_the_bands() -> None:
    logs = np.random.default_rng(3).normal(-3, 1, (6, BANDS)).astype(np.float32)
    first = np.full(6, 40)
    amplitude = interpolate_envelope(logs, first)
    for band in (41, 60, 100):
        if CENTRES[band] == int(CENTRES[band]):
            np.testing.assert_allclose(
                2 * np.log10(amplitude[:, int(CENTRES[band])]), logs[:, band], atol=1e-3
            )
    below = amplitude[:, : int(CENTRES[39])]
    np.testing.assert_allclose(2 * np.log10(below), logs[:, 40:41] + np.zeros_like(below), atol=1e-3)


def test_bins_of_the_edge() -> None:
    assert CENTRES_HZ[int(first_band(np.array(EDGE)))] > 0.9 * EDGE * 48000 / N_FFT
