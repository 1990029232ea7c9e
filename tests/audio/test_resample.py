"""Resampling: exact length, no delay, level kept, and the same numbers for any partition into blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hifispeech.audio.resample import PASS_SHARE, Resampler, resample
from hifispeech.errors import AudioError

RATES = (4000, 8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("samples", [1, 2, 399, 4001])
def test_length_is_exact(rate: int, samples: int) -> None:
    assert resample(np.ones((3, samples), np.float32), rate).shape == (3, round(samples * 48000 / rate))


@pytest.mark.parametrize("rate", RATES)
def test_sine_keeps_time_and_level(rate: int) -> None:
    """Output sample n is input time n / 48000: a sine in the pass-band comes out as the same sine."""
    frequency = 0.2 * min(rate, 48000)
    length = rate // 2
    out = resample(np.sin(2 * np.pi * frequency * np.arange(length) / rate), rate)
    wanted = np.sin(2 * np.pi * frequency * np.arange(len(out)) / 48000)
    inner = slice(len(out) // 4, -len(out) // 4)
    np.testing.assert_allclose(out[inner], wanted[inner], atol=2e-5)


@given(sizes=st.lists(st.integers(0, 700), min_size=1, max_size=8), rate=st.sampled_from(RATES))
@settings(deadline=None, max_examples=60)
def test_blocks_equal_the_whole(sizes: list[int], rate: int) -> None:
    audio = np.random.default_rng(len(sizes)).standard_normal((2, sum(sizes) + 5)).astype(np.float32)
    resampler = Resampler(rate, 48000, 2)
    parts, start = [], 0
    for size in [*sizes, 5]:
        parts.append(resampler.push(audio[:, start : start + size]))
        start += size
    parts.append(resampler.flush())
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), resample(audio, rate))


def test_band_is_kept_up_to_the_stated_share() -> None:
    rate = 16000
    frequency = 0.99 * PASS_SHARE * rate / 2
    out = resample(np.sin(2 * np.pi * frequency * np.arange(rate) / rate), rate)
    assert np.sqrt(2 * np.mean(out[9000:-9000] ** 2)) > 10 ** (-1 / 20)


@pytest.mark.parametrize("rate", [0, -8000, 999, 10**6, 8000.5])
def test_rate_outside_the_range_is_refused(rate: float) -> None:
    with pytest.raises(AudioError, match="2000 to 768000"):
        resample(np.ones(100, np.float32), rate)  # type: ignore[arg-type]
