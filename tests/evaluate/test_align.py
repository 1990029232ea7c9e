"""Alignment: delay to the sample, gain, polarity, cut ends; another recording is refused."""

from collections.abc import Callable

import numpy as np
import pytest

from hifispeech.errors import AudioError
from hifispeech.evaluate import align

RATE = 48000


@pytest.fixture(scope="module")
def speech(synthetic_speech: Callable[..., np.ndarray]) -> np.ndarray:
    return synthetic_speech(1.0).astype(np.float64)[None]


@pytest.mark.parametrize("delay", [0, 1, 777, -777, 20000])
@pytest.mark.parametrize("gain", [0.25, -3.0])
def test_delay_and_gain_are_found_and_undone(speech: np.ndarray, delay: int, gain: float) -> None:
    late = np.pad(speech, ((0, 0), (max(0, delay), 0)))[:, max(0, -delay) :]
    found = align.align(speech, gain * late, RATE, 4000)
    assert found.delay_samples == delay
    assert found.gain == pytest.approx(gain, rel=1e-2)
    ref, est = align.undo(speech, gain * late, found)
    assert ref.shape == est.shape
    np.testing.assert_allclose(est, ref, atol=0.01 * np.abs(ref).max())


def test_only_the_low_band_decides(speech: np.ndarray) -> None:
    """What a system generated above the cutoff may be anything, and be louder."""
    hiss = np.random.default_rng(0).standard_normal(speech.shape[1] + 100)
    spectrum = np.fft.rfft(hiss)
    spectrum[: round(4200 / RATE * hiss.size)] = 0
    output = np.pad(speech, ((0, 0), (100, 0))) + 5 * np.fft.irfft(spectrum, hiss.size)
    found = align.align(speech, output, RATE, 4000)
    assert found.delay_samples == 100
    assert found.gain == pytest.approx(1, abs=0.02)


def test_another_recording_is_refused(
    speech: np.ndarray, synthetic_speech: Callable[..., np.ndarray]
) -> None:
    for seed in range(1, 5):
        with pytest.raises(AudioError, match="do not belong together"):
            align.align(speech, synthetic_speech(1.0, seed=seed)[None], RATE, 8000)


def test_what_cannot_be_aligned_says_why(speech: np.ndarray) -> None:
    with pytest.raises(AudioError, match="silent"):
        align.align(speech, 0 * speech, RATE, 4000)
    with pytest.raises(AudioError, match="1 channels and estimate 2"):
        align.align(speech, np.concatenate([speech, speech]), RATE, 4000)
    cut = speech[:, : round(0.7 * RATE)]
    with pytest.raises(AudioError, match="covers 33600 of 48000 samples"):
        align.undo(speech, cut, align.align(speech, cut, RATE, 4000))


def test_channels_move_together(speech: np.ndarray) -> None:
    stereo = np.concatenate([speech, 0.1 * speech[:, ::-1]])
    late = 0.5 * np.pad(stereo, ((0, 0), (321, 0)))
    found = align.align(stereo, late, RATE, 4000)
    ref, est = align.undo(stereo, late, found)
    assert found.delay_samples == 321
    np.testing.assert_allclose(est, ref, atol=1e-9)
