"""Scores of a run, one row a clip, input rate and system, and the CSV file that keeps them."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hifispeech.errors import AudioError
from hifispeech.files import write_atomic

KEYS = ("set", "file", "speaker", "rate", "system")
FACTS = ("duration_s", "seconds", "peak_memory_mb", "delay_samples", "gain", "silent_frames", "frames")


@dataclass(frozen=True)
class Row:
    """What one system made of one clip at one input rate.

    `values` holds what could be measured, `facts` some of `FACTS` (length scored, what the computing took,
    what `--align` found, how many frames of the truth are digital silence), `notes` what is worth
    knowing, `error` what went wrong ("" for nothing).
    """

    set: str
    file: str
    speaker: str
    rate: int
    system: str
    values: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: str = ""
    error: str = ""

    @property
    def clip(self) -> str:
        """Set and file: unique in a run."""
        return f"{self.set}/{self.file}"


def value_names(rows: Iterable[Row]) -> list[str]:
    """All names of values, in the order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def failure_lines(rows: Iterable[Row], rates: Sequence[int], systems: Sequence[str]) -> list[str]:
    """What went wrong, a line a clip and reason; what all rates or systems of a run share is said once."""
    groups: dict[tuple[str, str], dict[str, list[int]]] = {}
    for row in rows:
        if row.error:
            groups.setdefault((row.clip, row.error), {}).setdefault(row.system, []).append(row.rate)
    lines = []
    for (clip, error), by_system in groups.items():
        alike: dict[tuple[int, ...], list[str]] = {}
        for system, having in by_system.items():
            alike.setdefault(tuple(having), []).append(system)
        for having, names in alike.items():
            every_rate = 1 < len(rates) == len(having)
            where = "all rates" if every_rate else ", ".join(f"{rate / 1000:g} kHz" for rate in having)
            who = "all systems" if 1 < len(systems) == len(names) else ", ".join(names)
            lines.append(f"{clip}, {where}, {who}: {error}")
    return lines


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the CSV; the file appears whole."""
    names = value_names(rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*KEYS, *names, *FACTS, "notes", "error"])
    for row in rows:
        keys = [getattr(row, key) for key in KEYS]
        values = [_text(row.values.get(name)) for name in names]
        writer.writerow([*keys, *values, *(_text(row.facts.get(f)) for f in FACTS), row.notes, row.error])
    write_atomic(path, text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV written by `write_rows`.

    Raises:
        AudioError: missing, or not such a file.
    """
    if not path.is_file():
        raise AudioError(f"{path}: no such file; pass the folder that 'hifispeech evaluate' wrote")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_row(cells) for cells in csv.DictReader(file)]
    except (KeyError, ValueError, TypeError) as error:
        raise AudioError(f"{path}: not a table of scores ({error}); run the evaluation again") from error


def _row(cells: dict[str, str]) -> Row:
    names = [name for name in cells if name not in (*KEYS, *FACTS, "notes", "error")]
    return Row(
        cells["set"],
        cells["file"],
        cells["speaker"],
        int(cells["rate"]),
        cells["system"],
        {name: float(cells[name]) for name in names if cells[name]},
        {name: float(cells[name]) for name in FACTS if cells[name]},
        cells["notes"],
        cells["error"],
    )


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
