"""Waveform models keep the promises of the frame models: windows that nobody hears, exact length, silence."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hifispeech.audio.degrade.filters import DegradeSpec, apply
from hifispeech.audio.io.reader import read
from hifispeech.audio.resample import resample
from hifispeech.audio.spectral import HOP, stft
from hifispeech.cli import app
from hifispeech.errors import ModelError
from hifispeech.infer.frames import EdgeTrack
from hifispeech.infer.load import OnnxWaveform, TorchWaveform, make_generator, open_model
from hifispeech.infer.upscaler import Upscaler
from hifispeech.infer.windows import (
    LEVEL,
    OVERLAP,
    PEAK,
    STEP,
    WINDOW,
    WaveformGenerator,
    added_band,
    level_gain,
    whole,
)

torch = pytest.importorskip("torch")
from hifispeech.models.hifisr import DecoderConfig, EncoderConfig, HiFiSR, HiFiSRConfig, save_hifisr  # noqa: E402

EDGE = 170
EDGES = EdgeTrack((0,), (EDGE,), (EDGE,))
TINY = HiFiSRConfig(
    encoder=EncoderConfig(depth=1, width=16, hidden=32, query_key=16, rotary=8, kernel=3, fsmn_width=8),
    decoder=DecoderConfig(
        width=16, rates=(16, 16), rate_kernels=(32, 32), block_kernels=(3, 7), block_dilations=(1, 3)
    ),
)


class Rectifier:
    """A model without memory, as loud as its input: windows of it must be as one pass over the whole."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def run(self, audio: np.ndarray) -> np.ndarray:
        self.lengths.append(len(audio))
        return np.abs(audio)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of the paper's structure with a few thousand random weights."""
    torch.manual_seed(1)
    network = HiFiSR(TINY)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("original0"):  # the gains of weight norm: an output far from zero
                value.fill_(0.8)
    path = tmp_path_factory.mktemp("waveform") / "tiny.safetensors"
    save_hifisr(network, path)
    return path


@pytest.fixture(scope="module")
def onnx_file(model_file: Path) -> Path:
    """The same model as `hifispeech export` writes it."""
    path = model_file.with_suffix(".onnx")
    done = CliRunner().invoke(app, ["export", str(model_file), "-o", str(path)])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture(scope="module")
def upscaler(model_file: Path) -> Upscaler:
    return Upscaler(model_file, "cpu", threads=1)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """Noise below bin EDGE. Shape: `[time]`."""
    white = np.random.default_rng(seed).standard_normal(samples)
    spectrum = np.fft.rfft(white)
    spectrum[int(samples * EDGE / 2048) :] = 0
    return (0.1 * np.fft.irfft(spectrum, samples)).astype(np.float32)


def run(model, audio: np.ndarray, sizes: list[int], edges: EdgeTrack = EDGES) -> np.ndarray:  # type: ignore[no-untyped-def]
    generator = WaveformGenerator(model, edges)
    parts, start, turn = [], 0, 0
    while start < len(audio):
        size = sizes[turn % len(sizes)]
        parts.append(generator.push(audio[start : start + size]))
        start, turn = start + size, turn + 1
    return np.concatenate([*parts, generator.flush()])


LENGTHS = [1, 2, 100, 2047, 2048, 50000, WINDOW - 1, WINDOW, WINDOW + 1, STEP + OVERLAP + 700, WINDOW + STEP]


@pytest.mark.parametrize("length", [*LENGTHS, WINDOW + STEP + 1, 2 * WINDOW + STEP // 2 + 77])
def test_windows_equal_one_pass_over_the_whole(length: int) -> None:
    """No join is heard, and the tail is generated like the rest."""
    audio, model = noise(length + 2)[:length], Rectifier()
    out = run(model, audio, [20_000])
    assert len(out) == length
    edges = np.full(1 + whole(length) // HOP, EDGE)
    np.testing.assert_allclose(out, audio + added_band(model.run, audio, edges), atol=2e-5)
    assert max(model.lengths[:-1], default=0) <= WINDOW


@given(sizes=st.lists(st.integers(1, 90_000), min_size=1, max_size=6))
@settings(deadline=None, max_examples=15)
def test_blocks_do_not_matter(sizes: list[int]) -> None:
    audio = noise(WINDOW + 40_000)
    np.testing.assert_array_equal(run(Rectifier(), audio, [*sizes, 30_000]), run(Rectifier(), audio, [10**7]))


def test_memory_is_that_of_a_window() -> None:
    generator, sent = WaveformGenerator(Rectifier(), EDGES), 0
    for number in range(60):
        sent += len(generator.push(noise(48_000, seed=number)))
        held = 0 if generator.held is None else len(generator.held)
        assert len(generator.buffer) + len(generator.past) + held <= 2 * WINDOW
    assert sent > 60 * 48_000 - WINDOW


def test_edges_of_the_time_are_used() -> None:
    """Full band first: nothing is added there, and windows without an edge cost nothing."""
    audio, change = noise(3 * WINDOW), 2 * WINDOW
    model, edges = Rectifier(), EdgeTrack((0, change), (1025, EDGE), (1025, EDGE))
    out = run(model, audio, [48_000], edges)
    np.testing.assert_array_equal(out[: change - 1024], audio[: change - 1024])
    assert np.abs(out - audio)[change + 2048 :].max() > 1e-3
    assert len(model.lengths) == 2


def test_edges_can_change_while_running() -> None:
    audio = noise(3 * WINDOW)
    generator = WaveformGenerator(Rectifier(), EdgeTrack())
    first = generator.push(audio[: 2 * WINDOW])
    generator.edges = EDGES
    out = np.concatenate([first, generator.push(audio[2 * WINDOW :]), generator.flush()])
    np.testing.assert_array_equal(out[: len(first)], audio[: len(first)])
    assert np.abs(out - audio)[-1000:].max() > 1e-3


def test_level_is_that_of_the_loud_samples() -> None:
    tone = np.sin(np.arange(48_000) * 0.05).astype(np.float32)
    pause = np.concatenate([tone * 0.1, np.zeros(96_000, np.float32)])
    loud = (pause * level_gain(pause))[:48_000]
    loud = loud[loud**2 >= (pause * level_gain(pause)).astype(float).var()]
    assert 0.9 < np.sqrt(np.mean(loud**2)) / LEVEL < 1.1
    click = np.zeros(48_000, np.float32)
    click[::5000] = 1e-3
    click[7] = 0.5
    assert np.isclose(level_gain(click) * 0.5, min(PEAK, LEVEL), rtol=0.2)
    assert level_gain(np.zeros(10, np.float32)) == 1
    assert np.isclose(level_gain(np.full(5, 0.3, np.float32)) * 0.3, LEVEL)


# --- the paper's network


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


def test_full_band_noise_passes_through(upscaler: Upscaler) -> None:
    white = 0.1 * np.random.default_rng(0).standard_normal((1, 48_000)).astype(np.float32)
    np.testing.assert_array_equal(upscaler.process(white, 48_000), white)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_low_band_is_kept_and_the_high_band_generated(
    upscaler: Upscaler, speech_clip: Path, rate: int
) -> None:
    speech = read(speech_clip)[0][0, : 48000 * 3]
    low = resample(speech, 48000, rate)
    out, given_ = upscaler.process(low, rate), resample(low, rate)
    edge = int(0.9 * 0.92 * (rate / 2) / (48000 / 2048))
    a, b = stft(given_)[:, :edge], stft(out)[:, :edge]
    assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(a)
    top = int(1.1 * (rate / 2) / (48000 / 2048))
    assert np.abs(stft(out)[:, top:]).sum() > 10 * np.abs(stft(given_)[:, top:]).sum()


@pytest.mark.parametrize("gain", [1e-3, 0.1, 3.0])
def test_gain_in_is_gain_out(upscaler: Upscaler, synthetic_speech, gain: float) -> None:  # type: ignore[no-untyped-def]
    audio = synthetic_speech(1.5, 16000)
    plain = upscaler.process(audio, 16000, cutoff_hz=7000)
    scaled = upscaler.process(audio * np.float32(gain), 16000, cutoff_hz=7000) / gain
    assert 10 * np.log10(np.sum((scaled - plain) ** 2) / np.sum(plain**2)) < -60


def test_digital_silence_inside_a_signal_stays_silent(upscaler: Upscaler, synthetic_speech) -> None:  # type: ignore[no-untyped-def]
    audio = synthetic_speech(2.0, 48000)
    audio = apply(audio, 48000, DegradeSpec(target_rate=8000, cutoff_hz=3400), rate_out=48000)[0]
    audio[30000:60000] = 0
    out = upscaler.process(audio, 48000, cutoff_hz=3400)
    assert np.abs(out[30300:59700]).max() == 0
    assert np.abs(out - audio)[:30000].max() > 1e-4


def test_channels_are_independent(upscaler: Upscaler, synthetic_speech) -> None:  # type: ignore[no-untyped-def]
    stereo = np.stack([synthetic_speech(0.7, 16000, seed) for seed in (1, 2)])
    both = upscaler.process(stereo, 16000)
    for channel in (0, 1):
        np.testing.assert_array_equal(both[channel], upscaler.process(stereo[channel], 16000))


@pytest.mark.slow
@pytest.mark.parametrize("samples", [900, 30_011, 95_000])
def test_onnx_equals_torch(upscaler: Upscaler, onnx_file: Path, synthetic_speech, samples: int) -> None:  # type: ignore[no-untyped-def]
    runtime = Upscaler(onnx_file, threads=1)
    assert isinstance(runtime.model, OnnxWaveform)
    audio = synthetic_speech(6.0, 16000)[:samples]
    expected = upscaler.process(audio, 16000, cutoff_hz=7000)
    np.testing.assert_allclose(runtime.process(audio, 16000, cutoff_hz=7000), expected, atol=1e-4)


@pytest.mark.slow
def test_exported_model_needs_no_torch(onnx_file: Path, phone_clip: Path, tmp_path: Path) -> None:
    """`upscale --model X.onnx` where importing PyTorch fails."""
    assert run_without_torch(onnx_file, phone_clip, tmp_path).returncode == 0
    assert len(read(tmp_path / "out.wav")[0][0]) == 6 * len(read(phone_clip)[0][0])


def test_missing_torch_is_named(model_file: Path, phone_clip: Path, tmp_path: Path) -> None:
    done = run_without_torch(model_file, phone_clip, tmp_path)
    assert done.returncode == 1
    assert 'pip install "hifispeech[train]"' in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.wav").exists()


def run_without_torch(model: Path, clip: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Upscale in a fresh interpreter that has no PyTorch."""
    code = "import sys; sys.modules['torch'] = None; from hifispeech.cli import main; main()"
    arguments = ["upscale", str(clip), "-o", str(folder / "out.wav"), "--model", str(model), "-q"]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_command_line(model_file: Path, phone_clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.wav"
    done = CliRunner().invoke(
        app, ["upscale", str(phone_clip), "-o", str(output), "--model", str(model_file)]
    )
    assert done.exit_code == 0, done.output
    assert len(read(output)[0][0]) == 6 * len(read(phone_clip)[0][0])


def test_models_are_told_apart(model_file: Path, tmp_path: Path) -> None:
    assert isinstance(open_model(model_file, "cpu"), TorchWaveform)
    assert isinstance(make_generator(open_model(model_file, "cpu"), EDGES), WaveformGenerator)
    with pytest.raises(ModelError, match="no such model file"):
        open_model(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="use auto, cuda, mps, cpu"):
        open_model(model_file, "tpu")
    (tmp_path / "text.safetensors").write_text("no model")
    with pytest.raises(ModelError, match="not a readable"):
        open_model(tmp_path / "text.safetensors")


def test_a_frame_models_checkpoint_has_to_be_exported(tmp_path: Path) -> None:
    from hifispeech.models.artefact import save_artefact

    save_artefact(tmp_path / "best.safetensors", "fast", {}, {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match="hifispeech export"):
        open_model(tmp_path / "best.safetensors")
