"""The crossover: complementary, zero phase, exact below the edge, no notch and no bump for equal bands."""

import numpy as np
import pytest

from hifispeech.audio.crossover import WIDTH_BINS, correction, high_gain
from hifispeech.audio.spectral import istft, stft


@pytest.mark.parametrize("edge", [1, 43, 341, 800, 1020, 1025])
def test_gains_sum_to_one_and_rise_once(edge: int) -> None:
    high = high_gain(edge)
    frames, none = stft(np.random.default_rng(3).standard_normal(9000).astype(np.float32)), np.complex64(0)
    edges = np.full(len(frames), edge)
    kept = frames + correction(frames, none * frames, edges)
    generated = none + correction(none * frames, frames, edges)
    np.testing.assert_allclose(kept + generated, frames, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(generated, high * frames, rtol=1e-6)
    assert np.all(np.diff(high) >= 0)
    assert np.all(high[:edge] == 0)
    assert np.all(high[edge + WIDTH_BINS :] == 1)
    assert not np.iscomplexobj(high)


def test_equal_bands_pass_unchanged() -> None:
    audio = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    frames = stft(audio)
    assert np.abs(correction(frames, frames, np.full(len(frames), 300))).max() == 0


def test_brick_wall_joins_its_missing_band_without_notch() -> None:
    """A signal intact over the crossover, plus the truth as generated band, gives the truth: no notch."""
    truth = np.random.default_rng(1).standard_normal(96000)
    frames = stft(truth)
    edge = 340
    limited = frames.copy()
    limited[:, edge + WIDTH_BINS :] = 0
    joined = istft(limited + correction(limited, frames, np.full(len(frames), edge)), len(truth))
    band = slice(edge - 20, edge + 24)
    found, wanted = (
        np.mean(np.abs(stft(x)[:, band]) ** 2, axis=0).reshape(-1, 4).mean(1) for x in (joined, truth)
    )
    assert np.abs(10 * np.log10(found / wanted)).max() < 0.1


def test_full_band_edge_adds_nothing() -> None:
    frames = stft(np.random.default_rng(2).standard_normal(9000).astype(np.float32))
    assert np.abs(correction(frames, 5 * frames, np.full(len(frames), 1025))).max() == 0
