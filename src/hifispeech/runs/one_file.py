"""What a process of a folder run does with one file: the other half of `runs.folder`."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from hifispeech.errors import USER_ERRORS, AudioError, explain
from hifispeech.files import file_sha256
from hifispeech.infer.upscaler import FileReport, Upscaler
from hifispeech.runs.manifest import Entry
from hifispeech.version import __version__
from hifispeech.weights.packaged import read_model

_REPORT_EVERY_S = 0.2


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    "done": upscaled now, `report` says how. "unchanged": done by an earlier run, and input, settings and
    output are what they were. "failed": `error` says why in a line, `details` is the traceback, if any.
    """

    input: Path
    output: Path
    status: Literal["done", "unchanged", "failed"]
    seconds: float = 0.0
    report: FileReport | None = None
    error: str | None = None
    details: str | None = None


@dataclass(frozen=True)
class Options:
    """How files are worked on; makes the handler of each process."""

    model: str
    device: str
    threads: int
    encoding: str | None
    cutoff_hz: float | None
    peak: str

    def settings(self) -> dict[str, object]:
        """What decides the result besides the input, as the manifest has it."""
        return {
            "version": __version__,
            "model": self.model,
            "model_sha256": sha256(read_model(self.model)).hexdigest(),
            "encoding": self.encoding,
            "cutoff_hz": self.cutoff_hz,
            "peak": self.peak,
        }

    def __call__(self) -> "Handler":
        return Handler(self, Upscaler(self.model, self.device, threads=self.threads))


@dataclass(frozen=True)
class Task:
    """One file. `done` is its entry of an earlier run with the same settings."""

    source: Path
    target: Path
    scratch: Path
    size: int
    may_replace: bool
    done: Entry | None


@dataclass(frozen=True)
class Outcome:
    result: FileResult
    input_sha256: str | None = None
    output_sha256: str | None = None


class Handler:
    """What a process does with a file."""

    def __init__(self, options: Options, upscaler: Upscaler) -> None:
        self._options, self._upscaler = options, upscaler

    def __call__(self, task: Task, on_share: Callable[[float], None]) -> Outcome:
        started = time.perf_counter()
        digest = None
        try:
            before = stamp(task.source)
            digest = file_sha256(task.source) if task.source.is_file() else None
            if task.done is not None and _is_unchanged(task.done, digest, task.target):
                return Outcome(FileResult(task.source, task.target, "unchanged"), digest)
            if task.target.exists() and not task.may_replace:  # said before the work, too, not only after it
                raise AudioError(
                    f"{task.target}: exists already; go on with an earlier run (--resume), replace it "
                    "(--force), or pass another folder"
                )
            report = self._upscale(task, on_share)
            if stamp(task.source) != before:
                raise AudioError(f"{task.source}: was changed while it was read; run again with --resume")
            made = file_sha256(task.scratch)
            seconds = time.perf_counter() - started
            return Outcome(FileResult(task.source, task.target, "done", seconds, report), digest, made)
        except Exception as error:  # one bad file never stops the run
            task.scratch.unlink(missing_ok=True)
            is_known = isinstance(error, USER_ERRORS)
            text = explain(error) if is_known else f"unexpected {error!r}; please report it"
            text = text.replace(str(task.scratch), str(task.target))
            seconds, details = time.perf_counter() - started, traceback.format_exc()
            return Outcome(
                FileResult(task.source, task.target, "failed", seconds, None, text, details), digest
            )

    def _upscale(self, task: Task, on_share: Callable[[float], None]) -> FileReport:
        options, told = self._options, time.monotonic()

        def on_progress(done_s: float, total_s: float | None) -> None:
            nonlocal told
            if total_s and time.monotonic() - told > _REPORT_EVERY_S:
                told = time.monotonic()
                on_share(min(1.0, done_s / total_s))

        report = self._upscaler.process_file(
            task.source,
            task.scratch,
            force=True,
            encoding=options.encoding,
            cutoff_hz=options.cutoff_hz,
            peak=options.peak,
            on_progress=on_progress,
        )
        return replace(report, output=task.target)


def _is_unchanged(done: Entry, digest: str | None, target: Path) -> bool:
    if digest is None or digest != done.input_sha256 or not target.is_file():
        return False
    return file_sha256(target) == done.output_sha256


def stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file is written; None where there is none (reading it says what is wrong)."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
