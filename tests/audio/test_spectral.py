"""The STFT: closed forms, perfect reconstruction, and agreement with a direct formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hifispeech.audio.spectral import hann, istft, overlap_add, stft


def test_frame_equals_direct_formula() -> None:
    rng = np.random.default_rng(0)
    audio = rng.standard_normal(4000)
    frame = 3
    segment = audio[frame * 128 - 256 : frame * 128 + 256] * (
        0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    )
    direct = [np.sum(segment * np.exp(-2j * np.pi * k * np.arange(512) / 512)) for k in (0, 1, 100, 256)]
    found = stft(audio, 512, 128)[frame, [0, 1, 100, 256]]
    np.testing.assert_allclose(found, direct, atol=1e-10)


def test_full_scale_sine_peaks_at_half_the_window_sum() -> None:
    time = np.arange(48000) / 48000
    spectrum = np.abs(stft(np.sin(2 * np.pi * 3000 * time)))
    assert spectrum[20].argmax() == 128
    assert spectrum[20].max() == pytest.approx(512, rel=1e-6)


@given(length=st.integers(1, 9000), mode=st.sampled_from(["reflect", "constant"]))
def test_reconstruction_is_exact_at_any_length(length: int, mode: str) -> None:
    audio = np.random.default_rng(length).standard_normal((2, length))
    spectrum = stft(audio, 512, 128, pad_mode=mode)  # type: ignore[arg-type]
    np.testing.assert_allclose(istft(spectrum, length, 512, 128), audio, atol=1e-10)


def test_precision_follows_the_input() -> None:
    assert stft(np.ones(3000, np.float32)).dtype == np.complex64
    assert stft(np.ones(3000)).dtype == np.complex128


def test_squared_windows_sum_to_the_constant_the_generator_divides_by() -> None:
    window = hann(2048, "float64") ** 2
    total = overlap_add(np.broadcast_to(window, (12, 2048)), 512)
    np.testing.assert_allclose(total[2048:-2048], 1.5, atol=1e-12)


def test_errors() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        stft(np.zeros(0))
    with pytest.raises(ValueError, match="cover less"):
        istft(stft(np.ones(1000), 512, 128), 5000, 512, 128)
