"""Corpus runs: which files, in which batches, to where, and that nothing is done twice; one on a real Ray."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hifispeech
from hifispeech.cli import app
from hifispeech.errors import AudioError
from hifispeech.files import file_sha256
from hifispeech.runs.manifest import read_manifest

pytest.importorskip("fsspec", reason="needs the extra dist")
pytest.importorskip("pyarrow", reason="needs the extra dist")

import fsspec
import pyarrow
import pyarrow.parquet

from hifispeech.runs.corpus import run as corpus
from hifispeech.runs.corpus.journal import Journal, Known, is_done
from hifispeech.runs.corpus.run import claim
from hifispeech.runs.corpus.store import WORK, Source, Store, list_sources
from hifispeech.runs.corpus.worker import MAX_STARTS, CorpusSettings, CorpusWorker, Ledger, Row, record_name

SETTINGS = CorpusSettings("fast", "0" * 64)


@pytest.fixture(scope="module")
def upscaler() -> hifispeech.Upscaler:
    return hifispeech.Upscaler("fast", "cpu", threads=1)


@pytest.fixture
def recordings(tmp_path: Path, synthetic_speech: Callable[..., np.ndarray]) -> Path:
    """Three short recordings, a copy of the first, a file that is no audio, and one that is not for us."""
    folder = tmp_path / "in"
    (folder / "monday").mkdir(parents=True)
    for number, name in enumerate(("a.wav", "b.wav", "monday/c.wav")):
        hifispeech.write(folder / name, synthetic_speech(0.3 + 0.1 * number, 8000, seed=number)[None], 8000)
    shutil.copy(folder / "a.wav", folder / "monday" / "again.wav")
    (folder / "bad.wav").write_text("no audio")
    (folder / "notes.txt").write_text("not for us")
    return folder


@pytest.fixture(params=["file", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A local folder, and a store that is none (fsspec's memory, which stands for s3 and the like)."""
    if request.param == "file":
        yield str(tmp_path / "out")
        return
    url = f"memory://{uuid.uuid4().hex}/out"
    yield url
    fsspec.filesystem("memory").rm(url.split("//")[1].split("/")[0], recursive=True)


def worker_on(output: str, upscaler: hifispeech.Upscaler, **options: object) -> CorpusWorker:
    return CorpusWorker(SETTINGS, Store(output, f"test-{uuid.uuid4().hex}"), upscaler, **options)  # type: ignore[arg-type]


def inline(monkeypatch: pytest.MonkeyPatch, upscaler: hifispeech.Upscaler) -> list[str]:
    """Replace Ray by a loop in this process; returns the list of the files that were worked on."""
    worked: list[str] = []

    def work(sources: list[Source], output: str, settings: CorpusSettings, *_: object) -> Iterator[object]:
        worker = CorpusWorker(settings, Store(output, "inline"), upscaler)
        for source in sources:
            worked.append(source.path)
            yield from worker.work_all([source])
        worker.store.close()

    monkeypatch.setattr(corpus, "work_on_ray", work)
    return worked


# Which files


def test_folder_is_searched_for_audio_without_results_and_hidden_files(recordings: Path) -> None:
    (recordings / ".cache").mkdir()
    for place in (".cache/x.wav", ".hidden.wav", "out/audio/aa/x.wav"):
        (recordings / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(recordings / "a.wav", recordings / place)
    found = list_sources(str(recordings), str(recordings / "out"))
    names = [Path(source.path).relative_to(recordings).as_posix() for source in found]
    assert names == ["a.wav", "b.wav", "bad.wav", "monday/again.wav", "monday/c.wav"]
    assert all(source.version and source.size == Path(source.path).stat().st_size for source in found)


def test_url_of_a_folder_gives_the_same_files(recordings: Path) -> None:
    assert list_sources(f"file://{recordings}", "/nowhere") == list_sources(str(recordings), "/nowhere")


def test_files_in_a_store_have_urls_and_versions(recordings: Path) -> None:
    fs, root = fsspec.filesystem("memory"), uuid.uuid4().hex
    fs.put_file(str(recordings / "a.wav"), f"/{root}/a.wav")
    (source,) = list_sources(f"memory://{root}", "memory://elsewhere")
    assert source.path == f"memory://{root}/a.wav" or source.path == f"memory:///{root}/a.wav"
    assert source.size == (recordings / "a.wav").stat().st_size and source.version


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_lists_name_files_by_relative_or_absolute_path(kind: str, recordings: Path) -> None:
    rows = [
        {"path": "a.wav", "duration_s": 0.3, "speaker": "x"},
        {"path": str(recordings / "monday" / "c.wav"), "duration_s": 0.5, "speaker": "y"},
        {"path": "gone.wav", "duration_s": 0.1, "speaker": "y"},
    ]
    file = recordings / f"files.{kind}"
    if kind == "csv":
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    found = list_sources(str(file), "/nowhere")
    assert [Path(source.path).name for source in found] == [
        "a.wav",
        "c.wav",
        "gone.wav",
    ]
    assert [source.duration_s for source in found] == [0.3, 0.5, 0.1]
    assert [bool(source.version) for source in found] == [True, True, False]


def test_what_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_text('{"path": "a.wav"\n')
    (tmp_path / "other.csv").write_text("file\na.wav\n")
    for name, words in (
        ("missing", "no such file"),
        ("empty", "no audio file"),
        ("bad.jsonl", "not a readable list"),
        ("other.csv", "a column 'path' is needed"),
    ):
        with pytest.raises(AudioError, match=words):
            list_sources(str(tmp_path / name), "/nowhere")
    with pytest.raises(AudioError, match="pass a folder or a URL"):
        list_sources("nonsense://bucket/x", "/nowhere")


# One file


def test_result_equals_that_of_a_single_file(
    output: str, recordings: Path, upscaler: hifispeech.Upscaler, tmp_path: Path
) -> None:
    worker = worker_on(output, upscaler)
    source = list_sources(str(recordings / "a.wav"), output)[0]
    row = worker.work(source)
    assert row.input_sha256
    upscaler.process_file(recordings / "a.wav", tmp_path / "alone.flac")
    assert (row.status, row.error) == ("done", None)
    assert row.input_sha256 == file_sha256(recordings / "a.wav")
    assert row.output == f"audio/{row.input_sha256[:2]}/{row.input_sha256}.flac"
    fs, root = fsspec.core.url_to_fs(output)
    assert fs.cat_file(f"{root}/{row.output}") == (tmp_path / "alone.flac").read_bytes()
    assert row.output_sha256 == file_sha256(tmp_path / "alone.flac")
    assert json.loads(fs.cat_file(f"{root}/{record_name(row.output)}"))["cutoff_hz"] == list(row.cutoff_hz)
    assert not list(worker.store.work_dir.iterdir())


def test_remote_input_is_fetched_and_failures_name_it(
    recordings: Path, upscaler: hifispeech.Upscaler
) -> None:
    fs, root = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for name in ("a.wav", "bad.wav"):
        fs.put_file(str(recordings / name), f"{root}/{name}")
    worker = worker_on(f"memory:/{root}/out", upscaler)
    good, bad = map(worker.work, list_sources(f"memory:/{root}", f"memory:/{root}/out"))
    assert good.input_sha256 == file_sha256(recordings / "a.wav")
    assert bad.status == "failed" and f"{root}/bad.wav: not audio" in (bad.error or "")
    assert str(worker.store.work_dir) not in (bad.error or "")
    assert not list(worker.store.work_dir.iterdir())


def test_work_that_is_done_is_found_by_content(
    output: str, recordings: Path, upscaler: hifispeech.Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {Path(source.path).name: source for source in list_sources(str(recordings), output)}
    first = worker_on(output, upscaler).work(sources["a.wav"])
    monkeypatch.setattr(upscaler, "process_file", lambda *a, **k: pytest.fail("done again"))
    again = worker_on(output, upscaler).work(sources["again.wav"])
    assert dataclasses.asdict(again)["output_sha256"] == first.output_sha256
    assert Path(again.input).name == "again.wav" and again.time == first.time


def test_audio_without_its_row_does_not_count(
    output: str, recordings: Path, upscaler: hifispeech.Upscaler
) -> None:
    """As after a kill between the two: the audio is made again, and is the same."""
    worker = worker_on(output, upscaler)
    source = list_sources(str(recordings / "a.wav"), output)[0]
    row = worker.work(source)
    worker.store.remove(record_name(row.output))
    worker.store.put_text("half", row.output)
    again = worker.work(source)
    assert again.output_sha256 == row.output_sha256
    fs, root = fsspec.core.url_to_fs(output)
    assert fs.cat_file(f"{root}/{row.output}")[:4] == b"fLaC"


def test_a_file_that_kills_its_workers_is_given_up(
    recordings: Path, upscaler: hifispeech.Upscaler, tmp_path: Path
) -> None:
    ledger = Ledger()
    worker = worker_on(str(tmp_path / "out"), upscaler, ledger=ledger)
    source = list_sources(str(recordings / "a.wav"), "/nowhere")[0]
    for _ in range(MAX_STARTS):
        ledger.begin(source.path)  # and then the worker was gone
    row = worker.work(source)
    assert row.status == "failed" and f"killed {MAX_STARTS} times" in (row.error or "")
    assert worker.work(source).status == "done", "a start that ended counts no more"


# The whole run, without Ray


def test_a_run_reports_failures_and_a_second_does_only_what_is_missing(
    output: str, recordings: Path, upscaler: hifispeech.Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = inline(monkeypatch, upscaler)
    command = ["corpus", str(recordings), "-o", output]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 1, first.output
    assert "4 files done, 0 done before, 1 failed" in first.stdout
    assert "bad.wav: not audio" in first.stderr and "1 of 5 files failed" in first.stderr
    assert len(worked) == 5
    store = Store(output, "test")
    rows = [json.loads(line) for line in store.lines("hifispeech.jsonl")]
    assert sorted(Path(row["input"]).name for row in rows) == [
        "a.wav",
        "again.wav",
        "b.wav",
        "bad.wav",
        "c.wav",
    ]
    assert len(store.names("audio")) == 2 * 3, "two files of equal content share a result"
    assert not store.names("manifest") and store.names("") >= {"corpus.json", "hifispeech.jsonl"}

    worked.clear()
    hifispeech.write(recordings / "b.wav", np.full((1, 800), 0.1, np.float32), 8000, force=True)  # changed
    shutil.copy(recordings / "a.wav", recordings / "bad.wav")  # repaired
    store.remove(next(row["output"] for row in rows if row["input"].endswith("c.wav")))  # lost
    store.close()
    second = CliRunner().invoke(app, [*command, "--json"])
    assert second.exit_code == 0, second.output
    assert sorted(Path(path).name for path in worked) == ["b.wav", "bad.wav", "c.wav"]
    assert {json.loads(line)["status"] for line in second.stdout.splitlines()} == {"done"}
    last = {row["input"]: row for row in map(json.loads, Store(output, "test").lines("hifispeech.jsonl"))}
    assert len(last) == 5 and {row["status"] for row in last.values()} == {"done"}


def test_a_broken_off_run_keeps_what_it_noted(
    output: str, recordings: Path, upscaler: hifispeech.Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    inline(monkeypatch, upscaler)
    machines = corpus.Machines()

    def stop(row: object, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.run_corpus(str(recordings), output, machines, on_row=stop)
    assert not Store(output, "test").has("hifispeech.jsonl")
    summary = corpus.run_corpus(str(recordings), output, machines)
    assert (summary.done, summary.skipped, summary.failed) == (2, 2, 1)


def test_settings_of_a_corpus_do_not_change(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "test")
    claim(store, SETTINGS)
    claim(store, SETTINGS)
    with pytest.raises(AudioError, match=r"made with file_type='flac'; pass those settings"):
        claim(store, dataclasses.replace(SETTINGS, file_type="wav"))


def test_journal_keeps_the_last_row_of_each_input(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hifispeech.runs.corpus.journal.PART_ROWS", 2)
    journal = Journal(Store(output, "test"))
    row = Row("audio/aa/x.flac", "failed", "x.wav", {}, "", 0.0, input_bytes=1, input_version="1")
    for status in ("failed", "failed", "done"):
        journal.append(dataclasses.replace(row, status=status))  # type: ignore[arg-type]
    journal.append(dataclasses.replace(row, input="y.wav"))
    journal.append(dataclasses.replace(row, input="z.wav"))
    assert len(journal.store.names("manifest")) == 2, "two full parts, the fifth row is in memory"
    for _ in range(2):
        journal.compact()
        known = journal.read()
        assert {name: entry.result for name, entry in known.items()} == {
            "x.wav": "audio/aa/x.flac",
            "y.wav": None,
            "z.wav": None,
        }
        assert len(list(journal.store.lines("hifispeech.jsonl"))) == 3


def test_done_needs_an_unchanged_input_and_both_files() -> None:
    source, known = Source("x.wav", 1, "1"), Known(1, "1", "audio/aa/x.flac")
    both = {"audio/aa/x.flac", "audio/aa/x.json"}
    assert is_done(source, known, both)
    assert not is_done(source, None, both)
    assert not is_done(source, known._replace(result=None), both)
    assert not is_done(dataclasses.replace(source, size=2), known, both)
    assert not is_done(dataclasses.replace(source, version="2"), known, both)
    assert not is_done(dataclasses.replace(source, version=""), known._replace(version=""), both)
    assert not is_done(source, known, {"audio/aa/x.flac"}) and not is_done(source, known, {"audio/aa/x.json"})


def test_without_the_extra_the_error_names_it(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    result = CliRunner().invoke(app, ["corpus", str(recordings), "-o", "out"])
    assert result.exit_code == 1
    assert 'pip install "hifispeech[dist]"' in result.stderr and result.stderr.count("\n") == 1


def test_left_overs_of_killed_runs_are_removed(tmp_path: Path) -> None:
    left = tmp_path / WORK / "of-a-killed-worker" / "half.flac"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    store = Store(str(tmp_path), "driver")
    store.clear_work()
    assert not left.exists() and store.work_dir.exists()
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_runs_into_two_stores_do_not_meet() -> None:
    """The folders for files on their way to remote outputs lie on the same disk."""
    first, second = (Store(f"memory://{uuid.uuid4().hex}/out", "driver") for _ in range(2))
    first.put_text("1", "a")
    second.put_text("2", "a")
    assert (first.text("a"), second.text("a")) == ("1", "2") and first.work_dir != second.work_dir
    for store in (first, second):
        store.close()
        assert not store.work_dir.parent.exists()


@pytest.mark.xdist_group("ray")  # one Ray at a time: it takes all cores
@pytest.mark.slow
def test_local_ray_does_the_corpus(recordings: Path, tmp_path: Path) -> None:
    """The real command on a Ray of its own: results, manifest, exit code; a second run has nothing to do."""
    pytest.importorskip("ray", reason="needs the extra dist")
    (recordings / "bad.wav").unlink()
    command = [sys.executable, "-m", "hifispeech", "corpus", str(recordings), "-o", str(tmp_path / "out")]
    first = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    assert "4 files done, 0 done before, 0 failed" in first.stdout
    entries = list(read_manifest(tmp_path / "out" / "hifispeech.jsonl"))
    assert {entry.status for entry in entries} == {"done"} and len(entries) == 4
    for entry in entries:
        assert file_sha256(tmp_path / "out" / entry.output) == entry.output_sha256
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)  # starts no Ray
    assert second.returncode == 0 and "0 files done, 4 done before" in second.stdout
