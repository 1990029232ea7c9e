"""Means with intervals and comparisons of systems on the same clips: bootstrap, Wilcoxon, Holm.

Clips of one speaker are alike, so where a set has eight speakers or more the speaker is the unit that is
drawn and compared, else the clip. Everything is seeded: the same rows give the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
MIN_SPEAKERS = 8
CONFIDENCE = 0.95
_EXACT_UP_TO = 50  # differences; beyond, the normal approximation is good to the third decimal


@dataclass(frozen=True)
class Mean:
    """Mean over `count` clips with its 95 % bootstrap interval; `units` (speakers or clips) were drawn."""

    mean: float
    low: float
    high: float
    count: int
    units: int


@dataclass(frozen=True)
class Comparison:
    """First minus second system on the clips both have: mean difference, interval, two-sided p."""

    difference: float
    low: float
    high: float
    p: float
    count: int
    units: int


def unit_of(speakers: Sequence[str]) -> str:
    """What is drawn: "speaker" where there are at least eight, else "clip"."""
    return "speaker" if len(set(speakers)) >= MIN_SPEAKERS else "clip"


def mean_interval(values: Sequence[float], speakers: Sequence[str], seed: int = 0) -> Mean:
    """Mean and percentile bootstrap interval of one value a clip; speakers name the clips' groups.

    A value of infinity makes the mean infinite and the interval NaN.

    Raises:
        ValueError: without values.
    """
    if not len(values):
        raise ValueError("no values to average; pass at least one")
    sums, counts = _by_unit(values, speakers)
    low, high = _interval(sums, counts, seed)
    return Mean(float(np.mean(values)), low, high, len(values), len(sums))


def compare(
    first: Mapping[str, float], second: Mapping[str, float], speakers: Mapping[str, str], seed: int = 0
) -> Comparison:
    """Paired comparison of two systems: clip to value each, on the clips that both have.

    The p value is that of the Wilcoxon signed-rank test on the differences (averaged within a speaker where
    the speaker is the unit); 1 where all differences are zero.

    Raises:
        ValueError: without a common clip.
        ImportError: without SciPy.
    """
    clips = [clip for clip in first if clip in second]
    if not clips:
        raise ValueError("the two systems have no clip in common; score them on the same data")
    differences = [first[clip] - second[clip] for clip in clips]
    sums, counts = _by_unit(differences, [speakers[clip] for clip in clips])
    low, high = _interval(sums, counts, seed)
    return Comparison(float(np.mean(differences)), low, high, _wilcoxon(sums / counts), len(clips), len(sums))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p values that keep the chance of any false claim among them at the level tested."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return [float(p) for p in corrected]


def _by_unit(values: Sequence[float], speakers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of clips of each unit."""
    array = np.asarray(values, np.float64)
    if unit_of(speakers) == "clip":
        return array, np.ones(len(array))
    _, index = np.unique(np.asarray(speakers), return_inverse=True)
    return np.bincount(index, weights=array), np.bincount(index).astype(np.float64)


def _interval(
    sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], seed: int
) -> tuple[float, float]:
    if not np.isfinite(sums).all():
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _wilcoxon(differences: npt.NDArray[np.float64]) -> float:
    """Two-sided p of the signed-rank test without zeros: exact up to 50 differences, the normal approximation
    beyond and where differences are tied.
    """
    differences = differences[np.isfinite(differences) & (differences != 0)]
    if not differences.size:
        return 1.0
    try:
        from scipy.stats import wilcoxon
    except ImportError as error:
        raise ImportError('SciPy is not installed; run: pip install "hifispeech[eval]"') from error
    tied = len(np.unique(np.abs(differences))) < len(differences)
    # Left to itself, SciPy draws all signs of tied differences one by one: seconds for each pair of systems.
    result: Any = wilcoxon(
        differences, method="approx" if tied or len(differences) > _EXACT_UP_TO else "exact"
    )
    return float(result.pvalue)
