"""Folders: results do not depend on how many processes make them, and resuming does just what is missing."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hifispeech import AudioError, ModelError, Upscaler
from hifispeech.runs.folder import SCRATCH, FileResult, FolderProgress, upscale_folder
from hifispeech.runs.manifest import NAME, Manifest, read_manifest
from hifispeech.runs.one_file import Handler, Options
from hifispeech.weights.packaged import DEFAULT

GOOD = ("a", "deep/er/b", "c", "silence")


def write_clip(path: Path, seed: int, seconds: float = 0.4, rate: int = 8000, channels: int = 1) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * rng.standard_normal((round(seconds * rate), channels)), rate)


def outputs_in(folder: Path) -> dict[str, bytes]:
    """All files but the manifest, with their content; hidden ones too."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != NAME]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def statuses(results: list[FileResult]) -> dict[str, str]:
    return {result.input.stem: result.status for result in results}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good files and one that is none."""
    folder = tmp_path_factory.mktemp("folder") / "in"
    write_clip(folder / "a.wav", 1)
    write_clip(folder / "deep" / "er" / "b.flac", 2, rate=16000, channels=2)
    write_clip(folder / "c.wav", 3)
    soundfile.write(folder / "silence.wav", np.zeros(4000), 8000)
    (folder / "bad.wav").write_bytes(b"this is no audio")
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture(scope="module")
def finished(recordings: Path) -> tuple[Path, list[FileResult], list[FolderProgress]]:
    """A run by two processes."""
    out, told = recordings.parent / "out", []
    results = list(upscale_folder(recordings, out, workers=2, on_progress=told.append))
    return out, results, told


def test_every_file_is_what_it_is_alone(finished, recordings: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out, results, _ = finished
    assert statuses(results) == {"a": "done", "b": "done", "c": "done", "silence": "done", "bad": "failed"}
    made = outputs_in(out)
    assert set(made) == {f"{name}.wav" for name in GOOD}
    upscaler = Upscaler(threads=1)
    for name in GOOD:
        (source,) = recordings.glob(f"{name}.*")
        upscaler.process_file(source, tmp_path / "alone.wav", force=True)
        assert made[f"{name}.wav"] == (tmp_path / "alone.wav").read_bytes(), name


def test_bytes_do_not_depend_on_the_number_of_processes(finished, recordings: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results = list(upscale_folder(recordings, tmp_path / "out", workers=1))
    assert len(results) == 5
    assert outputs_in(tmp_path / "out") == outputs_in(finished[0])


def test_manifest_tells_what_was_done(finished, recordings: Path) -> None:  # type: ignore[no-untyped-def]
    out = finished[0]
    entries = {entry.output: entry for entry in read_manifest(out / NAME)}
    assert set(entries) == {*(f"{name}.wav" for name in GOOD), "bad.wav"}
    for name in GOOD:
        entry, (source,) = entries[f"{name}.wav"], recordings.glob(f"{name}.*")
        assert entry.status == "done" and entry.error is None and Path(entry.input) == source
        assert entry.input_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
        assert entry.output_sha256 == hashlib.sha256((out / f"{name}.wav").read_bytes()).hexdigest()
        assert entry.duration_s == pytest.approx(0.5 if name == "silence" else 0.4)
        assert entry.settings["model"] == DEFAULT and len(str(entry.settings["model_sha256"])) == 64
    assert entries["a.wav"].cutoff_hz[0] > 3000 and entries["deep/er/b.wav"].channels == 2
    assert entries["silence.wav"].silent == (True,)
    bad = entries["bad.wav"]
    assert bad.status == "failed" and "not audio" in str(bad.error) and bad.output_sha256 is None


def test_progress_goes_up_to_all(finished) -> None:  # type: ignore[no-untyped-def]
    told: list[FolderProgress] = finished[2]
    assert [now.files for now in told] == sorted(now.files for now in told)
    assert [now.done_bytes for now in told] == sorted(now.done_bytes for now in told)
    assert (told[-1].files, told[-1].total_files, told[-1].failed) == (5, 5, 1)
    assert told[-1].done_bytes == told[-1].total_bytes > 0


def test_resume_does_what_is_missing_or_changed(finished, recordings: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Input changed, output changed, output gone, failed before: each done; the rest is not touched."""
    source, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(recordings, source)
    shutil.copytree(finished[0], out)
    write_clip(source / "a.wav", 77)
    (out / "deep" / "er" / "b.wav").write_bytes(b"half a fi")
    (out / "c.wav").unlink()
    write_clip(source / "bad.wav", 5)
    (out / SCRATCH).mkdir()  # as a killed run leaves it
    (out / SCRATCH / "1234-0.wav").write_bytes(b"half")
    (out / SCRATCH / ".hifispeech-abcd.tmp").write_bytes(b"quarter")
    before = (out / "silence.wav").stat()
    results = list(upscale_folder(source, out, workers=2, resume=True))
    assert statuses(results) == {"a": "done", "b": "done", "c": "done", "bad": "done", "silence": "unchanged"}
    after = (out / "silence.wav").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    made, expected = outputs_in(out), outputs_in(finished[0])
    assert set(made) == {*expected, "bad.wav"}
    assert all(made[name] == expected[name] for name in ("deep/er/b.wav", "c.wav", "silence.wav"))
    assert made["a.wav"] != expected["a.wav"]


def test_resume_with_other_settings_does_all_again(finished, recordings: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    results = list(upscale_folder(recordings, out, workers=1, resume=True, cutoff_hz=2000.0))
    assert [result.status for result in results].count("done") == 4
    assert outputs_in(out)["a.wav"] != outputs_in(finished[0])["a.wav"]


@pytest.mark.usefixtures("in_this_process")
def test_foreign_files_are_replaced_by_force_only(recordings: Path, tmp_path: Path) -> None:
    """Also with resume: nothing says that an earlier run made them."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.wav").write_text("precious")
    (out / "c.wav").mkdir()
    inputs = [recordings / "a.wav", recordings / "c.wav"]
    results = {result.input.stem: result for result in upscale_folder(inputs, out, workers=1, resume=True)}
    assert results["a"].status == results["c"].status == "failed"
    assert "--force" in str(results["a"].error) and (out / "a.wav").read_text() == "precious"
    (out / "c.wav").rmdir()
    assert {result.status for result in upscale_folder(inputs, out, workers=1, force=True)} == {"done"}


def test_a_run_on_a_folder_that_is_written_to_is_refused(recordings: Path, tmp_path: Path) -> None:
    with Manifest(tmp_path), pytest.raises(AudioError, match="another run"):
        list(upscale_folder(recordings, tmp_path, workers=1))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"workers": 0}, ValueError, "workers=0"),
        ({"threads": 0}, ValueError, "threads=0"),
        ({"file_type": "xyz"}, AudioError, "xyz"),
        ({"encoding": "pcm_99"}, AudioError, "pcm_99"),
        ({"model": "nonsense"}, ModelError, "nonsense"),
    ],
)
def test_wrong_settings_are_said_before_anything_is_done(
    recordings: Path, tmp_path: Path, options: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        list(upscale_folder(recordings, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_damaged_model_ends_the_run(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="damaged"):
        list(upscale_folder(recordings, tmp_path / "out", model=tmp_path / "damaged.onnx", workers=1))
    assert outputs_in(tmp_path / "out") == {}


def test_files_without_a_folder_for_the_results(recordings: Path) -> None:
    with pytest.raises(ValueError, match="folder to write to"):
        upscale_folder([recordings / "a.wav", recordings / "c.wav"])
    with pytest.raises(ValueError, match="single file"):
        upscale_folder(recordings / "a.wav", recordings / "b.wav")


# --- what a process does with a file


@pytest.fixture
def pending(tmp_path: Path) -> FileResult:
    write_clip(tmp_path / "in.wav", 1)
    return FileResult(tmp_path / "in.wav", tmp_path / "out.wav", "pending")


def handler(process_file, folder: Path) -> Handler:  # type: ignore[no-untyped-def]
    """A handler whose upscaler is `process_file`."""
    options = Options("fast", "cpu", 1, None, None, "limit", scratch_prefix=f"{folder}/part-")
    upscaler = type("Fake", (), {"process_file": staticmethod(process_file)})()
    return Handler(options, upscaler)  # type: ignore[arg-type]


def test_file_that_changes_while_it_is_read_fails(pending: FileResult, tmp_path: Path) -> None:
    def process_file(source: Path, target: Path, **options: object) -> None:
        write_clip(source, 2, seconds=0.5)
        target.write_bytes(b"of the old content")

    result = handler(process_file, tmp_path)(pending, lambda fraction: None)
    assert result.status == "failed" and "changed" in str(result.error) and "--resume" in str(result.error)
    assert len(str(result.input_sha256)) == 64 and result.output_sha256 is None
    assert list(tmp_path.iterdir()) == [pending.input]


@pytest.mark.parametrize("error", [KeyError("a bug"), MemoryError(), OSError(28, "No space left on device")])
def test_no_exception_leaves_a_file(pending: FileResult, tmp_path: Path, error: Exception) -> None:
    def process_file(source: Path, target: Path, **options: object) -> None:
        target.write_bytes(b"half")
        raise error

    result = handler(process_file, tmp_path)(pending, lambda fraction: None)
    assert result.status == "failed" and "Traceback" in str(result.details)
    assert list(tmp_path.iterdir()) == [pending.input] and "part-" not in str(result.error)


def test_hash_of_an_earlier_run_spares_the_work(pending: FileResult, tmp_path: Path) -> None:
    """Same input and output: nothing is done; another input: the output of the earlier run is replaced."""

    def process_file(source: Path, target: Path, **options: object) -> None:
        raise AssertionError("begun")

    pending.output.write_bytes(b"as it was")
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (pending.input, pending.output)]
    known = replace(pending, input_sha256=hashes[0], output_sha256=hashes[1])
    run = handler(process_file, tmp_path)
    assert run(known, lambda fraction: None).status == "unchanged"
    assert "begun" in str(run(replace(known, input_sha256=None), lambda fraction: None).error)
    assert "exists already" in str(run(pending, lambda fraction: None).error)


def test_manifest_is_json_lines(finished) -> None:  # type: ignore[no-untyped-def]
    lines = (finished[0] / NAME).read_text().splitlines()
    assert all(json.loads(line)["status"] in ("done", "failed") for line in lines) and len(lines) == 5
