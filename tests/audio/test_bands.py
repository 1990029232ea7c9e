"""Band powers: they tile the spectrum, keep energy, and follow gain."""

import numpy as np
import pytest

from hifispeech.audio.bands import (
    BANDS,
    BINS,
    CENTRES,
    EDGES,
    LOG_TINY,
    WIDTHS,
    band_powers,
    first_band,
    log_band_powers,
    recording_band_powers,
)
from hifispeech.audio.spectral import HOP, N_FFT, stft


def test_bands_tile_the_spectrum() -> None:
    assert EDGES[0] == 0 and EDGES[-1] == BINS
    assert WIDTHS.sum() == BINS and (WIDTHS > 0).all() and len(CENTRES) == BANDS


def test_energy_is_kept() -> None:
    power = np.random.default_rng(0).random((5, BINS))
    np.testing.assert_allclose((band_powers(power) * WIDTHS).sum(-1), power.sum(-1))


def test_a_gain_moves_all_bands_alike() -> None:
    audio = np.random.default_rng(1).standard_normal(20_000).astype(np.float32)
    moved = recording_band_powers(audio * np.float32(0.01)) - recording_band_powers(audio)
    np.testing.assert_allclose(moved, -4.0, atol=1e-4)


def test_digital_silence_stays_finite() -> None:
    assert (recording_band_powers(np.zeros(5000, np.float32)) == LOG_TINY).all()


@pytest.mark.parametrize("samples", [1, 100, HOP, N_FFT, 3 * N_FFT + 7])
def test_blocks_do_not_change_the_frames(samples: int) -> None:
    audio = np.random.default_rng(2).standard_normal(samples).astype(np.float32)
    whole = recording_band_powers(audio)
    assert whole.shape == (1 + samples // HOP, BANDS)
    np.testing.assert_allclose(recording_band_powers(audio, block=1), whole, atol=1e-5)
    if samples > N_FFT:
        np.testing.assert_allclose(whole, log_band_powers(stft(audio)), atol=1e-4)


def test_first_unknown_band_holds_the_edge() -> None:
    for edge in range(BINS):
        band = int(first_band(np.array(edge)))
        assert EDGES[band] <= max(edge, EDGES[1]) < EDGES[band + 1], edge
    assert int(first_band(np.array(BINS))) == BANDS, "full band: nothing is unknown"
