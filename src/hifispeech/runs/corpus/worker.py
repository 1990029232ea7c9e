"""The work on the files of a corpus, wherever the worker runs; knows nothing of Ray.

Every result is named by the content of its input: `audio/3f/3f9a....flac`, its row of the manifest beside it
as `.json`. The row appears after the audio and is what counts as done. So a file is upscaled once however
often the run or a worker is killed, and files of equal content share one result.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hifispeech.errors import AudioError, explain
from hifispeech.infer.file import FileReport
from hifispeech.infer.upscaler import Upscaler
from hifispeech.runs.corpus.store import Source, Store, open_url, protocol_of
from hifispeech.runs.manifest import Entry
from hifispeech.runs.one_file import FileResult, OneFile

if TYPE_CHECKING:
    from hifispeech.infer.batch.upscaler import BatchUpscaler

log = logging.getLogger(__name__)

MAX_STARTS = 3  # of one file: it may take its worker down (memory, a decoder's crash), but not the run


@dataclass(frozen=True)
class Row(Entry):
    """One line of the manifest of a corpus: that of a folder, and how to see that an input has not changed.

    `output` is below the output folder, empty where there is none.
    """

    input_bytes: int = 0
    input_version: str = ""


@dataclass(frozen=True)
class CorpusSettings:
    """What decides about the samples of the results; one output folder has one of them.

    `cutoff_hz` is measured for each file where it is None; `encoding` None keeps the precision of the input.
    """

    model: str
    model_sha256: str
    file_type: str = "flac"
    encoding: str | None = None
    cutoff_hz: float | None = None
    peak: str = "limit"


def result_name(digest: str, file_type: str) -> str:
    """Where the result of an input with this SHA-256 lies below the output folder."""
    return f"audio/{digest[:2]}/{digest}.{file_type}"


def record_name(result: str) -> str:
    """Where the record of a result lies: beside it."""
    return str(PurePosixPath(result).with_suffix(".json"))


class Ledger:
    """Counts how often the work on a file was begun and not ended; an actor of its own, outlives workers."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()

    def begin(self, path: str) -> int:
        """Count a start; returns how many of this file have not ended, with this one."""
        self.starts[path] += 1
        return self.starts[path]

    def begun(self, paths: Sequence[str]) -> list[bool]:
        """Whether files were begun, and have not ended: a worker died at them, or at one of their batch."""
        return [self.starts[path] > 0 for path in paths]

    def end(self, path: str) -> None:
        """Forget the starts of a file."""
        del self.starts[path]


class _Input(OneFile):
    """A file that is worked on: the file itself, or a copy of a remote one."""

    def __init__(self, source: Source, path: Path, *, is_copy: bool) -> None:
        super().__init__(path)
        self.source, self.is_copy = source, is_copy

    def discard(self) -> None:
        """Remove the copy, never the file itself."""
        if self.is_copy:
            self.path.unlink(missing_ok=True)


class CorpusWorker:
    """Upscales files of a corpus into a `Store`.

    Args:
        settings: of the run.
        store: the output folder.
        upscaler: the model, loaded once for all files.
        batch: the same model for many files at a time, on GPUs; without it they go one after the other.
        ledger: of all workers of the run.
    """

    def __init__(
        self,
        settings: CorpusSettings,
        store: Store,
        upscaler: Upscaler,
        batch: "BatchUpscaler | None" = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.settings, self.store, self.upscaler = settings, store, upscaler
        self.batch, self.ledger = batch, ledger or Ledger()

    def work_all(self, sources: Sequence[Source]) -> Iterator[Row]:
        """Upscale files, together where there is a `batch`; yields their rows as they end.

        Those that a worker may have died at go alone, after the others, so that the one to blame is found.
        So do those that are too long for a batch, of the content of another one, or left over from a batch
        that failed as a whole, for lack of memory perhaps.
        """
        ended: set[str] = set()
        if self.batch is not None:
            begun = self.ledger.begun([source.path for source in sources])
            fresh = [source for source, was_begun in zip(sources, begun, strict=True) if not was_begun]
            for row in self._together(self.batch, fresh):
                ended.add(row.input)
                yield row
            for source in fresh:
                if source.path not in ended:
                    self.ledger.end(source.path)  # nobody died at it
        for source in sources:
            if source.path not in ended:
                yield self.work(source)

    def work(self, source: Source) -> Row:
        """Upscale one file unless that is done; returns its row of the manifest, also when it fails."""
        started_s = time.perf_counter()
        try:
            starts = self.ledger.begin(source.path)
            if starts > MAX_STARTS:
                raise AudioError(
                    f"{source.path}: its worker was killed {MAX_STARTS} times while at it; "
                    "it may need more memory than there is, or break the decoder; try it alone"
                )
            row = self._alone(self._taken_in(source))
        except Exception as error:  # whatever a file or a store comes up with is one failed file, not the end
            row = self._failed(source, error, time.perf_counter() - started_s)
        return self._ended(source, row)

    def _alone(self, file: _Input) -> Row:
        """The row of the result, made now or found."""
        try:
            found = self._found(file)
            if found is not None:
                return found
            return self._stored(file, file.upscale(self.upscaler, self._target(file), **self._options()))
        finally:
            file.discard()

    def _together(self, batch: "BatchUpscaler", sources: Sequence[Source]) -> Iterator[Row]:
        """The rows of the files that a batch can be made with; the others are not ended."""
        from hifispeech.infer.batch.files import FileJob, TooLongError, upscale_files

        files: dict[str, _Input] = {}  # by their hash
        try:
            for source in sources:
                row = self._begun(source, files)
                if row is not None:
                    yield self._ended(source, row)
            inputs = list(files.values())
            jobs = [FileJob(file.path, self._target(file)) for file in inputs]
            for number, end in upscale_files(batch, jobs, **self._options()):
                if not isinstance(end, TooLongError):
                    yield self._ended(inputs[number].source, self._concluded(inputs[number], end))
        except Exception as error:
            log.warning("a batch failed (%s); its files go one by one", explain(error))
        finally:
            for file in files.values():
                file.discard()

    def _begun(self, source: Source, files: dict[str, _Input]) -> Row | None:
        """Add a file to those of a batch, unless one of its content is there; its row if that is all."""
        started_s = time.perf_counter()
        try:
            self.ledger.begin(source.path)
            file = self._taken_in(source)
            row = self._found(file)
            if row is None and file.sha256 not in files:
                files[file.sha256] = file
            else:
                file.discard()
            return row
        except Exception as error:
            return self._failed(source, error, time.perf_counter() - started_s)

    def _concluded(self, file: _Input, end: FileReport | Exception) -> Row:
        """The row of a file that a batch is done with."""
        try:
            if isinstance(end, Exception):
                raise end
            return self._stored(file, file.finish(end))
        except Exception as error:
            return self._failed(file.source, error, file.seconds)

    def _taken_in(self, source: Source) -> _Input:
        """Hash the file itself, or a copy of a remote one."""
        fs, remote = open_url(source.path)
        if protocol_of(fs) == "file":
            file = _Input(source, Path(remote), is_copy=False)
        else:
            file = _Input(source, self._copy_of(source.path), is_copy=True)
        try:
            if file.is_copy:
                fs.get_file(remote, str(file.path))
            file.hash()
        except Exception:
            file.discard()
            raise
        return file

    def _copy_of(self, path: str) -> Path:
        name = hashlib.sha256(path.encode()).hexdigest()[:16]
        return self.store.work_dir / f"input-{name}{PurePosixPath(path).suffix}"

    def _options(self) -> dict[str, Any]:
        chosen = self.settings
        return {"encoding": chosen.encoding, "cutoff_hz": chosen.cutoff_hz, "peak": chosen.peak}

    def _name(self, file: _Input) -> str:
        return result_name(file.sha256, self.settings.file_type)

    def _target(self, file: _Input) -> Path:
        return self.store.work_dir / PurePosixPath(self._name(file)).name

    def _found(self, file: _Input) -> Row | None:
        """The row of a result that is there."""
        text = self.store.text(record_name(self._name(file)))
        return _row_of(text) if text is not None and self.store.has(self._name(file)) else None

    def _stored(self, file: _Input, result: FileResult) -> Row:
        """Hand the written result to the store, and then its row."""
        name = self._name(file)
        row = result.entry(Row, name, asdict(self.settings), input=file.source.path)
        self.store.put(result.output, name)
        self.store.put_text(json.dumps(asdict(row)), record_name(name))
        return row

    def _failed(self, source: Source, error: Exception, seconds: float) -> Row:
        """The row of a file that failed; a copy of it goes by the name of the file."""
        text = explain(error).replace(str(self._copy_of(source.path)), source.path)
        text = text if source.path in text else f"{source.path}: {text}"
        return Row.ended("", source.path, asdict(self.settings), seconds, error=text)

    def _ended(self, source: Source, row: Row) -> Row:
        """Note the end of the work on a file; a row that was found gets its name."""
        self.ledger.end(source.path)
        return dataclasses.replace(
            row, input=source.path, input_bytes=source.size, input_version=source.version
        )


def _row_of(text: str) -> Row:
    """The row in a record; keys of a later version are left out."""
    known = {field.name for field in dataclasses.fields(Row)}
    return Row(**{key: value for key, value in json.loads(text).items() if key in known})
