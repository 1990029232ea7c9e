"""Plans: balanced, seeded, different for every listener."""

from collections import Counter
from itertools import combinations

import pytest

from hifispeech.listening.plan import Trial, abx_plan, choose_items, mushra_plan

SYSTEMS = ("quartz", "basalt", "mica")
PAIRS = list(combinations(SYSTEMS, 2))
CONDITIONS = ["4000"] * 5 + ["8000"] * 6 + ["16000"] * 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_abx_asks_every_pair_on_every_item(seed: int, repeats: int) -> None:
    plan = abx_plan(CONDITIONS, PAIRS, repeats, seed, 3)
    asked = Counter((trial.item, frozenset(trial.stimuli)) for trial in plan)
    assert asked == {(item, frozenset(pair)): repeats for item in range(len(CONDITIONS)) for pair in PAIRS}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("listener", range(4))
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_abx_is_balanced(seed: int, listener: int, repeats: int) -> None:
    """A and B are dealt evenly: for each pair, and for each pair within each condition and repeat."""
    plan = abx_plan(CONDITIONS, PAIRS, repeats, seed, listener)
    for pair in PAIRS:
        as_a = [trial for trial in plan if trial.stimuli == pair]
        as_b = [trial for trial in plan if trial.stimuli == pair[::-1]]
        assert abs(len(as_a) - len(as_b)) <= 1
        for condition in set(CONDITIONS):
            counts = [sum(CONDITIONS[trial.item] == condition for trial in part) for part in (as_a, as_b)]
            assert abs(counts[0] - counts[1]) <= 1
        if repeats == 2:  # once each way
            assert Counter(trial.item for trial in as_a) == Counter(trial.item for trial in as_b)


@pytest.mark.parametrize("seed", range(5))
def test_two_listeners_are_mirrored(seed: int) -> None:
    first, second = (abx_plan(CONDITIONS, PAIRS, 1, seed, listener) for listener in (4, 5))
    assert sorted(first) == sorted(Trial(item, stimuli[::-1]) for item, stimuli in second)
    assert [trial.item for trial in first] != [trial.item for trial in second]


def test_order_of_abx_is_not_predictable_from_the_place() -> None:
    """Over many listeners each item comes at each place, and A is the first system half the time there."""
    plans = [abx_plan(["all"] * 6, PAIRS[:1], 1, 0, listener) for listener in range(600)]
    for place in range(6):
        items = Counter(plan[place].item for plan in plans)
        swapped = sum(plan[place].stimuli != PAIRS[0] for plan in plans)
        assert all(60 < items[item] < 140 for item in range(6))  # 100 expected, 9 is a standard deviation
        assert 240 < swapped < 360


def test_plans_are_seeded() -> None:
    assert abx_plan(CONDITIONS, PAIRS, 2, 7, 1) == abx_plan(CONDITIONS, PAIRS, 2, 7, 1)
    assert abx_plan(CONDITIONS, PAIRS, 2, 7, 1) != abx_plan(CONDITIONS, PAIRS, 2, 8, 1)
    assert mushra_plan(9, SYSTEMS, 7, 1) == mushra_plan(9, SYSTEMS, 7, 1)
    assert mushra_plan(9, SYSTEMS, 7, 1) != mushra_plan(9, SYSTEMS, 7, 2)


@pytest.mark.parametrize("items", [1, 3, 4, 8, 10])
@pytest.mark.parametrize("listener", range(3))
def test_mushra_is_balanced(items: int, listener: int) -> None:
    """Every item once with all stimuli; each stimulus stands at each place equally often, within one."""
    stimuli = ("reference", *SYSTEMS)
    plan = mushra_plan(items, stimuli, 0, listener)
    assert sorted(trial.item for trial in plan) == list(range(items))
    assert all(sorted(trial.stimuli) == sorted(stimuli) for trial in plan)
    places = Counter((place, name) for trial in plan for place, name in enumerate(trial.stimuli))
    counts = [places[place, name] for place in range(len(stimuli)) for name in stimuli]
    assert max(counts) - min(counts) <= 1


def test_mushra_orders_do_not_follow_one_pattern() -> None:
    """Which stimulus stands below which differs between listeners: all twelve neighbours occur."""
    stimuli = ("reference", *SYSTEMS)
    plans = [mushra_plan(4, stimuli, 0, listener) for listener in range(40)]
    below = {trial.stimuli[:2] for plan in plans for trial in plan}
    assert len(below) == 12


def test_items_are_drawn_evenly_and_seeded() -> None:
    chosen = choose_items(CONDITIONS, 9, 0)
    assert chosen == sorted(set(chosen)) == choose_items(CONDITIONS, 9, 0)
    assert Counter(CONDITIONS[item] for item in chosen) == {"4000": 3, "8000": 3, "16000": 3}
    assert len({tuple(choose_items(CONDITIONS, 9, seed)) for seed in range(5)}) > 1
    assert choose_items(CONDITIONS, 14, 3) == list(range(14))
    with pytest.raises(ValueError, match="from 1 to 14"):
        choose_items(CONDITIONS, 15, 0)
