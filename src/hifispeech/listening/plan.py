"""Who hears what in which order: seeded, balanced plans, one for each listener. Pure functions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple


class Trial(NamedTuple):
    """One question: an item and the stimuli behind its slots (ABX: A and B; MUSHRA: the sliders)."""

    item: int
    stimuli: tuple[str, ...]


def abx_plan(
    conditions: Sequence[str], pairs: Sequence[tuple[str, str]], repeats: int, seed: int, listener: int
) -> list[Trial]:
    """Every pair on every item, `repeats` times, in an order of the listener's own.

    Which system is A alternates: for each pair, over all items and within each condition, the two orders
    differ by at most one in number; repeats of an item alternate; and listener 2k + 1 hears each question of
    listener 2k with A and B exchanged.

    Args:
        conditions: of each item, by index.
        seed: of the test.
        listener: 0, 1, 2, ... in the order of their arrival.
    """
    shared = random.Random(f"abx {seed} {listener // 2}")
    trials = []
    for pair in pairs:
        items = list(range(len(conditions)))
        shared.shuffle(items)
        items.sort(key=lambda item: conditions[item])  # stable: shuffled within a condition
        offset = shared.randrange(2) + listener
        for repeat in range(repeats):
            for place, item in enumerate(items):
                is_swapped = (place + repeat + offset) % 2
                trials.append(Trial(item, pair[::-1] if is_swapped else pair))
    random.Random(f"abx order {seed} {listener}").shuffle(trials)
    return trials


def mushra_plan(items: int, stimuli: Sequence[str], seed: int, listener: int) -> list[Trial]:
    """Every item once, its stimuli in an order that differs from item to item.

    The orders come from shuffled Latin squares: over each run of `len(stimuli)` questions every stimulus
    stands once at every place.
    """
    rng = random.Random(f"mushra {seed} {listener}")
    order = list(range(items))
    rng.shuffle(order)
    trials: list[Trial] = []
    while len(trials) < items:
        rows = _latin_square(list(stimuli), rng)
        trials += [
            Trial(item, row)
            for item, row in zip(order[len(trials) : len(trials) + len(rows)], rows, strict=False)
        ]
    return trials


def choose_items(conditions: Sequence[str], count: int, seed: int) -> list[int]:
    """`count` items drawn evenly from the conditions, in ascending order.

    Raises:
        ValueError: if there are fewer than `count`, or `count` is below 1.
    """
    if not 1 <= count <= len(conditions):
        raise ValueError(f"items={count} is not possible; pass a number from 1 to {len(conditions)}")
    rng = random.Random(f"items {seed}")
    groups = {
        name: [i for i, other in enumerate(conditions) if other == name] for name in sorted({*conditions})
    }
    for group in groups.values():
        rng.shuffle(group)
    chosen: list[int] = []
    while len(chosen) < count:
        for group in groups.values():
            if group and len(chosen) < count:
                chosen.append(group.pop())
    return sorted(chosen)


def _latin_square(symbols: list[str], rng: random.Random) -> list[tuple[str, ...]]:
    """The cyclic square with its symbols, columns and rows shuffled, so that its order cannot be guessed."""
    size = len(symbols)
    rng.shuffle(symbols)
    columns, rows = list(range(size)), list(range(size))
    rng.shuffle(columns)
    rng.shuffle(rows)
    return [tuple(symbols[(row + column) % size] for column in columns) for row in rows]
