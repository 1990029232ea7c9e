"""What the rows of a run add up to: means with intervals, comparisons, failures, costs, the worst clips."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hifispeech.evaluate import statistics
from hifispeech.evaluate.metrics import badness, metric_of
from hifispeech.evaluate.results import Row, value_names

WORST = 10


@dataclass(frozen=True)
class Entry:
    """Mean of one value of one system on one set at one rate; `expected` clips should have had it."""

    set: str
    rate: int
    system: str
    value: str
    mean: statistics.Mean
    expected: int


@dataclass(frozen=True)
class Versus:
    """First minus second system in one value on one set at one rate; `p` is corrected by Holm's method.

    The family of tests is all pairs at all rates of one set and value.
    """

    set: str
    rate: int
    value: str
    first: str
    second: str
    comparison: statistics.Comparison
    p: float


@dataclass(frozen=True)
class Summary:
    """A run in numbers. `costs` has per system `real_time_factor` and `peak_memory_mb` where known.

    `alignment` has per aligned system median, least and most of `delay_samples` and `gain`; `silence` has per
    set how many frames of the truth are digital silence, of how many, and in how many clips.
    """

    sets: list[str]
    rates: list[int]
    systems: list[str]
    values: list[str]
    clips: dict[str, int]
    units: dict[str, str]
    entries: list[Entry]
    comparisons: list[Versus]
    failures: list[Row]
    worst: dict[str, list[Row]]
    costs: dict[str, dict[str, float | None]]
    alignment: dict[str, dict[str, tuple[float, float, float]]]
    silence: dict[str, tuple[int, int, int]]

    def entry(self, set_name: str, rate: int, system: str, value: str) -> Entry | None:
        """The mean asked for, if there is one."""
        return self._index.get((set_name, rate, system, value))

    @cached_property
    def _index(self) -> dict[tuple[str, int, str, str], Entry]:
        return {(e.set, e.rate, e.system, e.value): e for e in self.entries}

    def as_json(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite become their names, as JSON has none."""
        return _plain(asdict(self))


def summarise(
    rows: Sequence[Row],
    *,
    seed: int = 0,
    skipped: Mapping[str, frozenset[str]] | None = None,
    memory_mb: Mapping[str, float | None] | None = None,
) -> Summary:
    """Everything the tables show, from the rows of a run.

    Args:
        skipped: values that were not asked for a clip (by `Row.clip`), such as ViSQOL on every Nth clip only;
            they are not counted as missing.
        memory_mb: peak memory per system, where it was measured apart from the rows.
    """
    sets = list(dict.fromkeys(row.set for row in rows))
    rates = sorted({row.rate for row in rows})
    names = list(dict.fromkeys(row.system for row in rows))
    values = value_names(rows)
    skipped = skipped or {}
    grouped: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.set, row.rate, row.system].append(row)
    entries = [
        entry
        for (set_name, rate, system), group in grouped.items()
        for value in values
        if (entry := _entry(group, set_name, rate, system, value, skipped, seed))
    ]
    speakers = {name: {row.clip: row.speaker for row in rows if row.set == name} for name in sets}
    comparisons = [
        versus
        for set_name, value in itertools.product(sets, values)
        for versus in _comparisons(grouped, speakers[set_name], set_name, rates, names, value, seed)
    ]
    return Summary(
        sets,
        rates,
        names,
        values,
        {name: len(speakers[name]) for name in sets},
        {name: statistics.unit_of(list(speakers[name].values())) for name in sets},
        entries,
        comparisons,
        [row for row in rows if row.error],
        {name: worst_rows([row for row in rows if row.system == name], values) for name in names},
        {name: _cost([row for row in rows if row.system == name], memory_mb, name) for name in names},
        {name: found for name in names if (found := _alignment([r for r in rows if r.system == name]))},
        {name: _silence([row for row in rows if row.set == name]) for name in sets},
    )


def _entry(
    group: Sequence[Row],
    set_name: str,
    rate: int,
    system: str,
    value: str,
    skipped: Mapping[str, frozenset[str]],
    seed: int,
) -> Entry | None:
    having = [row for row in group if value in row.values]
    if not having:
        return None
    mean = statistics.mean_interval(
        [row.values[value] for row in having], [row.speaker for row in having], seed
    )
    expected = sum(metric_of(value) not in skipped.get(row.clip, frozenset()) for row in group)
    return Entry(set_name, rate, system, value, mean, expected)


def _comparisons(
    grouped: Mapping[tuple[str, int, str], Sequence[Row]],
    speakers: Mapping[str, str],
    set_name: str,
    rates: Iterable[int],
    names: Iterable[str],
    value: str,
    seed: int,
) -> list[Versus]:
    found = []
    for rate, (first, second) in itertools.product(rates, itertools.combinations(names, 2)):
        a, b = (
            {row.clip: row.values[value] for row in grouped[set_name, rate, name] if value in row.values}
            if (set_name, rate, name) in grouped
            else {}
            for name in (first, second)
        )
        if a.keys() & b.keys():
            found.append((rate, first, second, statistics.compare(a, b, speakers, seed)))
    corrected = statistics.holm([comparison.p for *_, comparison in found])
    return [
        Versus(set_name, rate, value, first, second, comparison, p)
        for (rate, first, second, comparison), p in zip(found, corrected, strict=True)
    ]


def worst_rows(rows: Sequence[Row], values: Sequence[str], count: int = WORST) -> list[Row]:
    """The clips a system did worst on by the run's first value, worst first; each at its worst rate only."""
    if not values:
        return []
    having = [row for row in rows if values[0] in row.values]
    ranked = sorted(having, key=lambda row: badness(values[0], row.values[values[0]]), reverse=True)
    return list({row.clip: row for row in reversed(ranked)}.values())[::-1][:count]


def _cost(
    rows: Sequence[Row], memory_mb: Mapping[str, float | None] | None, name: str
) -> dict[str, float | None]:
    timed = [row for row in rows if row.facts.get("seconds")]
    seconds = float(np.sum([row.facts["seconds"] for row in timed]))
    factor = float(np.sum([row.facts["duration_s"] for row in timed])) / seconds if seconds else None
    peaks = [row.facts["peak_memory_mb"] for row in rows if "peak_memory_mb" in row.facts]
    peak = max(peaks) if peaks else (memory_mb or {}).get(name)
    return {"real_time_factor": factor, "peak_memory_mb": peak}


def _alignment(rows: Sequence[Row]) -> dict[str, tuple[float, float, float]]:
    """Median, least and most of what alignment found, empty where nothing was aligned."""
    found = {}
    for fact in ("delay_samples", "gain"):
        values = [row.facts[fact] for row in rows if fact in row.facts]
        if values:
            found[fact] = (float(np.median(values)), float(min(values)), float(max(values)))
    return found


def _silence(rows: Sequence[Row]) -> tuple[int, int, int]:
    """Frames of digital silence, all frames, clips with silence; each clip counted once."""
    facts = {row.clip: row.facts for row in rows if "frames" in row.facts}
    silent = [int(found["silent_frames"]) for found in facts.values()]
    return sum(silent), int(sum(f["frames"] for f in facts.values())), sum(count > 0 for count in silent)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
