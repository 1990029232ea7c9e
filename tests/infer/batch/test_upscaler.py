"""Batches: the numbers of the sequential upscaler, whatever shares the batch; memory bounded by the chunk."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hifispeech.audio.io.reader import read
from hifispeech.audio.resample import resample
from hifispeech.audio.spectral import HOP, stft
from hifispeech.errors import AudioError, ModelError
from hifispeech.infer.edges import edge_track, measure
from hifispeech.infer.frames import BINS, EdgeTrack, Generator
from hifispeech.infer.onnx import FrameModel
from hifispeech.infer.upscaler import Upscaler

torch = pytest.importorskip("torch")
batched = pytest.importorskip("hifispeech.infer.batch.upscaler")
from hifispeech.infer.batch.network import CHUNK_FRAMES  # noqa: E402
from hifispeech.infer.batch.rows import Row  # noqa: E402
from hifispeech.infer.batch.upscaler import BatchUpscaler  # noqa: E402

TOLERANCE = 1e-4  # of full scale
BF16_LSD = 0.05  # log10 units, between the results in bf16 and fp32
EDGES = EdgeTrack((0,), (170,), (174,))


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler("fast", threads=1)


@pytest.fixture(scope="module")
def batch() -> BatchUpscaler:
    return BatchUpscaler("fast", "cpu", batch_size=4, threads=1)


@pytest.fixture(scope="module")
def model() -> FrameModel:
    return FrameModel("fast", threads=1)


@pytest.fixture(scope="module")
def speech(speech_clip: Path) -> np.ndarray:
    """Real full-band speech at 48 kHz. Shape: `[time]`."""
    return read(speech_clip)[0][0]


def worst(results: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    assert [x.shape for x in results] == [x.shape for x in wanted]
    assert all(x.dtype == np.float32 for x in results)
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(results, wanted, strict=True))


def mixed(speech: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Recordings of all lengths from a sample to 12 s, of many rates, mono and stereo."""
    lengths_s = [12.0, 3.1, 2.9, 1.4, 1.0, 0.5, 0.05]
    rates = [8000, 16000, 11025, 4000, 44100, 22050, 8000]
    twelve = np.resize(speech, 12 * 48000)
    clips = [
        (resample(twelve[: round(length_s * 48000)], 48000, rate), rate)
        for length_s, rate in zip(lengths_s, rates, strict=True)
    ]
    eight = clips[0][0]
    clips += [(eight[5000 : 5000 + samples], 8000) for samples in (1, 2, 63, 86, 511)]
    stereo = np.stack([eight[:20000], np.roll(eight, 4000)[:20000] * 0.1])
    return [*clips, (stereo, 8000), (np.zeros(4000, np.float32), 8000), (speech[:48000], 48000)]


def test_results_are_those_of_the_sequential_upscaler(
    upscaler: Upscaler, batch: BatchUpscaler, speech: np.ndarray
) -> None:
    recordings = mixed(speech)
    wanted = [upscaler.process(*recording) for recording in recordings]
    results = batch.process_many(recordings)
    assert worst(results, wanted) <= TOLERANCE
    assert np.abs(wanted[0] - resample(*recordings[0])).max() > 100 * TOLERANCE  # there is a band to compare


def test_edge_contract(upscaler: Upscaler, batch: BatchUpscaler, finite_edge_case) -> None:  # type: ignore[no-untyped-def]
    recording = (finite_edge_case.audio, finite_edge_case.sample_rate)
    assert worst(batch.process_many([recording]), [upscaler.process(*recording)]) <= TOLERANCE


def test_given_cutoff(upscaler: Upscaler, batch: BatchUpscaler, speech: np.ndarray) -> None:
    clip = speech[:72000]
    results = batch.process_many([(clip, 48000), (clip[:500], 48000)], cutoff_hz=5000)
    wanted = [upscaler.process(x, 48000, cutoff_hz=5000) for x in (clip, clip[:500])]
    assert worst(results, wanted) <= TOLERANCE


def test_bandwidth_that_changes_part_way(
    upscaler: Upscaler, batch: BatchUpscaler, speech: np.ndarray
) -> None:
    """Telephone band, then 16 kHz, then telephone band again, in one file; with another file beside it."""
    parts = [speech[: 48000 * 5], speech[48000 * 2 : 48000 * 7], speech[48000 * 4 : 48000 * 9]]
    rates = [8000, 16000, 8000]
    joined = [resample(resample(x, 48000, r), r, 16000) for x, r in zip(parts, rates, strict=True)]
    changing = np.concatenate(joined)
    (track,) = measure([changing[None]], 16000, 1)
    assert len(set(edge_track(track, 16000).intact)) > 1
    recordings = [(changing, 16000), (joined[1], 16000)]
    assert worst(batch.process_many(recordings), [upscaler.process(*x) for x in recordings]) <= TOLERANCE


@given(
    pieces=st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 9000)), min_size=1, max_size=5),
    edges=st.sampled_from(
        [
            EDGES,
            EdgeTrack((0, 7000), (170, 340), (174, 350)),
            EdgeTrack((0, 5000, 11000), (BINS, 200, BINS), (BINS, 230, BINS)),
            EdgeTrack((0, 6000, 6300), (341, 100, 341), (341, 102, 341)),
        ]
    ),
)
@settings(deadline=None, max_examples=8)
def test_silences_and_changing_edges(  # type: ignore[no-untyped-def]
    batch: BatchUpscaler, model: FrameModel, speech: np.ndarray, pieces, edges
) -> None:
    """The model is spared digital silence between sounds, and yet its memory is right afterwards."""
    audio = np.concatenate(
        [
            np.concatenate([speech[3000 * i : 3000 * i + sound], np.zeros(gap, np.float32)])
            for i, (sound, gap) in enumerate(pieces)
        ]
    )
    rows = [Row(x, edges, batch.network.look_ahead) for x in (audio, speech[:20000])]
    list(batch.generate([rows]))
    for row, signal in zip(rows, (audio, speech[:20000]), strict=True):
        assert np.abs(row.audio - sequential(model, signal, edges)).max() <= TOLERANCE


def sequential(model: FrameModel, signal: np.ndarray, edges: EdgeTrack) -> np.ndarray:
    """The numbers of the ONNX path."""
    generator = Generator(model, edges)
    return np.concatenate([generator.push(signal), generator.flush()])


def test_steps_in_long_silence_are_left_out(batch: BatchUpscaler, speech: np.ndarray) -> None:
    gap = np.zeros(48000 * 20, np.float32)
    row = Row(np.concatenate([speech[:9600], gap, speech[:9600]]), EDGES, batch.network.look_ahead)
    assert len(row.steps) * HOP < 4 * 9600


def test_neighbours_and_order_do_not_matter(batch: BatchUpscaler, speech: np.ndarray) -> None:
    recordings = mixed(speech)[2:13]
    together = batch.process_many(recordings)
    backwards = batch.process_many(recordings[::-1])[::-1]
    alone = [batch.process_many([recording])[0] for recording in recordings]
    assert worst(together, backwards) <= 1e-5
    assert worst(together, alone) <= 1e-5


def test_nothing_gives_nothing(batch: BatchUpscaler) -> None:
    assert batch.process_many([]) == []
    assert batch.process_many([(np.zeros((2, 1), np.float32), 768000)])[0].shape == (2, 0)


def test_bf16_is_close(batch: BatchUpscaler, speech: np.ndarray) -> None:
    recordings = [x for x in mixed(speech) if x[0].shape[-1] > 2000]
    half = BatchUpscaler("fast", "cpu", precision="bf16", batch_size=4, threads=1)
    pairs = list(zip(half.process_many(recordings), batch.process_many(recordings), strict=True))
    assert max(float(np.abs(a - b).max()) for a, b in pairs) > 1e-5  # it is another precision
    for pair in pairs:
        logs = [np.log10(np.maximum(np.abs(stft(np.atleast_2d(x))) ** 2, 1e-8)) for x in pair]
        assert np.sqrt(((logs[0] - logs[1]) ** 2).mean(-1)).mean() <= BF16_LSD


def test_what_the_device_holds_does_not_grow_with_the_length(
    batch: BatchUpscaler, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a recording and however often it falls silent, a chunk has so many frames."""
    seen: list[int] = []
    run = batch.network.run

    def spy(hops, plan, state):  # type: ignore[no-untyped-def]
        assert plan.shape[-1] == CHUNK_FRAMES
        seen.append(hops.shape[1])
        return run(hops, plan, state)

    monkeypatch.setattr(batch.network, "run", spy)
    look_ahead = batch.network.look_ahead
    list(batch.generate([[Row(np.resize(speech, 48000 * 15), EDGES, look_ahead)]]))
    assert len(seen) >= 15 * 93.75 / CHUNK_FRAMES
    assert max(seen) <= CHUNK_FRAMES + look_ahead + 5


def test_bad_recordings_are_named_before_any_work(
    batch: BatchUpscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "generate", lambda rows: pytest.fail("began to work"))
    good = np.zeros(100, np.float32)
    for bad, rate in [(good * np.nan, 8000), (good, 1), (good[:0], 8000), (np.zeros(9, np.int16), 8000)]:
        with pytest.raises(AudioError, match="recording 1: "):
            batch.process_many([(good, 8000), (bad, rate)])
    with pytest.raises(AudioError, match="recording 0: cutoff_hz"):
        batch.process_many([(good, 8000)], cutoff_hz=9000)


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        BatchUpscaler(device="cpu", batch_size=0)
    with pytest.raises(ModelError, match="fp16"):
        BatchUpscaler(device="cpu", precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="device='tpu'"):
        BatchUpscaler(device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="'cuda' is not available"):
            BatchUpscaler(device="cuda")
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a frame model"):
        BatchUpscaler(tmp_path / "other.onnx", "cpu")
    with pytest.raises(ModelError, match="not found"):
        BatchUpscaler(tmp_path / "missing.onnx", "cpu")


@pytest.mark.slow
def test_benchmark_runs_dry_without_gpu_and_audio_libraries(repo_dir: Path, tmp_path: Path) -> None:
    """As on a lent GPU machine that has PyTorch, but neither soxr nor soundfile nor av."""
    page = tmp_path / "gpu.md"
    code = (
        "import sys, runpy\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('soxr', 'soundfile', 'av'):\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"sys.path.insert(0, {str(repo_dir / 'benchmarks')!r})\n"
        f"sys.argv[:] = ['gpu.py', '--batch-sizes', '1', '--seconds', '1.5', '--page', {str(page)!r}]\n"
        f"runpy.run_path({str(repo_dir / 'benchmarks' / 'gpu.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "No CUDA device here" in done.stderr
    assert "| 1 | bf16 | no |" in done.stdout and "soxr, soundfile, av not installed" in done.stdout
    assert not page.exists()


def test_example_of_the_page_runs(repo_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (repo_dir / "docs" / "benchmarks" / "gpu.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- run -->\n```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "gpu.md", "exec"), {})
    shown = code.strip().splitlines()[-1].rpartition("# ")[2]
    assert capsys.readouterr().out.strip() == shown


def test_missing_onnx_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'needs onnx; install it with: pip install "hifispeech\[train\]"'):
        BatchUpscaler(device="cpu")


def test_missing_pytorch_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None\nimport hifispeech.infer.batch.upscaler"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last == 'ImportError: batches need PyTorch; install it with: pip install "hifispeech[train]"'
