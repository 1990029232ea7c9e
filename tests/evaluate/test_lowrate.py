"""Low-rate inputs: each method keeps length, timing and level, and filters as it says."""

from collections.abc import Callable

import numpy as np
import pytest

from hifispeech.evaluate.lowrate import METHODS, low_rate

RATE = 48000


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("samples", [48000, 12347])
def test_length_and_timing(method: str, samples: int, synthetic_speech: Callable[..., np.ndarray]) -> None:
    truth = synthetic_speech(1.0)[:samples]
    low = low_rate(np.stack([truth, 0 * truth]), 16000, method)
    assert low.shape == (2, round(samples / 3))
    assert not low[1].any()
    n = low.shape[1] // 2
    every_third = truth[::3][: low.shape[1]]
    lags = [float(np.dot(low[0][5 : 5 + n], every_third[5 + lag : 5 + lag + n])) for lag in range(-5, 6)]
    assert np.argmax(lags) == 5


def gain_db(method: str, freq_hz: float, rate: int = 16000) -> float:
    """Level change of a sine on its way to `rate`."""
    wave = np.cos(2 * np.pi * freq_hz * np.arange(RATE) / RATE)
    middle = low_rate(wave.astype(np.float32), rate, method)[rate // 4 : -rate // 4]
    return float(20 * np.log10(np.sqrt(2 * np.mean(middle**2)) + 1e-9))


@pytest.mark.parametrize("method", METHODS)
def test_low_frequencies_pass_and_nothing_folds_back(method: str) -> None:
    assert gain_db(method, 1000) == pytest.approx(0, abs=0.15)
    assert gain_db(method, 20000) < -45


def test_slopes_are_what_the_descriptions_say() -> None:
    assert gain_db("sinc", 7400) == pytest.approx(0, abs=0.2)
    assert gain_db("fft", 7990) == pytest.approx(0, abs=0.1)
    for method in ("butter", "cheby", "ellip", "bessel"):
        assert gain_db(method, 7990) == pytest.approx(-6, abs=0.5)
    bessel, butter, cheby = (gain_db(method, 7000) for method in ("bessel", "butter", "cheby"))
    assert bessel < butter < cheby


def test_bad_requests_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="choose one of sinc, hann-sinc, stft"):
        low_rate(np.zeros(100, np.float32), 8000, "magic")
    with pytest.raises(ValueError, match=r"2000\.\.47999"):
        low_rate(np.zeros(100, np.float32), 48000)
