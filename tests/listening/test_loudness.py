"""Loudness: the standard's own values, clips of any length, and what matching does."""

from collections.abc import Callable

import numpy as np
import pytest

from hifispeech.listening.loudness import HIGHEST_PEAK, loudness_lufs, matched_gains

RATE = 48000


def sine(level_dbfs: float, seconds: float, channels: int = 1, rate: int = RATE) -> np.ndarray:
    wave = 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * 997 * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave.astype(np.float32), (channels, 1))


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_sine_of_the_standard(rate: int) -> None:
    """BS.1770: a 997 Hz sine at 0 dBFS in one channel is -3.01 LUFS; in both, 3.01 dB more."""
    assert loudness_lufs(sine(-20, 5, rate=rate), rate) == pytest.approx(-23.01, abs=0.1)
    assert loudness_lufs(sine(-20, 5, channels=2, rate=rate), rate) == pytest.approx(-20.0, abs=0.1)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.39, 0.4, 0.41])
def test_short_clips_have_a_loudness(seconds: float) -> None:
    """Shorter than the gating block of 0.4 s: one block; the filter's start makes it a little inexact."""
    assert loudness_lufs(sine(-20, seconds), RATE) == pytest.approx(-23.01, abs=1.0)


def test_one_sample_has_a_loudness() -> None:
    assert np.isfinite(loudness_lufs(np.full((1, 1), 0.5, np.float32), RATE))


def test_silence_has_none() -> None:
    assert loudness_lufs(np.zeros((1, RATE)), RATE) == -np.inf
    assert loudness_lufs(sine(-90, 1), RATE) == -np.inf


def test_matching_makes_all_equally_loud(synthetic_speech: Callable[..., np.ndarray]) -> None:
    clean = synthetic_speech(2.0)[None]
    stimuli = {"a": clean, "b": 0.1 * clean, "c": clean + 0.05 * np.roll(clean, 999)}
    gains, reached = matched_gains(stimuli, RATE, -30)
    assert reached == pytest.approx(-30)
    for name, audio in stimuli.items():
        assert loudness_lufs(gains[name] * audio, RATE) == pytest.approx(-30, abs=0.05)


def test_peaks_fit_and_all_stay_matched(synthetic_speech: Callable[..., np.ndarray]) -> None:
    clean = synthetic_speech(2.0)[None]
    click = clean.copy()
    click[0, RATE] = 4.0
    gains, reached = matched_gains({"a": clean, "b": click}, RATE, -10)
    assert reached < -10
    assert gains["b"] * 4.0 == pytest.approx(HIGHEST_PEAK)
    assert loudness_lufs(gains["a"] * clean, RATE) == pytest.approx(reached, abs=0.05)


def test_a_silent_stimulus_is_named() -> None:
    with pytest.raises(ValueError, match="b is silent"):
        matched_gains({"a": sine(-20, 1), "b": np.zeros((1, RATE))}, RATE, -23)
