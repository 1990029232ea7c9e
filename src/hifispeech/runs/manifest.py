"""What became of each file of a folder run: one JSON object a line, appended while the run goes on.

The manifest lies in the folder of the results. Its open file is the lock of the folder, too: the system gives
it back when the process dies, however it dies, so that no stale lock can exist.
"""

import dataclasses
import errno
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar

from hifispeech.errors import AudioError
from hifispeech.files import try_lock

if TYPE_CHECKING:
    from hifispeech.infer.file import FileReport

log = logging.getLogger(__name__)

NAME = "hifispeech.jsonl"
DONE, FAILED = "done", "failed"

EntryType = TypeVar("EntryType", bound="Entry")


@dataclass(frozen=True)
class Entry:
    """What became of one file; one line of the manifest.

    `output` is relative to the folder of the manifest, with "/"; `settings` is what decides the result
    besides the input; `time` is when the work ended (UTC), `seconds` how long it took. `cutoff_hz`,
    `full_band` and `silent` have one value a channel, as in `FileReport`. What a failed file never got to is
    None or empty.

    "done" is written just before the finished output gets its name: after a crash in between there is an
    entry, but no output yet (or an earlier one), which its hash tells.
    """

    output: str
    status: Literal["done", "failed"]
    input: str
    settings: dict[str, object]
    time: str
    seconds: float
    input_sha256: str | None = None
    output_sha256: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    duration_s: float | None = None
    cutoff_hz: tuple[float, ...] = ()
    full_band: tuple[bool, ...] = ()
    silent: tuple[bool, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None

    @classmethod
    def ended(
        cls: type[EntryType],
        output: str,
        input: str,
        settings: dict[str, object],
        seconds: float,
        *,
        input_sha256: str | None = None,
        output_sha256: str | None = None,
        report: "FileReport | None" = None,
        error: str | None = None,
    ) -> EntryType:
        """The entry of a file whose work ends now: with an error it has failed."""
        entry = cls(
            output=output,
            status=DONE if error is None else FAILED,
            input=input,
            settings=settings,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
            input_sha256=input_sha256,
            output_sha256=output_sha256,
            error=error,
        )
        if report is None:
            return entry
        return replace(
            entry,
            sample_rate=report.sample_rate,
            channels=report.channels,
            duration_s=report.duration_s,
            cutoff_hz=report.cutoff_hz,
            full_band=report.full_band,
            silent=report.silent,
            warnings=report.warnings,
        )


_FIELDS = {field.name for field in dataclasses.fields(Entry)}


class Manifest:
    """The manifest of a folder, locked and open for appending; use as a context manager.

    A torn last line, left by a run that was killed, is cut off. `done` has the latest "done" entry of each
    output: what earlier runs made. A failure after it left that output as it was.

    Raises:
        AudioError: another run works on the folder.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.done: dict[str, Entry] = {}

    def __enter__(self) -> "Manifest":
        self._file: FileIO = open(self.path, "a+b", buffering=0)
        try:
            self._lock()
            self._repair()
            for entry in read_manifest(self.path):
                self._note(entry)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()  # and with it goes the lock

    def append(self, entry: Entry) -> None:
        """Add a line, whole or not at all."""
        line = json.dumps(dataclasses.asdict(entry)).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        if (written := self._file.write(line)) != len(line):
            self._file.truncate(end)
            raise OSError(errno.ENOSPC, f"only {written} bytes could be written", str(self.path))
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        if entry.status == DONE:
            self.done[entry.output] = entry

    def _lock(self) -> None:
        try:
            if try_lock(self._file):
                return
        except OSError as error:
            log.warning(
                "%s: cannot be locked (%s); start no second run on this folder", self.path, error.strerror
            )
            return
        raise AudioError(
            f"{self.path.parent}: another run is writing to this folder; wait for it, or pass another output"
        )

    def _repair(self) -> None:
        """Cut off what stands after the last end of a line."""
        size = end = self._file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            self._file.seek(start)
            at = self._file.read(end - start).rfind(b"\n")
            end = start + at + 1 if at >= 0 else start
            if at >= 0:
                break
        if end < size:
            log.warning("%s: the last line is torn (a run was killed); removed", self.path)
            self._file.truncate(end)


def read_manifest(path: Path) -> Iterator[Entry]:
    """The entries of a manifest in the order written; lines that are none are logged and left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _entry(json.loads(line))
            except (ValueError, TypeError, AttributeError) as error:
                log.warning("%s: line %d is no entry (%s); ignored", path, number, error)


def _entry(values: dict[str, object]) -> Entry:
    """Keys of a later version are left out; arrays become tuples again."""
    known = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in values.items()
        if key in _FIELDS
    }
    entry = Entry(**known)  # type: ignore[arg-type]
    if entry.status not in (DONE, FAILED) or not isinstance(entry.output, str):
        raise ValueError(f"status {entry.status!r} of output {entry.output!r}")
    return entry
