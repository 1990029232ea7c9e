"""Folders: `upscale_folder` works on many files in parallel; it can be killed and resumed at any point.

Each result is made under a scratch name inside the folder of the results and gets its own name when it is
finished and recorded in the manifest. Bytes do not depend on the number of processes: every file is worked on
by one process with the same number of threads.
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from hifispeech.audio.io.encode import check_format
from hifispeech.audio.io.writer import check_target
from hifispeech.errors import HifispeechError, explain
from hifispeech.files import rename
from hifispeech.infer.edges import RATE
from hifispeech.paths import Plan
from hifispeech.runs.manifest import Entry, Manifest
from hifispeech.runs.one_file import FileResult, Options, stamp
from hifispeech.runs.processes import Crashed, run_tasks
from hifispeech.weights.packaged import DEFAULT

StrPath: TypeAlias = str | os.PathLike[str]

SCRATCH = ".hifispeech-work"


@dataclass(frozen=True)
class FolderProgress:
    """How far a run is. Bytes are those of the inputs; files found unchanged leave the total."""

    files: int
    total_files: int
    failed: int
    done_bytes: float
    total_bytes: float


OnProgress: TypeAlias = Callable[[FolderProgress], None]


def upscale_folder(
    inputs: StrPath | Sequence[StrPath] | Plan,
    output: StrPath | None = None,
    *,
    file_type: str | None = None,
    encoding: str | None = None,
    cutoff_hz: float | None = None,
    peak: str = "limit",
    model: str | Path = DEFAULT,
    device: str = "auto",
    workers: int | None = None,
    threads: int = 1,
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Generator[FileResult, None, None]:
    """Upscale a folder of audio, or several files, into a folder; yields each file as it ends.

    Iterate to the end: that is what does the work. Closing the iterator stops the run; what is finished
    stays, and `resume` goes on from there. The folder gets a manifest, `hifispeech.jsonl`; see `Entry`.

    Args:
        inputs: a folder, searched recursively, or several files and folders; or a plan that was made of them
            with `output` and `file_type`.
        output: the folder to write; `FOLDER_48k` beside a single input folder by default.
        file_type: such as "flac"; WAV by default. `encoding`, `cutoff_hz` and `peak` are those of
            `Upscaler.process_file`, `model` and `device` those of `Upscaler`.
        workers: processes, one for each core by default. They are spawned: in a script, the call belongs
            under `if __name__ == "__main__":`.
        threads: of each process.
        resume: pass over what an earlier run did if input, settings and output are unchanged; outputs of
            earlier runs may be replaced.
        force: replace any output that exists.
        on_progress: called with a `FolderProgress` a few times a second.

    Raises:
        AudioError: no audio in a folder, two inputs of one output, an input that would be overwritten, a
            format that cannot be written, or another run at work on `output`. A bad file raises nothing.
        ModelError: the model is missing or damaged, or the device is not there.
        HifispeechError: processes cannot be started.
        ValueError: no folder for the results is given, or `workers` or `threads` is below 1.
        OSError: the manifest cannot be written.
    """
    plan = inputs if isinstance(inputs, Plan) else _plan(inputs, output, file_type)
    if plan.folder is None:
        raise ValueError(
            "inputs must be a folder, or several files with the folder to write to in output; "
            "use upscale_file for a single file"
        )
    workers = available_cores() if workers is None else workers
    if workers < 1 or threads < 1:
        raise ValueError(f"workers={workers} and threads={threads} must be at least 1")
    check_format(plan.jobs[0][1].suffix, encoding, RATE, 1)
    options = Options(str(model), device, threads, encoding, cutoff_hz, peak, force)
    run = _Run(plan.folder, plan.jobs, options, resume=resume, on_progress=on_progress)
    return run.results(workers)


def _plan(inputs: StrPath | Sequence[StrPath], output: StrPath | None, file_type: str | None) -> Plan:
    paths = [Path(inputs)] if isinstance(inputs, str | os.PathLike) else [Path(path) for path in inputs]
    return Plan.make(paths, None if output is None else Path(output), file_type)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Run:
    """One run over a folder: what the parent process does."""

    root: Path
    jobs: list[tuple[Path, Path]]
    options: Options
    resume: bool
    on_progress: OnProgress | None
    _settings: dict[str, object] = field(default_factory=dict)
    _sizes: dict[Path, int] = field(default_factory=dict)  # of the inputs that are not finished, by output
    _bytes_at_work: dict[Path, float] = field(default_factory=dict)  # what is done of them, by output
    _state: FolderProgress = FolderProgress(0, 0, 0, 0, 0)

    def results(self, workers: int) -> Generator[FileResult, None, None]:
        """See `upscale_folder`."""
        self._settings = self.options.settings()
        self.root.mkdir(parents=True, exist_ok=True)
        with Manifest(self.root) as manifest:
            _remove_scratch(self.root)  # of a run that was killed; the lock tells that it is gone
            scratch = self.root.absolute() / SCRATCH
            scratch.mkdir(exist_ok=True)
            # A scratch name is never used again, should a process of a killed run live on for a moment.
            prefix = f"{scratch}{os.sep}{secrets.token_hex(4)}-"
            self.options = replace(self.options, scratch_prefix=prefix)
            try:
                pending = [self._pending(source, target, manifest) for source, target in self.jobs]
                self._sizes = {file.output: _size(file.input) for file in pending}
                self._state = FolderProgress(0, len(pending), 0, 0, sum(self._sizes.values()))
                self._tell()
                ended = run_tasks(self.options, pending, workers, on_progress=self._at_work, on_log=self._log)
                with contextlib.closing(ended):
                    for file, result in ended:
                        yield self._conclude(file, result, manifest)
            finally:
                _remove_scratch(self.root)

    def _pending(self, source: Path, target: Path, manifest: Manifest) -> FileResult:
        """A file to be worked on, with what an earlier run noted of it."""
        done = manifest.done.get(self._name(target)) if self.resume else None
        if done is None:
            return FileResult(source, target, "pending")
        same = _is_same(done.settings, self._settings)
        return FileResult(
            source,
            target,
            "pending",
            input_sha256=done.input_sha256 if same else None,
            output_sha256=done.output_sha256 or "",
        )

    def _conclude(self, file: FileResult, result: FileResult | Crashed, manifest: Manifest) -> FileResult:
        """Record the end of a file; a finished one gets its name."""
        if isinstance(result, Crashed):
            text = f"{file.input}: the process at work on it died ({result.reason}); run again with --resume"
            result = FileResult(file.input, file.output, "failed", error=text)
        if result.status == "done":
            scratch = self.options.scratch_of(file.output)
            try:
                file.output.parent.mkdir(parents=True, exist_ok=True)
                check_target(file.output, force=self.options.may_replace(file), inputs=[file.input])
                manifest.append(self._entry(result))
                rename(scratch, Path(os.path.realpath(file.output)))
            except (HifispeechError, OSError) as error:
                scratch.unlink(missing_ok=True)
                result = replace(
                    result, status="failed", report=None, error=explain(error), output_sha256=None
                )
        if result.status == "failed":
            manifest.append(self._entry(result))
        self._count(result)
        return result

    def _entry(self, result: FileResult) -> Entry:
        return result.entry(Entry, self._name(result.output), self._settings)

    def _name(self, target: Path) -> str:
        return target.relative_to(self.root).as_posix()

    def _count(self, result: FileResult) -> None:
        size, is_unchanged = self._sizes.pop(result.output), result.status == "unchanged"
        self._bytes_at_work.pop(result.output, None)
        state = self._state
        self._state = FolderProgress(
            state.files + 1,
            state.total_files,
            state.failed + (result.status == "failed"),
            state.done_bytes + (0 if is_unchanged else size),
            state.total_bytes - (size if is_unchanged else 0),
        )
        self._tell()

    def _at_work(self, file: FileResult, fraction: float) -> None:
        self._bytes_at_work[file.output] = fraction * self._sizes[file.output]
        self._tell()

    def _tell(self) -> None:
        if self.on_progress is not None:
            done_bytes = self._state.done_bytes + sum(self._bytes_at_work.values())
            self.on_progress(replace(self._state, done_bytes=done_bytes))

    def _log(self, file: FileResult | None, record: logging.LogRecord) -> None:
        """Log what a process said, with the name that its file will have."""
        text = record.getMessage()
        if file is not None:
            text = text.replace(str(self.options.scratch_of(file.output)), str(file.output))
        logging.getLogger(record.name).log(record.levelno, "%s", text)


def _is_same(settings: dict[str, object], other: dict[str, object]) -> bool:
    """Whether two settings give the same result: a model is its content, whatever its name."""
    return {**settings, "model": None} == {**other, "model": None}


def _size(path: Path) -> int:
    """At least one byte, so that an empty file counts."""
    found = stamp(path)
    return max(1, found[0]) if found else 1


def _remove_scratch(root: Path) -> None:
    """Remove the scratch folder and what is in it; only the holder of the lock may."""
    folder = root / SCRATCH
    if not folder.is_dir() or folder.is_symlink():
        return
    for file in folder.iterdir():
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a process that outlives its killed parent for a moment
        folder.rmdir()
