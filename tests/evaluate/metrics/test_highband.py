"""Measures of the generated band: closed forms, and what each can tell from what."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hifispeech import read
from hifispeech.audio.excitation import noise_frames
from hifispeech.audio.spectral import HOP, N_FFT, istft, stft
from hifispeech.errors import AudioError
from hifispeech.evaluate import metrics
from hifispeech.evaluate.lowrate import low_rate
from hifispeech.evaluate.metrics import cepstrum, highband
from hifispeech.evaluate.metrics.activity import active_frames
from hifispeech.evaluate.systems import baselines

RATE, RATE_IN = 48000, 8000
NEW = ("lsd_hf", "lsd_activity", "envelope", "contrast", "floor", "texture", "mcd", "kept_snr")


def noise(seconds: float = 1.0, seed: int = 0, scale: float = 0.1) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def filtered(signal: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`signal` with the gain applied as a function of frequency in hertz."""
    frequency = np.fft.rfftfreq(signal.size, 1 / RATE)
    return np.fft.irfft(np.fft.rfft(signal) * gain(frequency), signal.size)


@pytest.mark.parametrize("name", NEW)
def test_equal_signals_are_perfect(name: str) -> None:
    x = noise() * np.repeat([1, 0.01, 1, 0.01], RATE // 4)
    for key, value in metrics.measure(x, x, [name], sample_rate_in=RATE_IN).items():
        best = metrics.value_of(key).best
        assert value == {"low": 0, "zero": 0, "one": pytest.approx(1), "high": np.inf}[best], key


def test_ten_times_the_amplitude() -> None:
    """20 dB, or two decades of power, wherever level counts; nothing where it does not."""
    x = noise() * np.repeat([1, 0.1, 1, 0.1], RATE // 4)
    found = metrics.measure(x, 10 * x, NEW, sample_rate_in=RATE_IN)
    assert {key: found[key] for key in found if key.startswith("lsd")} == pytest.approx(
        dict.fromkeys([*(f"lsd_hf_{n}" for n in (512, 1024, 2048, 4096)), "lsd_quiet", "lsd_active"], 2),
        rel=1e-4,
    )
    assert (found["envelope"], found["floor_error"], found["floor_bias"]) == pytest.approx((20, 20, 20))
    assert (found["contrast_time"], found["contrast_frequency"]) == pytest.approx((1, 1))
    assert (found["texture"], found["mcd"]) == pytest.approx((0, 0), abs=1e-9)
    assert found["kept_snr"] == pytest.approx(20 * np.log10(1 / 9))


def test_only_the_generated_band_counts() -> None:
    x = noise()
    louder_below = filtered(x, lambda hz: np.where(hz < 3000, 2.0, 1.0))
    louder_above = filtered(x, lambda hz: np.where(hz > 3800, 10.0, 1.0))
    names = ["lsd_hf", "envelope", "texture"]
    below = metrics.measure(x, louder_below, names, sample_rate_in=RATE_IN)
    assert max(below.values()) < 0.01  # the leakage of the step
    above = metrics.measure(x, louder_above, [*names, "kept_snr"], sample_rate_in=RATE_IN)
    assert above["envelope"] == pytest.approx(20, abs=0.2)
    assert above["lsd_hf_2048"] == pytest.approx(2, abs=0.02)
    assert above["kept_snr"] > 200  # only rounding


def test_lsd_hf_at_2048_points_is_the_high_part_of_protocol_1() -> None:
    a, b = noise(seed=1), noise(seed=2)
    found = metrics.lsd_hf(a, b, RATE_IN)
    assert found[2048] == pytest.approx(metrics.lsd(a, b, "p1", RATE_IN).high, rel=1e-9)
    # The difference of two independent log10 powers of noise: the standard deviation is pi / (sqrt 3 ln 10).
    assert list(found.values()) == pytest.approx([np.pi / np.sqrt(3) / np.log(10)] * 4, rel=0.02)


def test_quiet_and_active_frames() -> None:
    """The estimate is right where it is loud, and 40 dB too loud where it is quiet."""
    steps = np.repeat([1, 1e-3], RATE)
    x = noise(2) * steps
    louder = x * np.where(steps < 1, 100, 1)
    found = metrics.lsd_activity(x, louder, RATE_IN)
    assert found.active == pytest.approx(0, abs=0.05) and found.quiet == pytest.approx(4, abs=0.05)
    steady = metrics.lsd_activity(noise(seed=1), noise(seed=2), RATE_IN)
    assert steady.quiet is None and steady.active > 0
    assert "lsd_quiet" not in metrics.measure(
        noise(), noise(seed=2), ["lsd_activity"], sample_rate_in=RATE_IN
    )
    assert active_frames(np.array([0.0, 1.0, 1.0, 1e-6])).tolist() == [False, True, True, False]
    assert active_frames(np.zeros(3)).all()


def test_envelope_error_of_a_slope_by_hand() -> None:
    """A gain of 3 dB per third octave: 0, 3, 6, ... from the cutoff; the error is their root mean square."""
    x = noise(2)
    bins = 481
    edges = np.array(highband.third_octaves(bins, RATE_IN, RATE)) * 50.0
    step = np.searchsorted(edges, np.arange(0, 24001), side="right") - 1
    gain_db = 3.0 * np.clip(step, 0, len(edges) - 2)
    steep = filtered(x, lambda hz: 10 ** (gain_db[np.round(hz).astype(int)] / 20))
    expected = np.sqrt(np.mean((3.0 * np.arange(len(edges) - 1)) ** 2))
    assert metrics.envelope_error_db(x, steep, RATE_IN) == pytest.approx(expected, abs=0.1)


def test_third_octaves_are_a_third_of_an_octave_wide_and_cover_the_band() -> None:
    for rate_in in (4000, 8000, 12000, 16000, 24000, 44100):
        edges = np.array(highband.third_octaves(481, rate_in, RATE))
        assert edges[0] == metrics.split_bin(481, rate_in) and edges[-1] == 481
        assert (np.diff(edges) > 0).all()
        assert edges[1:-1] / edges[:-2] == pytest.approx(2 ** (1 / 3), abs=0.03)


def test_contrast_of_exaggerated_and_of_flattened_envelopes() -> None:
    """The level moves by 20 dB up and down in time; the estimate's by 30 and 10."""
    t = np.arange(4 * RATE) / RATE
    x, swing = noise(4), np.sin(2 * np.pi * t)
    ratio = {
        db: metrics.envelope_contrast(x * 10 ** (swing), x * 10 ** (db / 20 * swing), RATE_IN).time
        for db in (10, 20, 30)
    }
    assert ratio[20] == pytest.approx(1) and ratio[10] == pytest.approx(0.5, abs=0.05)
    assert ratio[30] == pytest.approx(1.5, abs=0.05)
    slope = filtered(x, lambda hz: 10 ** (-hz / 24000))
    steeper = filtered(x, lambda hz: 10 ** (-2 * hz / 24000))
    assert metrics.envelope_contrast(slope, steeper, RATE_IN).frequency == pytest.approx(2, abs=0.2)
    click = np.zeros(N_FFT * 4)
    click[N_FFT * 2 :: HOP] = 0  # digital silence but for one sample far below the clamp
    click[0] = 1e-7
    assert metrics.envelope_contrast(click, noise(click.size / RATE), RATE_IN).time is None


def test_floor_error_hears_pauses_only() -> None:
    steps = np.repeat([1, 1e-2, 1, 1e-2], RATE // 2)
    x = noise(2) * steps
    quieter = x * np.where(steps < 1, 0.5, 1)
    found = metrics.floor_error(x, quieter, RATE_IN)
    assert (found.error_db, found.bias_db) == pytest.approx((6.02, -6.02), abs=0.05)
    assert metrics.floor_error(x, x * np.where(steps < 1, 1, 4), RATE_IN).error_db < 0.1
    gated = x.copy()
    gated[: RATE // 2] = 0  # digital silence is no noise floor
    assert metrics.floor_error(gated, gated * np.where(steps < 1, 0.5, 1), RATE_IN).bias_db == pytest.approx(
        -6.02, abs=0.05
    )


def test_kept_snr_by_hand() -> None:
    t = np.arange(RATE) / RATE
    tone, other = np.sin(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 2000 * t)
    above = np.sin(2 * np.pi * 3900 * t)  # above 0.9 of 4 kHz
    assert metrics.kept_snr(tone, tone + 0.01 * other, RATE_IN) == pytest.approx(40, abs=1e-6)
    assert metrics.kept_snr(tone, tone + 0.01 * other + above, RATE_IN) == pytest.approx(40, abs=1e-6)
    sixteen_bit = np.round(tone * 0.5 * 2**15) / 2**15
    rounded = 10 * np.log10(0.125 / (2.0**-30 / 12) / 0.15)  # the noise is white, 0.15 of it is below 3.6 kHz
    assert metrics.kept_snr(0.5 * tone, sixteen_bit, RATE_IN) == pytest.approx(rounded, abs=3)


def test_mel_cepstral_distortion_closed_forms() -> None:
    """A cosine of 1 over the bands is 10 / ln 10 / sqrt 2 dB, whatever its order from 1 to 24."""
    flat = np.zeros((3, cepstrum.MELS))
    wave = {d: np.cos(np.pi * d * (np.arange(cepstrum.MELS) + 0.5) / cepstrum.MELS) for d in (0, 1, 24, 25)}
    for order, expected in ((0, 0), (1, 3.0709), (24, 3.0709), (25, 0)):
        assert cepstrum.distortion_db(flat, flat + wave[order]) == pytest.approx(expected, abs=1e-4)
    bands = cepstrum.mel_bands(RATE)
    assert bands.sum(axis=0) == pytest.approx(1) and (bands >= 0).all()


def shaped(truth: np.ndarray, excitation: np.ndarray, rate_in: int) -> np.ndarray:
    """The truth with its band above the cutoff replaced by `excitation` `[frames, bins]` of unit power under
    the true envelope (cells of 12 bins).
    """
    spectrum = stft(truth)
    split = metrics.split_bin(N_FFT // 2 + 1, rate_in)
    starts, bins = np.arange(split, N_FFT // 2 + 1, 12), N_FFT // 2 + 1
    power = np.square(np.abs(spectrum))
    widths = np.diff(np.append(starts, bins))
    envelope = np.repeat(np.add.reduceat(power, starts, axis=1) / widths, widths, axis=1)
    made = np.resize(excitation, spectrum.shape)
    spectrum[:, split:] = np.sqrt(envelope) * made[:, split:]
    return istft(spectrum, truth.size)


def excitations(samples: int) -> dict[str, np.ndarray]:
    """Spectra of unit power: white noise, the package's stored "even" noise, a buzz of 120 Hz."""
    pulses = np.zeros(samples)
    pulses[:: RATE // 120] = 1
    stored = noise_frames().astype(np.float64)
    found = {
        "white": stft(noise(samples / RATE, seed=9)),
        "even": stored[:, 0] + 1j * stored[:, 1],
        "buzz": stft(pulses),
    }
    return {name: x / np.sqrt(np.mean(np.square(np.abs(x)))) for name, x in found.items()}


def bursts(seconds: float, seed: int) -> np.ndarray:
    """Fricative-like noise: a moving band over a floor, with harmonics of a gliding pitch below 4 kHz."""
    t = np.arange(round(seconds * RATE)) / RATE
    hiss = filtered(noise(seconds, seed), lambda hz: 1 / (1 + ((hz - 7000) / 4000) ** 2))
    phase = 2 * np.pi * (150 * t + 10 * np.sin(3 * t))
    voice = sum(np.sin(k * phase) / k for k in range(1, 24))
    return hiss * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * t)) + 0.1 * voice * (
        0.55 - 0.45 * np.sin(2 * np.pi * 3 * t)
    )


def textures(truth: np.ndarray, rate_in: int) -> dict[str, float]:
    made = {name: shaped(truth, spectra, rate_in) for name, spectra in excitations(truth.size).items()}
    truth = truth[: truth.size // 48 * 48]  # a whole number of input samples
    made = {name: x[: truth.size] for name, x in made.items()}
    low = low_rate(truth[None].astype(np.float32), rate_in)
    made["mirror"] = baselines.mirrored(low, rate_in)[0, : truth.size].astype(np.float64)
    found = {name: metrics.texture(truth, x, rate_in) for name, x in made.items()}
    return {name: value for name, value in found.items() if value is not None}


def test_texture_tells_hiss_from_even_noise_mirrors_and_buzz() -> None:
    found = textures(bursts(3, 1), RATE_IN)
    assert found["white"] < 0.1
    for name in ("even", "mirror", "buzz"):
        assert found[name] > 2 * found["white"], (name, found)


@pytest.mark.parametrize("rate_in", [8000, 16000])
def test_texture_on_speech(rate_in: int, data_dir: Path) -> None:
    paths = sorted((data_dir / "eval" / "ravdess_speech").glob("*/*.flac"))[::24][:3]
    clips = [textures(read(path)[0][0].astype(np.float64), rate_in) for path in paths]
    found = {name: np.mean([clip[name] for clip in clips]) for name in clips[0]}
    assert found["white"] < 0.12
    assert found["even"] > 3 * found["white"] and found["buzz"] > 5 * found["white"]
    assert found["mirror"] > 1.3 * found["white"]


@pytest.mark.parametrize("name", NEW)
def test_measures_at_the_edges(name: str) -> None:
    """Silent and short estimates, and other input rates, give finite numbers; bad pairs are refused."""
    x = noise(0.5) * np.repeat([1, 0.01], RATE // 4)
    for ref, est in (
        (x, 0 * x),
        (x[:1], x[:1]),
        (x[:2400], noise(0.05)),
        (np.stack([x, x]), np.stack([x, -x])),
    ):
        found = metrics.measure(ref, est, [name], sample_rate_in=RATE_IN)
        assert all(np.isfinite(value) for key, value in found.items() if key != "kept_snr"), found
    with pytest.raises(AudioError, match="digital silence"):
        metrics.measure(0 * x, x, [name], sample_rate_in=RATE_IN)
    if name != "mcd":
        with pytest.raises(ValueError, match="pass sample_rate_in"):
            metrics.measure(x, x, [name])


def test_every_metric_says_what_it_cannot_hear() -> None:
    for name, metric in metrics.MEASURES.items():
        assert metric.values and metric.hears and metric.deaf_to and metric.rate, name
    every = [value for metric in metrics.MEASURES.values() for value in metric.values]
    assert len(every) == len(set(every))
    functions = (
        metrics.lsd_hf,
        metrics.lsd_activity,
        metrics.envelope_error_db,
        metrics.envelope_contrast,
        metrics.floor_error,
        metrics.texture,
        metrics.mcd,
        metrics.kept_snr,
    )
    for function in functions:
        text = " ".join((function.__doc__ or "").lower().split())
        assert "blind to" in text and "any rate" in text, function
