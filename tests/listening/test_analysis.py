"""Statistics against closed forms and published values."""

import math

import pytest

from hifispeech.listening.analysis import (
    Choice,
    Missed,
    Preference,
    Rating,
    binomial,
    by_condition,
    natural,
    preferences,
    score,
    scores,
    screen,
)


@pytest.mark.parametrize("total", [1, 2, 5, 10, 40, 2000])
def test_binomial_closed_forms(total: int) -> None:
    """All answers one way: p = 2 * 0.5^n, and the interval ends at (alpha/2)^(1/n)."""
    p, low, high = binomial(total, total)
    assert p == pytest.approx(min(1.0, 2 * 0.5**total))
    assert (low, high) == (pytest.approx(0.025 ** (1 / total)), 1.0)
    p_none, low_none, high_none = binomial(0, total)
    assert (p_none, low_none, high_none) == (p, 0.0, pytest.approx(1 - 0.025 ** (1 / total)))


def test_binomial_known_values() -> None:
    """R: binom.test(7, 10), binom.test(682, 925) against one half; Clopper and Pearson's interval."""
    p, low, high = binomial(7, 10)
    assert p == pytest.approx(0.34375)  # 2 * (120 + 45 + 10 + 1) / 1024
    assert (low, high) == (pytest.approx(0.3475471, abs=1e-7), pytest.approx(0.9332605, abs=1e-7))
    assert binomial(5, 10)[0] == 1.0
    p, low, high = binomial(60, 100)
    assert p == pytest.approx(0.05688793)
    assert (low, high) == (pytest.approx(0.4972092, abs=1e-7), pytest.approx(0.6967052, abs=1e-7))


@pytest.mark.parametrize(("wins", "total"), [(13, 40), (3, 7), (99, 200)])
def test_interval_is_exact(wins: int, total: int) -> None:
    """At each end of the interval the tail holds 2.5 %: the definition of Clopper and Pearson."""
    _, low, high = binomial(wins, total)

    def tail(share: float, counts: range) -> float:
        return sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in counts)

    assert tail(low, range(wins, total + 1)) == pytest.approx(0.025)
    assert tail(high, range(wins + 1)) == pytest.approx(0.025)


def test_binomial_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for total in (1, 9, 30):
        for wins in range(total + 1):
            theirs = stats.binomtest(wins, total)
            interval = theirs.proportion_ci(method="exact")
            assert binomial(wins, total) == pytest.approx((theirs.pvalue, interval.low, interval.high))


@pytest.mark.parametrize(("wins", "total"), [(0, 0), (3, 2), (-1, 4)])
def test_impossible_counts_are_refused(wins: int, total: int) -> None:
    with pytest.raises(ValueError, match="is no result"):
        binomial(wins, total)


def answers(first: str, second: str, condition: str, wins: int, total: int) -> list[Choice]:
    return [Choice(first, second, condition, k < wins) for k in range(total)]


def test_preferences_by_pair_and_condition() -> None:
    choices = answers("a", "b", "16000", 9, 10) + answers("a", "b", "4000", 5, 10)
    choices += answers("a", "c", "4000", 10, 10)
    rows = preferences(choices)
    assert [(row.second, row.condition, row.wins, row.total) for row in rows] == [
        ("b", "all", 14, 20),
        ("c", "all", 10, 10),
        ("b", "4000", 5, 10),
        ("b", "16000", 9, 10),
        ("c", "4000", 10, 10),
    ]
    p_b, p_c = binomial(14, 20)[0], binomial(10, 10)[0]
    assert rows[0].p_holm == pytest.approx(p_b)  # the larger of two: times 1
    assert rows[1].p_holm == pytest.approx(2 * p_c)  # the smaller: times 2
    assert rows[4].p_holm == pytest.approx(3 * p_c)
    assert rows[3].p_holm == pytest.approx(2 * binomial(9, 10)[0])
    assert rows[2].p_holm == 1.0
    drawn = by_condition(rows)
    assert [row.condition for row in drawn["a", "b"]] == ["4000", "16000"]


def test_one_condition_has_no_rows_of_its_own() -> None:
    rows = preferences(answers("a", "b", "all", 3, 4))
    assert rows == [Preference("a", "b", "all", 3, 4, 0.75, *binomial(3, 4)[1:], 0.625, 0.625)]
    assert by_condition(rows) == {("a", "b"): rows}


def test_conditions_sort_by_their_number() -> None:
    assert sorted(["song", "16000", "8k", "4000"], key=natural) == ["8k", "4000", "16000", "song"]


def ratings(listener: str, values: list[float], stimulus: str = "reference") -> list[Rating]:
    return [Rating(listener, item, "all", stimulus, value) for item, value in enumerate(values)]


def test_post_screening_of_bs_1534() -> None:
    """Out: hidden reference below 90 for more than 15 % of the items. 3 of 20 is 15 %, so still in."""
    good, three, four = [100.0] * 20, [89.0] * 3 + [90.0] * 17, [89.0] * 4 + [95.0] * 16
    found = screen(ratings("good", good) + ratings("three", three) + ratings("four", four))
    assert found == {"four": Missed(0.2)}
    assert screen(ratings("one", [89.0])) == {"one": Missed(1.0)}
    assert screen(ratings("low anchor", [10.0], "anchor 3.5 kHz")) == {}


def both(listener: str, mid_anchor: list[float], anchor: str = "anchor 7 kHz") -> list[Rating]:
    """Ratings of someone who always finds the hidden reference."""
    return ratings(listener, [100.0] * len(mid_anchor)) + ratings(listener, mid_anchor, anchor)


def test_post_screening_by_the_mid_anchor() -> None:
    """Out: the 7 kHz anchor above 90 for more than 15 % of the items. 90 is not above, 3 of 20 is 15 %."""
    three, four = [91.0] * 3 + [90.0] * 17, [90.0] * 16 + [91.0] * 4
    crowd = [rating for name in "abcdef" for rating in both(name, [60.0] * 20)]
    assert screen(crowd + both("three", three) + both("four", four)) == {"four": Missed(0.0, 0.2)}
    low = [rating for name in "abcdef" for rating in both(name, [60.0] * 20, "anchor 3.5 kHz")]
    assert screen(low + both("high", [100.0] * 20, "anchor 3.5 kHz")) == {}


def test_items_that_the_mid_anchor_hardly_degrades_count_against_nobody() -> None:
    """A quarter of the listeners above 90 is not more than a quarter; one more, and the item is unclear."""
    crowd = [rating for name in "abc" for rating in both(name, [60.0] * 4)]
    high = both("high", [95.0] + [60.0] * 3)
    assert screen(crowd + high) == {"high": Missed(0.0, 0.25)}
    assert screen(crowd + high + both("other", [95.0] + [60.0] * 3)) == {}
    elsewhere = both("other", [60.0, 95.0, 60.0, 60.0])
    assert screen(crowd + high + elsewhere) == {"high": Missed(0.0, 0.25), "other": Missed(0.0, 0.25)}
    assert screen(both("alone", [100.0] * 4)) == {}


def test_mean_interval_is_student_t() -> None:
    """For 1, 2, 3, 4, 5: mean 3, s = sqrt(2.5), t(0.975, 4) = 2.776445."""
    found = score("a", "all", [1, 2, 3, 4, 5])
    assert found.mean == 3
    assert found.high - found.mean == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert (found.median, found.lower_quartile, found.upper_quartile) == (3, 2, 4)
    assert math.isnan(score("a", "all", [7]).low)


def test_scores_by_stimulus_and_condition() -> None:
    rows = [Rating("anna", item, condition, stimulus, value)
            for item, (condition, stimulus, value) in enumerate(
                [("4000", "a", 10), ("16000", "a", 30), ("4000", "b", 50), ("16000", "b", 70)])]  # fmt: skip
    found = scores(rows, ["b", "a"])
    assert [(row.stimulus, row.condition, row.mean) for row in found] == [
        ("b", "all", 60),
        ("a", "all", 20),
        ("b", "4000", 50),
        ("a", "4000", 10),
        ("b", "16000", 70),
        ("a", "16000", 30),
    ]
