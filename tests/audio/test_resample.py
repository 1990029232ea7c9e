"""Resampling: exact length, no delay, level kept, and the same numbers for any partition into blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hifispeech.audio import resample_fir
from hifispeech.audio.resample import PASS_SHARE, Resampler, pass_and_half_share, resample
from hifispeech.audio.resample_fir import reach, transition_share
from hifispeech.errors import AudioError

LIVE_RATES = (2000, 4000, 8000, 11025, 16000, 44100, 44099, 48000, 96000)
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


@pytest.mark.parametrize("rate", LIVE_RATES)
@pytest.mark.parametrize("samples", [1, 2, 399])
def test_low_latency_length_is_exact(rate: int, samples: int) -> None:
    out = resample(np.ones((3, samples), np.float32), rate, low_latency=True)
    assert out.shape == (3, round(samples * 48000 / rate))


@pytest.mark.parametrize("rate", LIVE_RATES)
def test_low_latency_sine_keeps_time_and_level(rate: int) -> None:
    """Up to the beginning of the transition band; in its middle 6 dB are lost."""
    low = min(rate, 48000) / 2
    begin = transition_share(rate, 48000)
    for share, gain in ((0.2, 1.0), (0.999 * begin, 1.0), ((1 + begin) / 2, 0.5)):
        out = resample(np.sin(2 * np.pi * share * low * np.arange(rate) / rate), rate, low_latency=True)
        wanted = gain * np.sin(2 * np.pi * share * low * np.arange(len(out)) / 48000)
        inner = slice(len(out) // 4, -len(out) // 4)
        np.testing.assert_allclose(out[inner], wanted[inner], atol=1e-4 if rate != 48000 else 1.0)


@pytest.mark.parametrize("rate", [8000, 44100, 44099])
def test_low_latency_leaves_no_image(rate: int) -> None:
    """Above the input's Nyquist frequency there is nothing down to -90 dB."""
    noise = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    out = resample(noise, rate, low_latency=True)[4000:-4000].astype(np.float64)
    power = np.abs(np.fft.rfft(out * np.blackman(len(out)))) ** 2
    above = np.fft.rfftfreq(len(out), 1 / 48000) > rate / 2 + 20
    assert 10 * np.log10(power[above].max() / power.max()) < -90


@given(sizes=st.lists(st.integers(0, 700), min_size=1, max_size=8), rate=st.sampled_from(LIVE_RATES))
@settings(deadline=None, max_examples=40)
def test_low_latency_blocks_equal_the_whole(sizes: list[int], rate: int) -> None:
    """And `needed` tells when a sample comes, neither too early nor too late."""
    audio = np.random.default_rng(len(sizes)).standard_normal((2, sum(sizes) + 5)).astype(np.float32)
    resampler = Resampler(rate, 48000, 2, low_latency=True)
    parts, start, sent = [], 0, 0
    for size in [*sizes, 5]:
        parts.append(resampler.push(audio[:, start : start + size]))
        start, sent = start + size, sent + parts[-1].shape[1]
        assert not sent or resampler.needed(sent) <= start
        assert resampler.needed(sent + 1) > start
    parts.append(resampler.flush())
    whole = resample(audio, rate, low_latency=True)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-6)


@pytest.mark.parametrize("rate", [4000, 16000, 22050, 32000, 44100, 96000])
def test_few_phases_in_one_go_are_the_same_numbers(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = np.random.default_rng(rate).standard_normal((2, 3001)).astype(np.float32)
    ours = resample(audio, rate, low_latency=True)
    monkeypatch.setattr(resample_fir, "FEW_PHASES", 0)
    np.testing.assert_array_equal(ours, resample(audio, rate, low_latency=True))


def test_low_latency_is_what_it_says() -> None:
    assert reach(8000, 48000) / 8000 == 0.012
    for rate in range(2000, 50000, 777):
        assert reach(rate, 48000) / rate <= 0.016
    assert pass_and_half_share(8000)[0] == PASS_SHARE
    assert pass_and_half_share(4000)[0] < PASS_SHARE
