"""Degradation: length, alignment, the cutoff it reports, and that a spec reproduces its clip."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="degradation filters need the train extra")

from hifispeech.audio.degrade import codecs
from hifispeech.audio.degrade import filters as degrade
from hifispeech.audio.degrade.codecs import available_codecs
from hifispeech.audio.degrade.filters import DegradeSpec, apply, effective_cutoff, magnitude_response
from hifispeech.audio.degrade.filters import sample_degradation as sample
from hifispeech.errors import AudioError

RATE = 48000


def syllables(seconds: float = 1.5, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise with speech's slope and syllable rhythm, float32 [time]."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    freqs = np.fft.rfftfreq(n, 1 / rate)
    tilted = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) / (1 + (freqs / 1000) ** 2) ** 0.5, n)
    envelope = np.maximum(np.sin(2 * np.pi * 4 * np.arange(n) / rate), 0.02)
    return (0.3 * tilted * envelope / np.abs(tilted).max()).astype(np.float32)


def shift(reference: np.ndarray, other: np.ndarray) -> int:
    """Samples by which `other` lags `reference`."""
    n = 2 * len(reference)
    corr = np.fft.irfft(np.fft.rfft(other, n) * np.conj(np.fft.rfft(reference, n)), n)
    return int((np.argmax(corr) + n // 2) % n - n // 2)


@pytest.mark.parametrize("seed", range(40))
def test_length_determinism_and_alignment(seed: int) -> None:
    spec = sample(np.random.default_rng(seed), noise_probability=0.5)
    assert spec == sample(np.random.default_rng(seed), noise_probability=0.5)
    x = syllables(0.8, seed)
    low, rate, cutoff = apply(x, RATE, spec)
    assert (
        rate == spec.target_rate and low.shape == (round(len(x) * rate / RATE),) and low.dtype == np.float32
    )
    assert 0 < cutoff <= rate / 2
    np.testing.assert_array_equal(low, apply(x, RATE, spec)[0])
    full, rate, _ = apply(x, RATE, spec, rate_out=RATE)
    assert rate == RATE and full.shape == x.shape
    # a causal filter keeps its dispersion: a fraction of its own cutoff's period
    assert abs(shift(x, full)) <= (0 if spec.zero_phase else 0.2 * RATE / cutoff)


@pytest.mark.parametrize("family", degrade.FAMILIES)
@pytest.mark.parametrize("cutoff_hz", [1200.0, 4000.0, 11000.0])
def test_cutoff_is_the_6_db_point(family: str, cutoff_hz: float) -> None:
    spec = DegradeSpec(RATE, cutoff_hz, family, fir_transition=0.1)
    assert effective_cutoff(spec) == pytest.approx(cutoff_hz, rel=0.02)
    noise = np.random.default_rng(1).standard_normal(4 * RATE).astype(np.float32)
    out, _, reported = apply(noise, RATE, spec)
    assert reported == effective_cutoff(spec)
    frames = [np.abs(np.fft.rfft(y.reshape(-1, 2000) * np.hanning(2000))) ** 2 for y in (noise, out)]
    gain = np.sqrt(frames[1].mean(0) / frames[0].mean(0))
    freqs = np.fft.rfftfreq(2000, 1 / RATE)
    keep = np.abs(freqs - cutoff_hz) > 100  # the analysis window smears a brick wall
    np.testing.assert_allclose(gain[keep], magnitude_response(spec, freqs)[keep], atol=0.12)


@pytest.mark.parametrize("target", [2000, 8000, 16000, 44100])
@pytest.mark.parametrize("family", ["soxr", "fft"])
def test_resamplers_keep_the_band(target: int, family: str) -> None:
    x = syllables(1.0)
    spec = DegradeSpec(target, target / 2, family)
    low, _, cutoff = apply(x, RATE, spec)
    assert cutoff == pytest.approx(target / 2, rel=0.05)
    back, _, _ = apply(low, target, DegradeSpec(RATE, RATE / 2, "fft"))
    spectrum = [np.fft.rfft(y) for y in (x[:RATE], back[:RATE])]
    band = slice(20, int(0.9 * target / 2))
    assert np.linalg.norm(spectrum[1][band] - spectrum[0][band]) < 0.02 * np.linalg.norm(spectrum[0][band])
    assert np.linalg.norm(spectrum[1][target // 2 + 40 :]) < 3e-3 * np.linalg.norm(spectrum[0])


@pytest.mark.parametrize("codec", list(degrade.CODECS))
def test_codecs_keep_length_and_alignment(codec: str) -> None:
    if codec not in available_codecs():
        pytest.skip(f"this FFmpeg/libsndfile cannot encode {codec}")
    rates, bit_rates = degrade.CODECS[codec]
    x = syllables(1.5)
    for rate in (rates[0], rates[-1]):
        plain = DegradeSpec(rate, rate / 2)
        spec = DegradeSpec(rate, rate / 2, codec=codec, bit_rate=bit_rates[-1] if bit_rates else 0)
        coded, _, cutoff = apply(x, RATE, spec)
        reference = apply(x, RATE, plain)[0]
        assert coded.shape == reference.shape and np.isfinite(coded).all()
        assert abs(shift(reference, coded)) <= 1
        assert np.corrcoef(reference, coded)[0, 1] > (0.5 if codec in ("amr_nb", "gsm") else 0.9)
        assert 0.35 * rate / 2 < cutoff <= rate / 2
        np.testing.assert_array_equal(coded, apply(x, RATE, spec)[0])


def test_hot_clip_goes_through_a_codec_unclipped() -> None:
    x = 3.0 * syllables(0.5) / np.abs(syllables(0.5)).max()
    out = apply(x, RATE, DegradeSpec(8000, 4000.0, codec="mulaw"))[0]
    assert np.abs(out).max() > 1.5


def test_noise_level_and_silence() -> None:
    x = syllables(2.0)
    spec = DegradeSpec(16000, 8000.0, noise_db=40.0, seed=3)
    clean = apply(x, RATE, DegradeSpec(16000, 8000.0))[0]
    noise = apply(x, RATE, spec)[0] - clean
    assert 10 * np.log10(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(40.0, abs=0.3)
    assert not apply(np.zeros(4800, np.float32), RATE, spec)[0].any()


def test_two_channels_are_twice_mono() -> None:
    x = np.stack([syllables(0.5, 1), syllables(0.5, 2)])
    spec = DegradeSpec(12000, 5500.0, "elliptic", zero_phase=False)
    out = apply(x, RATE, spec)[0]
    np.testing.assert_allclose(out[1], apply(x[1], RATE, spec)[0], atol=1e-7)


@pytest.mark.parametrize("length", [0, 1, 2, 50, 2400])
@pytest.mark.parametrize("family", ["soxr", "fft", "elliptic", "fir"])
def test_short_clips(length: int, family: str) -> None:
    x = syllables(0.1)[:length]
    out = apply(x, RATE, DegradeSpec(8000, 3500.0, family))[0]
    assert out.shape == (round(length / 6),) and np.isfinite(out).all()
    assert apply(x, RATE, DegradeSpec(8000, 3500.0, family), rate_out=RATE)[0].shape == (length,)


def test_sampling_covers_its_ranges() -> None:
    rng = np.random.default_rng(0)
    specs = [sample(rng, codecs=tuple(degrade.CODECS), codec_probability=0.3) for _ in range(600)]
    assert {s.family for s in specs} == set(degrade.FAMILIES)
    assert {s.codec for s in specs} == {None, *degrade.CODECS}
    rates = [s.target_rate for s in specs]
    assert min(rates) < 2200 and max(rates) == 44100
    assert {s.noise_db is None for s in specs} == {True, False}


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="family='brick'"):
        DegradeSpec(8000, 4000.0, "brick")
    with pytest.raises(ValueError, match="cutoff_hz=5000"):
        DegradeSpec(8000, 5000.0)
    with pytest.raises(ValueError, match="does not suit gsm"):
        DegradeSpec(16000, 8000.0, codec="gsm")
    with pytest.raises(ValueError, match="outside 2000"):
        sample(np.random.default_rng(0), min_rate=100)
    with pytest.raises(ValueError, match="shape"):
        apply(np.zeros((1, 2, 3), np.float32), RATE, DegradeSpec(8000, 4000.0))


def test_a_missing_encoder_is_an_audio_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "available_codecs", lambda: ("mulaw",))
    with pytest.raises(AudioError, match="cannot encode gsm"):
        codecs.round_trip(np.zeros(100), "gsm", 8000, 0, 0)
