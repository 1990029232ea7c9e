"""Metrics: closed forms, an independent formula of both LSD protocols, symmetry, silence, bad pairs."""

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest

from hifispeech.errors import AudioError
from hifispeech.evaluate.metrics import badness, measure, perceptual
from hifispeech.evaluate.metrics import measures as metrics

RATE = 48000


def noise(seconds: float = 0.25, seed: int = 0, scale: float = 0.1) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def lsd_by_loops(ref: np.ndarray, est: np.ndarray, protocol: str, rate_in: int) -> tuple[float, float, float]:
    """The definition in hifi-sr.md, frame by frame: its own padding, window and FFT."""
    n_fft, hop = (2048, 512) if protocol == "p1" else (int(2048 * RATE / 44100), int(RATE / 100))
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / n_fft) for n in range(n_fft)]
    bins = n_fft // 2 + 1
    split = int(bins * rate_in / RATE)
    half = n_fft // 2
    padded = [np.concatenate([x[half:0:-1], x, x[-2 : -half - 2 : -1]]) for x in (ref, est)]
    rows = []
    for start in range(0, len(padded[0]) - n_fft + 1, hop):
        r, e = (abs(np.fft.fft(x[start : start + n_fft] * window)[:bins]) for x in padded)
        if protocol == "p1":
            d = [
                math.log10(max(a * a, 1e-8)) - math.log10(max(b * b, 1e-8)) for a, b in zip(r, e, strict=True)
            ]
        else:
            d = [math.log10(a**2 / (b + 1e-12) ** 2 + 1e-12) for a, b in zip(r, e, strict=True)]
        square = np.array(d) ** 2
        rows.append([math.sqrt(part.mean()) for part in (square, square[:split], square[split:])])
    return tuple(np.mean(rows, axis=0))


@pytest.mark.parametrize("protocol", ["p1", "p2"])
@pytest.mark.parametrize("samples", [12000, 12345])
def test_lsd_equals_independent_formula(protocol: metrics.Protocol, samples: int) -> None:
    ref = noise(1, seed=1)[:samples]
    est = np.convolve(ref, [0.4, 0.3, 0.2], mode="same") + noise(1, seed=2, scale=1e-4)[:samples]
    result = metrics.lsd(ref, est, protocol, 16000)
    assert (result.lsd, result.low, result.high) == pytest.approx(
        lsd_by_loops(ref, est, protocol, 16000), abs=1e-9
    )


def formula_signals() -> tuple[np.ndarray, np.ndarray]:
    """Two chirps with tones, by formula alone: nothing in them depends on a version of NumPy."""
    t = np.arange(24000) / RATE
    chirp = np.sin(2 * np.pi * (200 * t + 15000 * t**2))
    tones = 0.05 * np.sin(2 * np.pi * 21000 * t + np.cos(90 * t)) + 0.01 * np.cos(2 * np.pi * 9000 * t * t)
    return 0.3 * chirp + tones, 0.28 * chirp + 0.002 * np.cos(2 * np.pi * 13000 * t)


@pytest.mark.parametrize(
    ("protocol", "stored"),
    [
        ("p1", (1.6910638736, 1.1308243447, 1.6501542906)),
        ("p2", (3.2927512354, 1.4085666283, 3.4987662859)),
    ],
)
def test_lsd_equals_stored_values_of_another_stft(protocol: metrics.Protocol, stored: tuple) -> None:
    """The values were computed with scipy.signal.stft (whole, below and above 4 kHz)."""
    result = metrics.lsd(*formula_signals(), protocol, 8000)
    assert (result.lsd, result.low, result.high) == pytest.approx(stored, abs=1e-8)


@pytest.mark.parametrize("protocol", ["p1", "p2"])
def test_lsd_of_ten_times_is_two(protocol: metrics.Protocol) -> None:
    result = metrics.lsd(noise(), 10 * noise(), protocol, 8000)
    assert (result.lsd, result.low, result.high) == pytest.approx((2, 2, 2), abs=1e-9)


def test_lsd_of_equal_signals_is_zero_and_p1_is_symmetric() -> None:
    a, b = noise(seed=3), noise(seed=4)
    assert metrics.lsd(a, a, "p1").lsd == 0
    assert metrics.lsd(a, a, "p2").lsd == pytest.approx(0, abs=1e-6)
    assert metrics.lsd(a, b).lsd == pytest.approx(metrics.lsd(b, a).lsd, rel=1e-12)
    assert metrics.lsd(a, b, "p2").lsd == pytest.approx(metrics.lsd(b, a, "p2").lsd, rel=1e-6)


@pytest.mark.parametrize("name", ["lsd", "lsd_p2", "phase", "mr_stft", "log_sispec", "ssim", "snr"])
def test_a_silent_estimate_gives_a_finite_and_bad_number(name: str) -> None:
    ref = noise()
    silent, near = (measure(ref, x, [name]) for x in (0 * ref, ref + noise(seed=1, scale=1e-3)))
    for key, value in silent.items():
        assert np.isfinite(value)
        assert badness(key, value) > badness(key, near[key])


def test_phase_distances_are_symmetric() -> None:
    a, b = noise(seed=3), noise(seed=4)
    forth, back = metrics.phase_distance(a, b), metrics.phase_distance(b, a)
    assert vars(forth) == pytest.approx(vars(back), rel=1e-9)


def test_lsd_split_adds_up() -> None:
    """White noise against ten times itself above the split only: low 0, high 2, whole sqrt(share) * 2."""
    ref = noise(1)
    spectrum = np.fft.rfft(ref)
    spectrum[len(spectrum) // 2 :] *= 10
    result = metrics.lsd(ref, np.fft.irfft(spectrum), "p1", 24000)
    assert result.low == pytest.approx(0, abs=0.08)  # one frame's leakage across the step
    assert result.high == pytest.approx(2, abs=0.02)
    assert result.lsd == pytest.approx(2 * math.sqrt(0.5), abs=0.02)


def test_lsd_of_silent_estimate_is_the_distance_to_the_floor() -> None:
    ref = noise()
    power = metrics._power(ref[None], 2048, 512)
    expected = np.sqrt(np.square(np.log10(power) + 8).mean(-1)).mean()
    assert metrics.lsd(ref, np.zeros_like(ref)).lsd == pytest.approx(expected, rel=1e-12)


def test_frames_of_digital_silence_are_left_out_of_p2() -> None:
    """Half of the reference is digital silence: P2 is that of the other half, and the frames are counted."""
    ref = noise(1)
    ref[24000:] = 0
    frames = 100  # hop 480, centred; a frame of 2229 reaches 1114 samples to either side: 53 are audible
    assert metrics.silent_frames(ref) == (frames - 53, frames)
    assert metrics.silent_frames(np.stack([ref, noise(1)])) == (frames - 53, 2 * frames)
    found = metrics.lsd(ref, 10 * ref + np.where(ref == 0, 1e-5, 0), "p2", 8000)
    assert found.lsd == pytest.approx(2, abs=0.1)  # 5 and more with the silent half
    assert metrics.lsd(ref, 10 * ref, "p2", 8000).lsd == pytest.approx(2, abs=0.1)


def test_split_bin_is_the_published_one() -> None:
    assert [metrics.split_bin(1025, rate) for rate in (4000, 8000, 12000, 16000, 24000)] == [
        85,
        170,
        256,
        341,
        512,
    ]
    with pytest.raises(ValueError, match="splits nothing"):
        metrics.split_bin(1025, 48000)


def test_si_sdr_closed_forms() -> None:
    ref = np.sin(2 * np.pi * 1000 * np.arange(4800) / RATE)
    other = np.cos(2 * np.pi * 1000 * np.arange(4800) / RATE)  # orthogonal, same power
    assert metrics.si_sdr(ref, -3 * (ref + 0.1 * other)) == pytest.approx(20, abs=1e-9)
    assert metrics.si_sdr(ref, 2 * ref) == math.inf
    assert metrics.snr(ref, ref + 0.1 * other) == pytest.approx(20, abs=1e-9)
    assert metrics.snr(ref, 2 * ref) == pytest.approx(0, abs=1e-12)
    assert metrics.snr(ref, 0 * ref) == 0


def test_log_sispec_equals_si_sdr_of_log_spectra() -> None:
    ref, est = noise(seed=5), noise(seed=6) + 0.5 * noise(seed=5)
    images = [np.log10(np.abs(metrics.stft(x, 2229, 480)) + 1e-12) for x in (ref, est)]
    a, b = (image.ravel() for image in images)
    target = a * (a @ b) / (a @ a)
    expected = 10 * np.log10((target @ target) / ((b - target) @ (b - target)))
    assert metrics.log_sispec(ref, est) == pytest.approx(expected, abs=1e-6)


def test_ssim() -> None:
    a, b = noise(seed=7), noise(seed=8)
    assert metrics.ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert metrics.ssim(a, a + 0.1 * b) > metrics.ssim(a, a + b) > metrics.ssim(a, 0.001 * b)
    image = np.random.default_rng(0).random((1, 9, 11))
    window = image[0, 1:8, 2:9]
    assert metrics._box_mean(image)[0, 1, 2] == pytest.approx(window.mean(), rel=1e-12)


def test_ssim_equals_that_of_scikit_image() -> None:
    skimage_metrics = pytest.importorskip("skimage.metrics")
    a, b = noise(seed=7), noise(seed=7) + noise(seed=8, scale=0.02)
    powers = [metrics._power(x[None], 2048, 512, 1e-300)[0] for x in (a, b)]
    pictures = [np.clip(10 * np.log10(p / powers[0].max()) / 80 + 1, 0, 1) for p in powers]
    _, picture = skimage_metrics.structural_similarity(*pictures, win_size=7, data_range=1.0, full=True)
    assert metrics.ssim(a, b) == pytest.approx(picture[3:-3, 3:-3].mean(), rel=1e-9)


def test_every_measure_says_what_it_is_blind_to_and_what_it_does_with_rates() -> None:
    functions = [*PAIR_FUNCTIONS, perceptual.visqol, perceptual.pesq_wb, perceptual.stoi]
    for function in functions:
        text = " ".join((function.__doc__ or "").lower().split())
        assert "blind" in text, function
        assert "any rate" in text or "other rate" in text or "nothing is resampled" in text, function


def test_mr_stft_closed_form() -> None:
    """Half the amplitude: convergence 1/2, log difference ln 2, in every resolution."""
    assert metrics.mr_stft(noise(), 0.5 * noise()) == pytest.approx(0.5 + math.log(2), abs=1e-4)
    assert metrics.mr_stft(noise(), noise()) == 0


def test_phase_distance_closed_forms() -> None:
    ref = noise(1)
    inverted = metrics.phase_distance(ref, -ref)
    assert inverted.phase == pytest.approx(math.pi, abs=1e-6)
    assert (inverted.group_delay, inverted.frequency) == pytest.approx((0, 0), abs=1e-6)
    unrelated = metrics.phase_distance(ref, noise(1, seed=9))
    assert unrelated.phase == pytest.approx(math.pi / math.sqrt(3), abs=0.02)
    assert metrics.phase_distance(ref, 4 * ref) == metrics.PhaseDistance(0, 0, 0)


def test_phase_distance_of_a_click_delayed_is_its_group_delay() -> None:
    ref, late = np.zeros(8192), np.zeros(8192)
    ref[4196], late[4212] = 1, 1
    frames_with_click, frames = 4, 17
    expected = 2 * np.pi * 16 / 2048 * frames_with_click / frames
    assert metrics.phase_distance(ref, late).group_delay == pytest.approx(expected, rel=1e-6)


def test_channels_are_averaged_and_measures_ignore_the_channel_order() -> None:
    ref, est = np.stack([noise(seed=1), noise(seed=2)]), np.stack([noise(seed=3), 0.1 * noise(seed=2)])
    names = ["lsd", "lsd_p2", "si_sdr", "log_sispec", "ssim", "mr_stft", "phase"]
    est[1] += noise(seed=4, scale=1e-3)
    both = measure(ref, est, names, sample_rate_in=8000)
    singles = [measure(ref[c], est[c], names, sample_rate_in=8000) for c in range(2)]
    assert both == pytest.approx({k: (singles[0][k] + singles[1][k]) / 2 for k in both}, rel=1e-9)
    assert {"lsd", "lsd_low", "lsd_high", "lsd_p2_high", "phase_ip", "phase_gd", "phase_iaf"} <= both.keys()


PAIR_FUNCTIONS: list[Callable[..., object]] = [
    metrics.lsd,
    metrics.si_sdr,
    metrics.snr,
    metrics.log_sispec,
    metrics.ssim,
    metrics.mr_stft,
    metrics.phase_distance,
]


@pytest.mark.parametrize("function", PAIR_FUNCTIONS, ids=lambda f: f.__name__)
def test_pairs_that_cannot_be_compared_are_refused(function: Callable[..., object]) -> None:
    x = noise()
    bad = x.copy()
    bad[7] = np.nan
    for ref, est, message in [
        (x, x[:-1], "12000 samples and estimate 11999"),
        (x, np.stack([x, x]), "1 channels and estimate 2"),
        (0 * x, x, "reference channel 0 is digital silence"),
        (x, bad, "estimate holds NaN"),
        (x[:0], x[:0], "at least one sample"),
        (x[None, None], x[None, None], "shape"),
    ]:
        with pytest.raises(AudioError, match=message):
            function(ref, est)


def test_other_rates_and_unknown_names_are_refused() -> None:
    with pytest.raises(AudioError, match="48000 Hz and estimate 16000 Hz"):
        measure(noise(), noise(), estimate_rate=16000)
    with pytest.raises(ValueError, match="unknown measure 'lsdd'; choose from lsd, "):
        measure(noise(), noise(), ["lsdd"])
    with pytest.raises(ValueError, match='pass "p1" or "p2"'):
        metrics.lsd(noise(), noise(), "p3")  # type: ignore[arg-type]


def test_silent_estimate_is_undefined_for_si_sdr() -> None:
    with pytest.raises(AudioError, match="estimate channel 0 is digital silence; SI-SDR is undefined"):
        metrics.si_sdr(noise(), 0 * noise())


@pytest.mark.parametrize("samples", [1, 100, 1024, 2400])
def test_short_clips_give_a_number_or_a_clear_error(samples: int) -> None:
    ref, est = noise(seed=1)[:samples], noise(seed=2)[:samples]
    for function in PAIR_FUNCTIONS:
        try:
            value = function(ref, est)
        except AudioError as error:
            assert "too few" in str(error)
        else:
            value = value.lsd if isinstance(value, metrics.LSD) else value
            assert isinstance(value, metrics.PhaseDistance) or np.isfinite(value)  # type: ignore[arg-type]


PERCEPTUAL = [("visqol", perceptual.visqol), ("pesq", perceptual.pesq_wb), ("pystoi", perceptual.stoi)]


@pytest.mark.parametrize(("package", "function"), PERCEPTUAL, ids=lambda v: v if isinstance(v, str) else "")
def test_missing_package_names_the_extra(
    package: str, function: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "hifispeech\[eval\]"'):
        function(noise(), noise())


@pytest.mark.parametrize(("package", "function"), PERCEPTUAL, ids=lambda v: v if isinstance(v, str) else "")
def test_perceptual_measures_refuse_silence_and_tiny_clips(
    package: str, function: Callable[..., float]
) -> None:
    pytest.importorskip(package)
    with pytest.raises(AudioError, match="estimate channel 0 is digital silence"):
        function(noise(1), 0 * noise(1))
    with pytest.raises(AudioError, match="reference channel 0 is digital silence"):
        function(0 * noise(1), noise(1))
    with pytest.raises(AudioError, match="pass a longer clip"):
        function(noise(0.02), noise(0.02))


def test_perceptual_measures_order_a_mild_and_a_heavy_distortion(
    synthetic_speech: Callable[..., np.ndarray],
) -> None:
    for package in ("visqol", "pesq", "pystoi"):
        pytest.importorskip(package)
    ref = synthetic_speech(1.0)
    hiss = np.random.default_rng(0).standard_normal(ref.size).astype(np.float32)
    names = ["visqol", "pesq", "stoi", "estoi"]
    same = measure(ref, ref, names)
    mild, heavy = (measure(ref, ref + gain * hiss, names) for gain in (0.001, 0.1))
    assert same["visqol"] > 4.7 and same["pesq"] > 4.6 and same["stoi"] == pytest.approx(1, abs=1e-3)
    for name in names:
        assert same[name] + 1e-9 >= mild[name] > heavy[name]
