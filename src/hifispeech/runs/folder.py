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
from hifispeech.runs.one_file import FileResult, Options, Outcome, Task, stamp
from hifispeech.runs.processes import Finished, Logged, Lost, Progress, run_tasks

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
    model: str | Path = "fast",
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
    options = Options(str(model), device, threads, encoding, cutoff_hz, peak)
    run = _Run(plan.folder, plan.jobs, options, resume=resume, force=force, on_progress=on_progress)
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
    force: bool
    on_progress: OnProgress | None
    _settings: dict[str, object] = field(default_factory=dict)
    _shares: dict[Path, float] = field(default_factory=dict)  # of the files at work, by target
    _state: FolderProgress = FolderProgress(0, 0, 0, 0, 0)

    def results(self, workers: int) -> Generator[FileResult, None, None]:
        """See `upscale_folder`."""
        self._settings = self.options.settings()
        self.root.mkdir(parents=True, exist_ok=True)
        with Manifest(self.root) as manifest:
            _remove_scratch(self.root)  # of a run that was killed; the lock tells that it is gone
            scratch = self.root.absolute() / SCRATCH
            scratch.mkdir(exist_ok=True)
            try:
                tasks = self._tasks(manifest, scratch)
                self._state = FolderProgress(0, len(tasks), 0, 0, sum(task.size for task in tasks))
                self._tell()
                with contextlib.closing(run_tasks(self.options, tasks, workers)) as events:
                    for event in events:
                        if isinstance(event, Logged):
                            _log(event)
                        elif isinstance(event, Progress):
                            self._shares[event.task.target] = event.share * event.task.size
                            self._tell()
                        else:
                            yield self._conclude(event, manifest)
            finally:
                _remove_scratch(self.root)

    def _tasks(self, manifest: Manifest, scratch: Path) -> list[Task]:
        """A scratch name is never used again, should a process of a killed run live on for a moment."""
        token = secrets.token_hex(4)
        tasks = []
        for number, (source, target) in enumerate(self.jobs):
            name = self._name(target)
            done = manifest.done.get(name) if self.resume else None
            same = done is not None and _is_same(done.settings, self._settings)
            may_replace = self.force or done is not None
            part = scratch / f"{token}-{number}{target.suffix}"
            tasks.append(Task(source, target, part, _size(source), may_replace, done if same else None))
        return tasks

    def _conclude(self, event: Finished[Task, Outcome] | Lost[Task], manifest: Manifest) -> FileResult:
        """Record the end of a file; a finished one gets its name."""
        task = event.task
        if isinstance(event, Lost):
            text = f"{task.source}: the process at work on it died ({event.reason}); run again with --resume"
            outcome = Outcome(FileResult(task.source, task.target, "failed", error=text))
        else:
            outcome = event.result
        result = outcome.result
        if result.status == "done":
            try:
                task.target.parent.mkdir(parents=True, exist_ok=True)
                check_target(task.target, force=task.may_replace, inputs=[task.source])
                manifest.append(self._entry(outcome))
                rename(task.scratch, Path(os.path.realpath(task.target)))
            except (HifispeechError, OSError) as error:
                task.scratch.unlink(missing_ok=True)
                result = replace(result, status="failed", report=None, error=explain(error))
        if result.status == "failed":
            manifest.append(self._entry(replace(outcome, result=result, output_sha256=None)))
        self._count(task, result)
        return result

    def _entry(self, outcome: Outcome) -> Entry:
        result = outcome.result
        return Entry.ended(
            self._name(result.output),
            str(result.input),
            self._settings,
            result.seconds,
            input_sha256=outcome.input_sha256,
            output_sha256=outcome.output_sha256,
            report=result.report,
            error=result.error,
        )

    def _name(self, target: Path) -> str:
        return target.relative_to(self.root).as_posix()

    def _count(self, task: Task, result: FileResult) -> None:
        self._shares.pop(task.target, None)
        state, is_unchanged = self._state, result.status == "unchanged"
        self._state = FolderProgress(
            state.files + 1,
            state.total_files,
            state.failed + (result.status == "failed"),
            state.done_bytes + (0 if is_unchanged else task.size),
            state.total_bytes - (task.size if is_unchanged else 0),
        )
        self._tell()

    def _tell(self) -> None:
        if self.on_progress is not None:
            done_bytes = self._state.done_bytes + sum(self._shares.values())
            self.on_progress(replace(self._state, done_bytes=done_bytes))


def _log(event: Logged[Task]) -> None:
    """Log what a process said, with the name that its file will have."""
    text, task = event.text, event.task
    if task is not None:
        text = text.replace(str(task.scratch), str(task.target))
    logging.getLogger(event.logger).log(event.level, "%s", text)


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
