"""The manifest of a corpus: one row for each input, written in parts while a run goes on.

`manifest/part-*.jsonl` are the rows in the order of their end; where an input has several, the last one
counts. `compact` joins them to one `hifispeech.jsonl`, which is what a folder run writes, too.
"""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from hifispeech.runs.corpus.store import Source, Store
from hifispeech.runs.corpus.worker import Row, record_name
from hifispeech.runs.manifest import DONE, NAME

PARTS = "manifest"
PART_ROWS = 1000
PART_SECONDS = 30.0


class Known(NamedTuple):
    """What an earlier run noted about an input."""

    size: int
    version: str
    result: str | None  # None: it failed


class Journal:
    """Reads what earlier runs did and appends what this one does.

    Args:
        store: the output folder.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._rows: list[Row] = []
        self._written_s = time.monotonic()

    def read(self) -> dict[str, Known]:
        """The last row of each input."""
        known: dict[str, Known] = {}
        for row in self._old_rows():
            result = row["output"] if row["status"] == DONE else None
            known[row["input"]] = Known(row["input_bytes"], row["input_version"], result)
        return known

    def append(self, row: Row) -> None:
        """Note a row; it is on the disk at the latest half a minute or a thousand rows later."""
        self._rows.append(row)
        if len(self._rows) >= PART_ROWS or time.monotonic() - self._written_s > PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are only in memory as a part."""
        if self._rows:
            text = "".join(json.dumps(asdict(row)) + "\n" for row in self._rows)
            self.store.put_text(text, f"{PARTS}/part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl")
        self._rows.clear()
        self._written_s = time.monotonic()

    def compact(self) -> None:
        """Join all parts to one manifest with a row for each input."""
        self.flush()
        last = {row["input"]: number for number, row in enumerate(self._old_rows())}
        local = self.store.work_dir / NAME
        parts = self._parts()
        with local.open("w", encoding="utf-8") as file:
            for number, row in enumerate(self._old_rows()):
                if last[row["input"]] == number:
                    file.write(json.dumps(row) + "\n")
        self.store.put(local, NAME)
        for part in parts:
            self.store.remove(part)

    def _parts(self) -> list[str]:
        return sorted(self.store.names(PARTS))

    def _old_rows(self) -> Iterator[dict[str, Any]]:
        for name in (NAME, *self._parts()):
            for line in self.store.lines(name):
                yield json.loads(line)


def is_done(source: Source, known: Known | None, results: set[str]) -> bool:
    """Whether an input has not changed since its result was made, and that is still there."""
    return (
        known is not None
        and known.result is not None
        and (known.size, known.version) == (source.size, source.version)
        and bool(source.version)
        and {known.result, record_name(known.result)} <= results
    )
