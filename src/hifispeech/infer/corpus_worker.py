"""The work on one file of a corpus, wherever the worker runs; knows nothing of Ray.

Every result is named by the content of its input: `audio/3f/3f9a....flac`, its row of the manifest beside it
as `.json`. The row appears after the audio and is what counts as done. So a file is upscaled once however
often the run or a worker is killed, and files of equal content share one result.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

from hifispeech.errors import AudioError, explain

from .corpus_store import Source, Store, open_url, protocol_of
from .manifest import DONE, FAILED, Entry, file_sha256
from .upsampler import FileReport, Upscaler

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


class CorpusWorker:
    """Upscales single files of a corpus into a `Store`.

    Args:
        settings: of the run.
        store: the output folder.
        upscaler: the model, loaded once for all files.
        begin: called with the path of each file before the work; returns how often it was begun, not ended.
        end: called with the path after the work.
    """

    def __init__(
        self,
        settings: CorpusSettings,
        store: Store,
        upscaler: Upscaler,
        begin: Callable[[str], int] = lambda path: 1,
        end: Callable[[str], None] = lambda path: None,
    ) -> None:
        self.settings, self.store, self.upscaler = settings, store, upscaler
        self.begin, self.end = begin, end

    def work(self, source: Source) -> Row:
        """Upscale one file unless that is done; returns its row of the manifest, also when it fails."""
        started = time.perf_counter()
        try:
            starts = self.begin(source.path)
            if starts > MAX_STARTS:
                raise AudioError(
                    f"{source.path}: its worker was killed {MAX_STARTS} times while at it; "
                    "it may need more memory than there is, or break the decoder; try it alone"
                )
            with self._local(source.path) as path:
                row = self._result(path)
        except Exception as error:  # whatever a file or a store comes up with is one failed file, not the end
            text = explain(error).replace(str(self._copy_of(source.path)), source.path)
            row = Row(
                output="",
                status=FAILED,
                input=source.path,
                settings=asdict(self.settings),
                time=_now(),
                seconds=round(time.perf_counter() - started, 3),
                error=text if source.path in text else f"{source.path}: {text}",
            )
        self.end(source.path)
        return dataclasses.replace(
            row, input=source.path, input_bytes=source.size, input_version=source.version
        )

    @contextmanager
    def _local(self, path: str) -> Iterator[Path]:
        """The file itself, or a copy of a remote one that is removed after the work."""
        fs, remote = open_url(path)
        if protocol_of(fs) == "file":
            yield Path(remote)
            return
        copy = self._copy_of(path)
        try:
            fs.get_file(remote, str(copy))
            yield copy
        finally:
            copy.unlink(missing_ok=True)

    def _copy_of(self, path: str) -> Path:
        return self.store.work_dir / f"input{PurePosixPath(path).suffix}"

    def _result(self, path: Path) -> Row:
        """The row of the result for a local file, made now or found."""
        digest = file_sha256(path)
        name = result_name(digest, self.settings.file_type)
        text = self.store.text(record_name(name))
        if text is not None and self.store.has(name):
            return _row_of(text)
        started = time.perf_counter()
        target = self.store.work_dir / PurePosixPath(name).name
        report = self.upscaler.process_file(
            path,
            target,
            force=True,
            encoding=self.settings.encoding,
            cutoff_hz=self.settings.cutoff_hz,
            peak=self.settings.peak,
        )
        row = self._row(report, name, digest, time.perf_counter() - started)
        self.store.put(target, name)
        self.store.put_text(json.dumps(asdict(row)), record_name(name))
        return row

    def _row(self, report: FileReport, name: str, digest: str, seconds: float) -> Row:
        return Row(
            output=name,
            status=DONE,
            input=str(report.input),
            settings=asdict(self.settings),
            time=_now(),
            seconds=round(seconds, 3),
            input_sha256=digest,
            output_sha256=file_sha256(report.output),
            sample_rate=report.sample_rate,
            channels=report.channels,
            duration_s=report.duration_s,
            cutoff_hz=report.cutoff_hz,
            full_band=report.full_band,
            silent=report.silent,
            warnings=report.warnings,
        )


def _row_of(text: str) -> Row:
    """The row in a record; keys of a later version are left out."""
    known = {field.name for field in dataclasses.fields(Row)}
    return Row(**{key: value for key, value in json.loads(text).items() if key in known})


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
