"""Corpus runs: which files share a batch and a worker, and what a batch on a GPU does, here on the CPU."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hifispeech
from hifispeech.errors import HifispeechError

pytest.importorskip("fsspec", reason="needs the extra dist")
pytest.importorskip("torch", reason="needs the extra train")

import fsspec

from hifispeech.infer.batch import files
from hifispeech.infer.batch.upscaler import BatchUpscaler
from hifispeech.runs.corpus.ray import (
    BATCH_BYTES,
    BATCH_FILES,
    BATCH_SPREAD,
    GPU_TIMES,
    Machines,
    batch_upscaler,
    plan_batches,
    plan_workers,
)
from hifispeech.runs.corpus.store import Source, Store, list_sources
from hifispeech.runs.corpus.worker import MAX_STARTS, CorpusSettings, CorpusWorker, Ledger

STEP = 2.0**-15  # of the FLAC files


@pytest.fixture(scope="module")
def upscaler() -> hifispeech.Upscaler:
    return hifispeech.Upscaler("fast", "cpu", threads=1)


@pytest.fixture(scope="module")
def batch(upscaler: hifispeech.Upscaler) -> BatchUpscaler:
    found = batch_upscaler(upscaler, "fast", 1, "cpu")
    assert found is not None
    return found


@pytest.fixture
def folder(tmp_path: Path, synthetic_speech: Callable[..., np.ndarray]) -> Path:
    """Three short recordings, a copy of the first, and a file that is no audio."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate("abc"):
        audio = synthetic_speech(0.2 + 0.1 * number, 8000, seed=number)[None]
        hifispeech.write(folder / f"{name}.wav", audio, 8000)
    shutil.copy(folder / "a.wav", folder / "again.wav")
    (folder / "bad.wav").write_text("no audio")
    return folder


@pytest.fixture(params=["file", "memory"])
def places(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Input and output: local folders, and a store that is none (fsspec's memory, in place of s3)."""
    if request.param == "file":
        yield str(folder), str(tmp_path / "out")
        return
    root = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    for path in folder.iterdir():
        fs.put_file(str(path), f"{root}/in/{path.name}")
    yield f"memory:/{root}/in", f"memory:/{root}/out"
    fs.rm(root, recursive=True)


class Alone:
    """Stands in for the `Upscaler` of a worker: notes which files go one by one."""

    def __init__(self, upscaler: hifispeech.Upscaler) -> None:
        self.upscaler, self.names = upscaler, list[str]()

    def process_file(self, source: Path, target: Path, **options: object) -> hifispeech.FileReport:
        self.names.append(source.name)
        return self.upscaler.process_file(source, target, **options)  # type: ignore[arg-type]


def worker_on(
    output: str, upscaler: hifispeech.Upscaler, batch: BatchUpscaler, ledger: Ledger | None = None
) -> tuple[CorpusWorker, list[str]]:
    alone = Alone(upscaler)
    settings = CorpusSettings("fast", "0" * 64)
    worker = CorpusWorker(settings, Store(output, f"test-{uuid.uuid4().hex}"), alone, batch, ledger)  # type: ignore[arg-type]
    return worker, alone.names


# Batches


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["wav", "mp3"]), st.integers(1, 10 * BATCH_BYTES)), max_size=200))
def test_batches_hold_every_file_once_and_similar_lengths(files: list[tuple[str, int]]) -> None:
    sources = [Source(f"{number}.{kind}", size, "v") for number, (kind, size) in enumerate(files)]
    batches = plan_batches(sources)
    assert sorted(source.path for batch in batches for source in batch) == sorted(s.path for s in sources)
    for batch in batches:
        sizes = [source.size for source in batch]
        assert len({Path(source.path).suffix for source in batch}) == 1
        assert max(sizes) <= BATCH_SPREAD * min(sizes)
        assert len(batch) <= BATCH_FILES and (len(batch) == 1 or sum(sizes) <= BATCH_BYTES)


def test_a_small_corpus_is_work_for_all_workers() -> None:
    sources = [Source(f"{number:02}.wav", 1000, "v") for number in range(16)]
    assert [len(batch) for batch in plan_batches(sources, workers=2)] == [2] * 8
    assert [len(batch) for batch in plan_batches(sources, workers=100)] == [1] * 16


def test_batches_start_with_the_longest_and_trust_given_durations() -> None:
    long, short, medium = (
        Source(f"{n}.wav", 10**9, "v", s) for n, s in (("l", 900.0), ("s", 1.0), ("m", 800.0))
    )
    assert [batch[0].path for batch in plan_batches([short, medium, long])] == ["l.wav", "m.wav", "s.wav"]


def test_a_gpu_is_handed_more_at_a_time() -> None:
    sources = [Source(f"{number:04}.wav", 1000, "v") for number in range(4 * GPU_TIMES * BATCH_FILES)]
    assert {len(batch) for batch in plan_batches(sources, 1, GPU_TIMES)} == {GPU_TIMES * BATCH_FILES}


# Workers

NODES = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}]


@pytest.mark.parametrize(
    ("machines", "nodes", "wanted"),
    [
        (Machines(), NODES, (2, True)),
        (Machines(threads=8), NODES, (1, True)),
        (Machines(device="cpu"), NODES, (11, False)),
        (Machines(device="cpu", threads=2), NODES, (5, False)),
        (Machines(workers=7), NODES[1:], (7, False)),
    ],
)
def test_actors_fit_the_nodes(machines: Machines, nodes: list, wanted: tuple[int, bool]) -> None:
    assert plan_workers(machines, nodes) == wanted


def test_what_no_node_has_is_not_waited_for() -> None:
    with pytest.raises(HifispeechError, match="'cuda': no machine of the cluster has a GPU"):
        plan_workers(Machines(device="cuda"), NODES[1:])
    with pytest.raises(HifispeechError, match="no machine with a GPU has so many CPUs; pass 8 or fewer"):
        plan_workers(Machines(threads=9, workers=1), NODES)
    with pytest.raises(HifispeechError, match="no machine has so many CPUs; pass 3 or fewer"):
        plan_workers(Machines(threads=4), NODES[1:])


# Many files at a time


def test_files_of_a_batch_are_what_they_are_alone(
    places: tuple[str, str], upscaler: hifispeech.Upscaler, batch: BatchUpscaler, folder: Path, tmp_path: Path
) -> None:
    """And a bad file is a failed row, a copy shares a result, nothing is left over, the inputs stay."""
    worker, alone = worker_on(places[1], upscaler, batch)
    sources = list_sources(places[0], places[1])
    rows = {Path(row.input).name: row for row in worker.work_all(sources)}
    assert {name: row.status for name, row in rows.items()} == {
        **dict.fromkeys(("a.wav", "again.wav", "b.wav", "c.wav"), "done"),
        "bad.wav": "failed",
    }
    assert not alone, "all in a batch"
    assert rows["again.wav"].output == rows["a.wav"].output
    bad = next(source.path for source in sources if source.path.endswith("bad.wav"))
    assert (rows["bad.wav"].error or "").startswith(f"{bad}: not audio")
    assert not list(worker.store.work_dir.iterdir())
    for name in ("a.wav", "b.wav", "c.wav"):
        hifispeech.upscale_file(
            folder / name, tmp_path / "alone.flac", model="fast", device="cpu", force=True
        )
        fs, root = fsspec.core.url_to_fs(places[1])
        (tmp_path / "batch.flac").write_bytes(fs.cat_file(f"{root}/{rows[name].output}"))
        one, other = (hifispeech.read(tmp_path / f"{way}.flac")[0] for way in ("batch", "alone"))
        assert one.shape == other.shape and np.abs(one - other).max() <= 2 * STEP
    assert not worker.ledger.starts, "all starts are ended"
    again, alone = worker_on(places[1], upscaler, batch)
    assert sum(row.status == "done" for row in again.work_all(sources)) == 4 and not alone
    assert len(list(folder.iterdir())) == 5


def test_files_that_a_worker_may_have_died_at_go_alone(
    folder: Path, upscaler: hifispeech.Upscaler, batch: BatchUpscaler, tmp_path: Path
) -> None:
    """A batch was begun and not ended, again and again: the file to blame is given up, the rest is done."""
    ledger = Ledger()
    sources = [
        s for s in list_sources(str(folder), "/nowhere") if Path(s.path).name in ("a.wav", "b.wav", "c.wav")
    ]
    for source in sources[:2]:
        ledger.begin(source.path)
    for _ in range(MAX_STARTS - 1):
        ledger.begin(sources[0].path)
    worker, alone = worker_on(str(tmp_path / "out"), upscaler, batch, ledger)
    rows = list(worker.work_all(sources))
    assert [Path(row.input).name for row in rows] == ["c.wav", "a.wav", "b.wav"]
    assert [row.status for row in rows] == ["done", "failed", "done"]
    assert alone == ["b.wav"] and f"killed {MAX_STARTS} times" in (rows[1].error or "")
    assert not ledger.starts


def test_long_files_and_those_of_a_failed_batch_go_alone(
    folder: Path,
    upscaler: hifispeech.Upscaler,
    batch: BatchUpscaler,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = list_sources(str(folder / "c.wav"), "/nowhere")
    with monkeypatch.context() as patch:
        patch.setattr(files, "MOST_S", 0.3)
        worker, alone = worker_on(str(tmp_path / "out"), upscaler, batch)
        assert [row.status for row in worker.work_all(sources)] == ["done"] and alone == ["c.wav"]

    def run(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(batch.network, "run", run)
    worker, alone = worker_on(str(tmp_path / "other"), upscaler, batch)
    assert [row.status for row in worker.work_all(sources)] == ["done"] and alone == ["c.wav"]
    assert not worker.ledger.starts


def test_batches_need_a_frame_model_and_a_gpu(upscaler: hifispeech.Upscaler) -> None:
    if not hifispeech.infer.load.has_torch_cuda():
        assert batch_upscaler(upscaler, "fast", 1) is None
    other = Alone(upscaler)
    other.model = object()  # type: ignore[attr-defined]
    assert batch_upscaler(other, "fast", 1, "cpu") is None  # type: ignore[arg-type]
