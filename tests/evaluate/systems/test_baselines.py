"""Baselines: exact images of a sine, exact lengths, nothing below the cutoff touched."""

import numpy as np
import pytest

from hifispeech.audio.spectral import stft
from hifispeech.errors import AudioError
from hifispeech.evaluate.systems import baselines


def sine(freq_hz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return (0.5 * np.cos(2 * np.pi * freq_hz * np.arange(round(seconds * rate)) / rate + 0.3)).astype(
        np.float32
    )


def test_images_of_a_sine_are_those_of_an_upsampler_without_filter() -> None:
    """Zero insertion of factor 4 is x times a comb: images at 11, 13 and 23 kHz, in phase."""
    low, rate = sine(1000, 12000), 12000
    time = np.arange(low.size * 4) / 48000
    base = 0.5 * np.cos(2 * np.pi * 1000 * time + 0.3)
    lower_half_of_line_at_24k = 0.5 * np.cos(2 * np.pi * 23000 * time - 0.3)
    expected = base * (1 + 2 * np.cos(2 * np.pi * 12000 * time)) + lower_half_of_line_at_24k
    inner = slice(4096, -4096)
    np.testing.assert_allclose(baselines.mirrored(low, rate)[inner], expected[inner], atol=1e-4)


def test_below_the_cutoff_mirroring_is_plain_resampling() -> None:
    low = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    plain, folded = baselines.resampled(low, 16000), baselines.mirrored(low, 16000, cutoff_hz=6000)
    below = slice(0, int(5800 / 48000 * 2048))
    difference = np.abs(stft(folded) - stft(plain))[4:-4, below].max()
    assert difference < 1e-3 * np.abs(stft(plain)).max()


def test_slope_attenuates_per_octave() -> None:
    low = sine(1000, 8000)
    inner = slice(8, -8)
    flat, sloped = (np.abs(stft(baselines.mirrored(low, 8000, slope_db=s)))[inner].mean(0) for s in (0, 12))
    bins = [round(f / 48000 * 2048) for f in (7000, 9000, 15000)]
    expected = [12 * np.log2(f / 4000) for f in (7000, 9000, 15000)]
    np.testing.assert_allclose([20 * np.log10(flat[b] / sloped[b]) for b in bins], expected, atol=0.3)


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 24000, 44100])
@pytest.mark.parametrize("system", [baselines.resampled, baselines.mirrored])
def test_length_channels_and_silence(system, rate: int) -> None:
    audio = np.stack([sine(500, rate, 0.31), np.zeros(round(0.31 * rate), np.float32)])
    out = system(audio, rate)
    assert out.shape == (2, round(audio.shape[1] * 48000 / rate))
    assert out.dtype == np.float32
    assert not out[1].any()
    np.testing.assert_array_equal(system(audio[0], rate), out[0])


def test_cutoff_outside_the_band_is_refused() -> None:
    for rate, cutoff in ((8000, 5000.0), (8000, 0.0), (48000, None)):
        with pytest.raises(AudioError, match="cutoff_hz="):
            baselines.mirrored(sine(500, rate, 0.1), rate, cutoff_hz=cutoff)
