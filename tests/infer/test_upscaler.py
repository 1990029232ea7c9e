"""The promises of the upscaler, on arrays and on files, over the edge contract and real speech."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from hifispeech import inspect
from hifispeech.audio.bandwidth.meter import detect_bandwidth
from hifispeech.audio.degrade.filters import DegradeSpec, apply
from hifispeech.audio.io.reader import read
from hifispeech.audio.io.writer import write
from hifispeech.audio.resample import resample
from hifispeech.audio.spectral import stft
from hifispeech.errors import AudioError
from hifispeech.infer.edges import SPAN_S, measure
from hifispeech.infer.onnx import FrameModel
from hifispeech.infer.upscaler import Upscaler


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler("fast", threads=1)


@pytest.fixture(scope="module")
def speech(speech_clip: Path) -> np.ndarray:
    """Real full-band speech at 48 kHz, a multiple of all rates used here. Shape: `[time]`."""
    audio, _ = read(speech_clip)
    return audio[0, : 48000 * 3]


def test_edge_contract(upscaler: Upscaler, finite_edge_case) -> None:  # type: ignore[no-untyped-def]
    case = finite_edge_case
    out = upscaler.process(case.audio, case.sample_rate)
    assert out.shape == (case.audio.shape[0], round(case.audio.shape[1] * 48000 / case.sample_rate))
    assert out.dtype == np.float32
    assert np.all(np.isfinite(out))
    if case.name == "silence":
        assert np.abs(out).max() == 0
    if case.name == "full_band":
        np.testing.assert_array_equal(out, case.audio)


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 22050, 24000, 32000])
def test_length_time_and_low_band(upscaler: Upscaler, speech: np.ndarray, rate: int) -> None:
    """Exact length, 0 samples of shift, and below 0.9 of the edge the input itself (correlation, LSD)."""
    low_rate = resample(speech, 48000, rate)
    out = upscaler.process(low_rate, rate)
    given = resample(low_rate, rate)
    assert len(out) == round(len(low_rate) * 48000 / rate)
    edge = int(0.9 * 0.92 * (rate / 2) / (48000 / 2048))
    a, b = stft(given)[:, :edge], stft(out)[:, :edge]
    correlation = np.real(np.vdot(a, b)) / np.sqrt(np.vdot(a, a).real * np.vdot(b, b).real)
    assert correlation >= 0.9999
    logs = [np.log10(np.maximum(np.abs(x) ** 2, 1e-8)) for x in (a, b)]
    assert np.sqrt(((logs[0] - logs[1]) ** 2).mean(1)).mean() <= 0.03


@pytest.mark.parametrize("rate", [8000, 16000])
def test_high_band_is_closer_to_the_truth(upscaler: Upscaler, speech: np.ndarray, rate: int) -> None:
    """LSD (P1) is below that of plain resampling; the level above the edge is the real one within 10 dB."""
    low_rate = resample(speech, 48000, rate)
    out, plain = upscaler.process(low_rate, rate)[: len(speech)], resample(low_rate, rate)[: len(speech)]
    truth = np.log10(np.maximum(np.abs(stft(speech)) ** 2, 1e-8))
    errors = [np.log10(np.maximum(np.abs(stft(x)) ** 2, 1e-8)) - truth for x in (out, plain)]
    distances = [np.sqrt((e**2).mean(1)).mean() for e in errors]
    assert distances[0] < 0.7 * distances[1]
    start = int(rate / 48000 * 1024) + 8
    power = [np.mean(np.abs(stft(x)[:, start:]) ** 2) for x in (out, speech)]
    assert abs(10 * np.log10(power[0] / power[1])) < 10


def test_channels_are_independent_and_in_order(upscaler: Upscaler, speech: np.ndarray) -> None:
    left = resample(speech, 48000, 16000)
    right = resample(speech[::-1].copy(), 48000, 8000)
    right = resample(right, 8000, 16000)[: len(left)]
    stereo = upscaler.process(np.stack([left, right]), 16000)
    for channel, alone in zip(stereo, (left, right), strict=True):
        assert np.abs(channel - upscaler.process(alone, 16000)).max() <= 1e-5


def test_full_band_speech_is_returned_sample_for_sample(upscaler: Upscaler, speech: np.ndarray) -> None:
    np.testing.assert_array_equal(upscaler.process(speech, 48000), speech)


@pytest.mark.parametrize("rate", [44100, 96000])
def test_full_band_at_other_rates_is_only_resampled(
    upscaler: Upscaler, speech: np.ndarray, rate: int
) -> None:
    given = resample(speech, 48000, rate)
    np.testing.assert_array_equal(upscaler.process(given, rate), resample(given, rate))


def test_hidden_narrow_band_in_a_48k_signal_is_found(upscaler: Upscaler, speech: np.ndarray) -> None:
    hidden = resample(resample(speech, 48000, 8000), 8000, 48000)
    out = upscaler.process(hidden, 48000)
    high = [np.mean(np.abs(stft(x)[:, 200:]) ** 2) for x in (hidden, out)]
    assert high[1] > 1000 * high[0]


def test_given_cutoff_is_used_and_checked(upscaler: Upscaler, speech: np.ndarray) -> None:
    low_rate = resample(speech, 48000, 16000)
    out = upscaler.process(low_rate, 16000, cutoff_hz=3000.0)
    assert np.abs(out - upscaler.process(low_rate, 16000)).max() > 1e-3
    for wrong in (10.0, 9000.0):
        with pytest.raises(AudioError, match=r"1000\.\.8000"):
            upscaler.process(low_rate, 16000, cutoff_hz=wrong)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0, np.float32), "at least one sample"),
        (np.zeros((2, 0), np.float32), "at least one sample"),
        (np.zeros((1, 2, 3), np.float32), "shape"),
        (np.zeros(100, np.int16), "int16"),
        (np.array([0.0, np.nan, np.inf], np.float32), "2 NaN or infinite"),
    ],
)
def test_bad_arrays_are_refused(upscaler: Upscaler, audio: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        upscaler.process(audio, 16000)


def test_file_equals_array(upscaler: Upscaler, phone_clip: Path, tmp_path: Path) -> None:
    """Read in blocks and measured in a pass of its own, a file gives the numbers of the whole array."""
    audio, rate = read(phone_clip)
    seen: list[float] = []
    report = upscaler.process_file(
        phone_clip, tmp_path / "out.wav", encoding="float", on_progress=lambda done, _: seen.append(done)
    )
    out, out_rate = read(tmp_path / "out.wav")
    assert out_rate == 48000
    assert np.abs(out - upscaler.process(audio, rate)).max() <= 1e-5
    assert report.duration_s == pytest.approx(audio.shape[1] / rate, abs=1e-4)
    assert seen == sorted(seen) and seen[-1] == pytest.approx(report.duration_s, rel=0.02)


def test_full_band_file_is_bit_exact(upscaler: Upscaler, speech_clip: Path, tmp_path: Path) -> None:
    upscaler.process_file(speech_clip, tmp_path / "out.flac")
    np.testing.assert_array_equal(
        soundfile.read(tmp_path / "out.flac", dtype="int16")[0], soundfile.read(speech_clip, dtype="int16")[0]
    )


def test_input_is_never_overwritten(upscaler: Upscaler, phone_clip: Path, tmp_path: Path) -> None:
    audio, rate = read(phone_clip)
    path = tmp_path / "call.wav"
    write(path, audio, rate)
    before = path.read_bytes()
    for force in (False, True):
        with pytest.raises(AudioError):
            upscaler.process_file(path, path, force=force)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["call.wav"]


def test_narrow_to_wide_switch_is_followed(upscaler: Upscaler, speech: np.ndarray) -> None:
    """A call that goes from narrow to wide band: in the second part the real band above 4 kHz is kept."""
    narrow = resample(resample(speech, 48000, 8000), 8000, 16000)
    wide = resample(speech, 48000, 16000)
    call = np.concatenate([narrow, narrow, wide, wide])
    out = upscaler.process(call, 16000)
    given = resample(call, 16000)
    late = slice(len(narrow) * 3 * 2 + 48000, -4800)
    band = slice(190, 290)  # 4.5 to 6.8 kHz
    kept = np.sum(np.abs(stft(out[late] - given[late])[:, band]) ** 2) / np.sum(
        np.abs(stft(given[late])[:, band]) ** 2
    )
    assert kept < 0.01
    early = slice(4800, len(narrow) * 3 * 2 - 48000)
    assert np.mean(np.abs(stft(out[early])[:, band]) ** 2) > 100 * np.mean(
        np.abs(stft(given[early])[:, band]) ** 2
    )


@pytest.mark.parametrize("family", ["soxr", "fft", "elliptic", "fir", "butterworth"])
@pytest.mark.parametrize("cutoff_hz", [3400, 8000])
def test_never_worse_at_the_edge(upscaler: Upscaler, speech: np.ndarray, family: str, cutoff_hz: int) -> None:
    """From 0.9 of the edge to the edge: no farther from the truth than the input (LSD; 0.03 for one lobe)."""
    target_rate = 2 * cutoff_hz if family in ("soxr", "fft") else int(cutoff_hz / 0.45)
    spec = DegradeSpec(target_rate=target_rate, cutoff_hz=cutoff_hz, family=family, fir_transition=0.4)
    low, _, _ = apply(speech, 48000, spec, rate_out=48000)
    edge_hz = detect_bandwidth(low, 48000).cutoff_hz
    band = slice(int(0.9 * edge_hz * 2048 / 48000), int(edge_hz * 2048 / 48000))
    out, given, truth = (
        np.log10(np.maximum(np.abs(stft(x)[:, band]) ** 2, 1e-8))
        for x in (upscaler.process(low, 48000), low, speech)
    )
    error, before = (np.sqrt(((x - truth) ** 2).mean(1)).mean() for x in (out, given))
    assert error <= before + 0.03


def test_measuring_in_spans_joins_them() -> None:
    """A constant recording longer than one span has one segment; silence at its start is no segment."""
    rng = np.random.default_rng(0)
    second = resample(rng.standard_normal(4000).astype(np.float32) * 0.1, 4000, 8000)
    blocks = [np.zeros((1, 8000), np.float32)] * 3 + [second[None]] * (SPAN_S + 5)
    (track,) = measure(blocks, 8000, 1)
    assert len(track) == 1
    assert track[0][0] == 0.0
    assert track[0][1].cutoff_hz == pytest.approx(1950, rel=0.08)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 2.0])
def test_a_short_last_span_keeps_the_edge(
    speech: np.ndarray, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little signal to measure (under 0.2 s the answer is Nyquist) is no change of bandwidth."""
    monkeypatch.setattr("hifispeech.infer.edges.SPAN_S", 6)
    narrow = np.tile(resample(resample(speech, 48000, 8000), 8000, 48000), 3)
    (track,) = measure([narrow[None, : round((6 + seconds) * 48000)]], 48000, 1)
    assert len(track) == 1
    assert track[0][1].cutoff_hz == pytest.approx(3820, rel=0.08)


def test_speech_after_a_span_of_silence_is_measured(
    speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hifispeech.infer.edges.SPAN_S", 6)
    narrow = resample(resample(speech, 48000, 8000), 8000, 48000)
    (track,) = measure([np.zeros((1, 6 * 48000), np.float32), narrow[None]], 48000, 1)
    assert len(track) == 1
    assert track[0][0] == 0.0
    assert track[0][1].cutoff_hz == pytest.approx(3820, rel=0.08)


def test_first_and_last_samples_are_kept(upscaler: Upscaler, speech: np.ndarray) -> None:
    """A clip cut out of a loud vowel begins and ends off zero: no step is smoothed away there."""
    narrow = resample(resample(speech, 48000, 8000), 8000, 48000)
    start = 48000 + int(np.argmax(np.abs(narrow[48000:72000])))
    end = start + 24000 + int(np.argmax(np.abs(narrow[start + 24000 : start + 48000])))
    clip = narrow[start : end + 1]
    assert min(abs(clip[0]), abs(clip[-1])) > 0.1
    added = np.abs(upscaler.process(clip, 48000, cutoff_hz=3900.0) - clip)
    assert max(added[:20].max(), added[-20:].max()) < 0.02
    assert added[2000:-2000].max() > 0.005


def test_channels_without_a_missing_band_do_not_reach_the_network(
    upscaler: Upscaler, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a narrow channel, a silent and a full-band one come back as they are and cost nothing."""
    narrow = resample(resample(speech, 48000, 8000), 8000, 48000)
    calls: list[int] = []
    assert isinstance(upscaler.model, FrameModel)
    run = upscaler.model.run

    def counted(*arguments):  # type: ignore[no-untyped-def]
        calls.append(1)
        return run(*arguments)

    monkeypatch.setattr(upscaler.model, "run", counted)
    upscaler.process(narrow, 48000)
    alone = len(calls)
    out = upscaler.process(np.stack([np.zeros_like(speech), narrow, speech]), 48000)
    assert len(calls) == 2 * alone
    assert np.abs(out[0]).max() == 0
    np.testing.assert_array_equal(out[2], speech)


def test_rates_are_whole_numbers_of_any_type(upscaler: Upscaler, speech: np.ndarray) -> None:
    low_rate = resample(speech[:48000], 48000, 8000)
    wanted = upscaler.process(low_rate, 8000)
    for rate in (8000.0, np.int32(8000), np.float32(8000)):
        np.testing.assert_array_equal(upscaler.process(low_rate, rate), wanted)  # type: ignore[arg-type]
    for wrong in (1000, 8000.5, float("nan"), "8000", None):
        with pytest.raises(AudioError, match="2000 to 768000"):
            upscaler.process(low_rate, wrong)  # type: ignore[arg-type]
        with pytest.raises(AudioError, match="2000 to 768000"):
            detect_bandwidth(low_rate, wrong)  # type: ignore[arg-type]


def test_inspect_and_report_agree_on_what_is_missing(
    upscaler: Upscaler, speech: np.ndarray, tmp_path: Path
) -> None:
    """A call that turns full band part-way misses something; a silent channel has no band."""
    narrow = resample(resample(speech, 48000, 8000), 8000, 48000)
    call = np.concatenate([narrow, narrow, narrow, speech, speech, speech])
    write(tmp_path / "call.wav", np.stack([call, np.zeros_like(call)]), 48000)
    found = inspect(tmp_path / "call.wav")
    report = upscaler.process_file(tmp_path / "call.wav", tmp_path / "out.wav")
    assert not found.is_full_band and not report.full_band[0]
    assert found.channel_cutoffs_hz[1] == report.cutoff_hz[1] == 0
    assert report.cutoff_hz[0] == pytest.approx(3820, rel=0.08)
