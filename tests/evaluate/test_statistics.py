"""Statistics: closed forms, coverage of the intervals, clusters, published corrections, seeds."""

import itertools
import math

import numpy as np
import pytest

from hifispeech.evaluate import statistics


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    speakers = [str(i) for i in range(40)]
    hits = 0
    for _ in range(100):
        mean = statistics.mean_interval(rng.normal(1, 2, 40).tolist(), speakers)
        hits += mean.low <= 1 <= mean.high
    assert 88 <= hits <= 99  # 95 %, less the little that the percentile bootstrap loses with 40 clips


def test_clips_of_a_speaker_are_no_independent_evidence() -> None:
    """Ten equal clips of each of ten speakers tell as much as one each."""
    values = np.random.default_rng(1).normal(size=10)
    speakers = [f"s{i}" for i in range(10)]
    one = statistics.mean_interval(values.tolist(), speakers)
    ten = statistics.mean_interval(np.repeat(values, 10).tolist(), np.repeat(speakers, 10).tolist())
    assert (ten.mean, ten.low, ten.high) == pytest.approx((one.mean, one.low, one.high))
    assert (ten.count, ten.units) == (100, 10)


def test_few_speakers_make_the_clip_the_unit() -> None:
    assert statistics.unit_of(["a"] * 50 + ["b"] * 50) == "clip"
    assert statistics.unit_of([str(i) for i in range(8)]) == "speaker"
    assert statistics.mean_interval([1.0, 2.0, 3.0], ["a", "a", "b"]).units == 3


def test_same_seed_same_interval() -> None:
    values, speakers = np.random.default_rng(5).normal(size=30).tolist(), ["anna"] * 30
    assert statistics.mean_interval(values, speakers, 3) == statistics.mean_interval(values, speakers, 3)
    assert statistics.mean_interval(values, speakers, 3) != statistics.mean_interval(values, speakers, 4)


def test_infinite_values_have_no_interval() -> None:
    mean = statistics.mean_interval([1.0, math.inf], ["a", "b"])
    assert mean.mean == math.inf and math.isnan(mean.low)
    with pytest.raises(ValueError, match="no values"):
        statistics.mean_interval([], [])


def test_comparison_is_paired_and_uses_common_clips_only() -> None:
    pytest.importorskip("scipy")
    rng = np.random.default_rng(2)
    hard = {f"c{i}": float(x) for i, x in enumerate(rng.normal(0, 10, 20))}
    better = {clip: value - 0.1 - 0.01 * i for i, (clip, value) in enumerate(hard.items())}
    better |= {"only here": -1000.0}
    result = statistics.compare(hard, better, dict.fromkeys(better, "one speaker"))
    assert result.count == 20
    assert result.difference == pytest.approx(0.1 + 0.01 * 9.5)
    assert result.low > 0
    assert result.p == pytest.approx(2 / 2**20)  # all 20 differences of one sign: exact


@pytest.mark.parametrize("values", [[0.3, 0.1, -0.2, 0.0], [1.5, -1, 2, 3, -4, 5, 6]])
def test_signed_rank_test_is_exact(values: list[float]) -> None:
    """All 2^n signs of the ranks, one by one; a difference of zero says nothing."""
    pytest.importorskip("scipy")
    kept = np.array([value for value in values if value])
    ranks = 1 + np.argsort(np.argsort(np.abs(kept)))
    seen = ranks[kept > 0].sum()
    sums = np.array([ranks @ signs for signs in itertools.product((0, 1), repeat=len(kept))])
    expected = min(1, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))
    assert statistics._wilcoxon(np.array(values)) == pytest.approx(expected)


@pytest.mark.parametrize("decimals", [1, 9])
def test_ties_hardly_change_the_signed_rank_test(decimals: int) -> None:
    pytest.importorskip("scipy")
    values = np.random.default_rng(1).normal(0.3, 1, 40)
    p = statistics._wilcoxon(np.round(values, decimals))
    assert p == pytest.approx(statistics._wilcoxon(values), abs=0.01) and 0.001 < p < 0.1


def test_equal_systems_do_not_differ() -> None:
    values = {"a": 1.0, "b": 2.0}
    result = statistics.compare(values, values, {"a": "x", "b": "y"})
    assert (result.difference, result.p) == (0, 1)
    with pytest.raises(ValueError, match="no clip in common"):
        statistics.compare(values, {"c": 1.0}, {})


def test_holm_by_hand() -> None:
    """3 x 0.01, 2 x 0.02 (raised to what is before it), 1 x 0.04."""
    assert statistics.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert statistics.holm([0.9, 0.8]) == [1, 1]
    assert statistics.holm([]) == []
