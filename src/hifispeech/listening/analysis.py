"""The statistics of listening tests: exact binomial tests, MUSHRA means, post-screening."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hifispeech.evaluate.statistics import CONFIDENCE, holm
from hifispeech.listening.definition import ALL, MID_ANCHOR, REFERENCE

# Post-screening of listeners, ITU-R BS.1534-3, 4.1.2.
HIDDEN_REFERENCE_LEAST = 90  # ratings of the hidden reference below this are counted,
MID_ANCHOR_MOST = 90  # and those of the mid anchor above this;
MISSED_MOST = 0.15  # above this share of the items, either leaves the listener out.
UNCLEAR_FROM = 0.25  # An item whose mid anchor more than this share of the listeners rate so counts for none.


@dataclass(frozen=True)
class Preference:
    """How often `first` was found closer to X than `second`.

    `low` and `high` are the Clopper-Pearson 95 % interval of `share`, `p` the two-sided exact binomial test
    against one half, `p_holm` the same after Holm's correction over the rows it was computed with.
    """

    first: str
    second: str
    condition: str
    wins: int
    total: int
    share: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Score:
    """Ratings of one stimulus: mean with its 95 % t interval (NaN for a single one), median, quartiles."""

    stimulus: str
    condition: str
    count: int
    mean: float
    low: float
    high: float
    median: float
    lower_quartile: float
    upper_quartile: float


@dataclass(frozen=True)
class Rating:
    """One slider of one question."""

    listener: str
    item: int
    condition: str
    stimulus: str
    value: float


@dataclass(frozen=True)
class Missed:
    """Shares of the items in which a listener rated the hidden reference below 90, the mid anchor above 90.

    `mid_anchor` is None where the test has no mid anchor.
    """

    reference: float
    mid_anchor: float | None = None


@dataclass(frozen=True)
class Choice:
    """One ABX answer: of the pair (first, second), whether the first was found closer."""

    first: str
    second: str
    condition: str
    is_first: bool


def binomial(wins: int, total: int) -> tuple[float, float, float]:
    """Two-sided exact p value against one half, and the Clopper-Pearson 95 % interval of the share.

    Raises:
        ValueError: without answers, or for wins outside 0..total.
        ImportError: without SciPy.
    """
    if not 0 <= wins <= total or total < 1:
        raise ValueError(f"{wins} of {total} answers is no result; pass total >= 1 and wins from 0 to total")
    try:
        from scipy.stats import beta
    except ImportError as error:
        raise ImportError('SciPy is not installed; run: pip install "hifispeech[eval]"') from error
    # At one half the distribution is symmetric, so both tails are equal: integers, exact at any size.
    tail = sum(math.comb(total, k) for k in range(max(wins, total - wins), total + 1))
    p = min(1.0, 2 * tail / 2**total)
    alpha = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(alpha, wins, total - wins + 1)) if wins else 0.0
    high = float(beta.ppf(1 - alpha, wins + 1, total - wins)) if wins < total else 1.0
    return p, low, high


def preferences(choices: Sequence[Choice]) -> list[Preference]:
    """One row for each pair over all conditions, then, if there are several, one for each pair and condition.

    Holm's correction is over the rows of the first kind, and separately over those of the second.
    """
    pairs = dict.fromkeys((choice.first, choice.second) for choice in choices)
    conditions = sorted({choice.condition for choice in choices}, key=natural)
    overall = [_count(choices, pair, None) for pair in pairs]
    split = [_count(choices, pair, condition) for pair in pairs for condition in conditions]
    split = [row for row in split if row is not None] if len(conditions) > 1 else []
    return _corrected([row for row in overall if row is not None]) + _corrected(split)


def natural(text: str) -> tuple[float, str]:
    """Sorting key under which 4000 comes before 16000, and both before names."""
    number = re.match(r"\d+(\.\d+)?", text)
    return (float(number[0]) if number else math.inf, text)


def screen(ratings: Sequence[Rating]) -> dict[str, Missed]:
    """Listeners to leave out by the post-screening of BS.1534-3, with their shares.

    They rated the hidden reference below 90, or the mid anchor (7 kHz) above 90, for more than 15 % of the
    items. An item whose mid anchor more than a quarter of the listeners rated above 90 was hardly degraded by
    it: it counts against nobody. So the second rule needs four listeners, and a mid anchor.
    """
    reference: dict[str, list[bool]] = {}
    anchor: dict[int, dict[str, bool]] = {}  # by item and listener
    for rating in ratings:
        if rating.stimulus == REFERENCE:
            reference.setdefault(rating.listener, []).append(rating.value < HIDDEN_REFERENCE_LEAST)
        elif rating.stimulus == MID_ANCHOR:
            anchor.setdefault(rating.item, {})[rating.listener] = rating.value > MID_ANCHOR_MOST
    unclear = {item for item, high in anchor.items() if sum(high.values()) > UNCLEAR_FROM * len(high)}
    found = {}
    for listener, below in reference.items():
        above = [high[listener] and item not in unclear for item, high in anchor.items() if listener in high]
        missed = Missed(_share(below), _share(above) if above else None)
        if missed.reference > MISSED_MOST or (missed.mid_anchor or 0) > MISSED_MOST:
            found[listener] = missed
    return found


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def scores(ratings: Sequence[Rating], stimuli: Sequence[str]) -> list[Score]:
    """One row for each stimulus over all conditions, then, if there are several, one for each of both."""
    conditions = sorted({rating.condition for rating in ratings}, key=natural)
    groups: list[tuple[str, Sequence[Rating]]] = [(ALL, ratings)]
    if len(conditions) > 1:
        groups += [(name, [rating for rating in ratings if rating.condition == name]) for name in conditions]
    rows = []
    for condition, members in groups:
        for stimulus in stimuli:
            values = [rating.value for rating in members if rating.stimulus == stimulus]
            if values:
                rows.append(score(stimulus, condition, values))
    return rows


def score(stimulus: str, condition: str, values: Sequence[float]) -> Score:
    """Describe the ratings of one stimulus.

    Raises:
        ImportError: without SciPy.
    """
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ImportError('SciPy is not installed; run: pip install "hifispeech[eval]"') from error
    array = np.asarray(values, np.float64)
    mean, half = float(array.mean()), math.nan
    if len(array) > 1:
        half = float(t.ppf(0.5 + CONFIDENCE / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    lower, median, upper = (float(q) for q in np.quantile(array, [0.25, 0.5, 0.75]))
    return Score(stimulus, condition, len(array), mean, mean - half, mean + half, median, lower, upper)


def by_condition(rows: Sequence[Preference]) -> Mapping[tuple[str, str], list[Preference]]:
    """The rows to draw for each pair: its conditions where there are several, else the one over all."""
    drawn: dict[tuple[str, str], list[Preference]] = {}
    for row in rows:
        drawn.setdefault((row.first, row.second), []).append(row)
    return {pair: [row for row in group if row.condition != ALL] or group for pair, group in drawn.items()}


def _count(choices: Sequence[Choice], pair: tuple[str, str], condition: str | None) -> Preference | None:
    """The row of a pair, over all conditions if None; None without answers. p_holm is not corrected yet."""
    won = [
        choice.is_first
        for choice in choices
        if (choice.first, choice.second) == pair and condition in (None, choice.condition)
    ]
    if not won:
        return None
    wins, total = sum(won), len(won)
    p, low, high = binomial(wins, total)
    return Preference(*pair, condition or ALL, wins, total, wins / total, low, high, p, p)


def _corrected(rows: list[Preference]) -> list[Preference]:
    corrected = holm([row.p for row in rows])
    return [Preference(**{**vars(row), "p_holm": p}) for row, p in zip(rows, corrected, strict=True)]
