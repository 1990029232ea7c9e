"""One file of a run: hash, upscale, hash, entry. Folder and corpus runs both go this way."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from hifispeech.errors import USER_ERRORS, AudioError, explain
from hifispeech.files import file_sha256
from hifispeech.infer.file import FileReport
from hifispeech.infer.upscaler import Upscaler
from hifispeech.runs.manifest import EntryType
from hifispeech.version import __version__
from hifispeech.weights.packaged import read_model

_REPORT_EVERY_S = 0.2


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    "done": upscaled now, `report` says how. "unchanged": done by an earlier run, and input, settings and
    output are what they were. "failed": `error` says why in a line, `details` is the traceback, if any.
    "pending": waits for its turn, and is never yielded; its hashes are those of an earlier run, that of the
    input only if the settings were the same.
    """

    input: Path
    output: Path
    status: Literal["done", "unchanged", "failed", "pending"]
    seconds: float = 0.0
    report: FileReport | None = None
    error: str | None = None
    details: str | None = None
    input_sha256: str | None = None
    output_sha256: str | None = None

    def entry(
        self, kind: type[EntryType], output: str, settings: dict[str, object], input: str | None = None
    ) -> EntryType:
        """The line of a manifest; there the output, and perhaps the input, go by other names."""
        return kind.ended(
            output,
            str(self.input) if input is None else input,
            settings,
            self.seconds,
            input_sha256=self.input_sha256,
            output_sha256=self.output_sha256,
            report=self.report,
            error=self.error,
        )


class OneFile:
    """A file from its first hash to its result. `again` tells the user what to do if it fails by chance."""

    def __init__(self, path: Path, *, again: str = "run again") -> None:
        self.path, self.sha256 = path, ""
        self._again = again
        self._started_s = time.perf_counter()
        self._stamp: tuple[int, int] | None = None

    def hash(self) -> str:
        """Read the input for the first time; its hash, which is `sha256` from now on."""
        self._stamp = stamp(self.path)
        self.sha256 = file_sha256(self.path)
        return self.sha256

    @property
    def seconds(self) -> float:
        """How long the work has taken so far."""
        return time.perf_counter() - self._started_s

    def upscale(self, upscaler: Upscaler, target: Path, **options: Any) -> FileResult:
        """Upscale into `target`, which is replaced; the options are those of `Upscaler.process_file`."""
        return self.finish(upscaler.process_file(self.path, target, force=True, **options))

    def finish(self, report: FileReport) -> FileResult:
        """The result of a file that was upscaled.

        Raises:
            AudioError: the input was written to meanwhile, so that nobody knows what the result was made of.
        """
        if self.sha256 and stamp(self.path) != self._stamp:
            raise AudioError(f"{self.path}: was changed while it was read; {self._again}")
        return FileResult(
            self.path,
            report.output,
            "done",
            report=report,
            input_sha256=self.sha256 or None,
            output_sha256=file_sha256(report.output),
            seconds=self.seconds,
        )


@dataclass(frozen=True)
class Options:
    """How the files of a folder are worked on; makes the handler of each process.

    `scratch_prefix` is the beginning of the names under which results are made; no two runs have the same.
    """

    model: str
    device: str
    threads: int
    encoding: str | None
    cutoff_hz: float | None
    peak: str
    force: bool = False
    scratch_prefix: str = ""

    def settings(self) -> dict[str, object]:
        """What decides the result besides the input, as the manifest has it."""
        return {
            "version": __version__,
            "model": self.model,
            "model_sha256": model_sha256(self.model),
            "encoding": self.encoding,
            "cutoff_hz": self.cutoff_hz,
            "peak": self.peak,
        }

    def scratch_of(self, output: Path) -> Path:
        """Where the result is made that will be moved to `output`."""
        return Path(f"{self.scratch_prefix}{sha256(str(output).encode()).hexdigest()[:16]}{output.suffix}")

    def may_replace(self, pending: FileResult) -> bool:
        """Whether the output may be there already: an earlier run made it, or the user insists."""
        return self.force or pending.output_sha256 is not None

    def __call__(self) -> "Handler":
        return Handler(self, Upscaler(self.model, self.device, threads=self.threads))


class Handler:
    """What a process of a folder run does with a file."""

    def __init__(self, options: Options, upscaler: Upscaler) -> None:
        self._options, self._upscaler = options, upscaler

    def __call__(self, pending: FileResult, on_fraction: Callable[[float], None]) -> FileResult:
        """Upscale a file to its scratch name unless that is done; returns what became of it."""
        file = OneFile(pending.input, again="run again with --resume")
        scratch = self._options.scratch_of(pending.output)
        try:
            # Where there is no file, reading it says what is wrong.
            if file.path.is_file() and _is_unchanged(pending, file.hash()):
                return replace(pending, status="unchanged")
            # Said before the work, too, not only after it.
            if pending.output.exists() and not self._options.may_replace(pending):
                raise AudioError(
                    f"{pending.output}: exists already; go on with an earlier run (--resume), replace it "
                    "(--force), or pass another folder"
                )
            made = file.upscale(self._upscaler, scratch, **self._process_options(on_fraction))
            assert made.report is not None
            return replace(made, output=pending.output, report=replace(made.report, output=pending.output))
        except Exception as error:  # one bad file never stops the run
            scratch.unlink(missing_ok=True)
            is_known = isinstance(error, USER_ERRORS)
            text = explain(error) if is_known else f"unexpected {error!r}; please report it"
            return FileResult(
                pending.input,
                pending.output,
                "failed",
                file.seconds,
                error=text.replace(str(scratch), str(pending.output)),
                details=traceback.format_exc(),
                input_sha256=file.sha256 or None,
            )

    def _process_options(self, on_fraction: Callable[[float], None]) -> dict[str, Any]:
        options, reported_s = self._options, time.monotonic()

        def on_progress(done_s: float, total_s: float | None) -> None:
            nonlocal reported_s
            if total_s and time.monotonic() - reported_s > _REPORT_EVERY_S:
                reported_s = time.monotonic()
                on_fraction(min(1.0, done_s / total_s))

        return {
            "encoding": options.encoding,
            "cutoff_hz": options.cutoff_hz,
            "peak": options.peak,
            "on_progress": on_progress,
        }


def model_sha256(model: str) -> str:
    """Hash of a model's file: what a model is, whatever its name."""
    return sha256(read_model(model)).hexdigest()


def _is_unchanged(pending: FileResult, digest: str) -> bool:
    if digest != pending.input_sha256 or not pending.output.is_file():
        return False
    return file_sha256(pending.output) == pending.output_sha256


def stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file is written; None where there is none (reading it says what is wrong)."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
