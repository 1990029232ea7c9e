"""Pictures of results (matplotlib, from the `eval` extra)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hifispeech.errors import AudioError
from hifispeech.evaluate.report.figures import AbxBar, abx_bars
from hifispeech.evaluate.report.plots import matplotlib_module
from hifispeech.listening.analysis import Preference, Score, by_condition
from hifispeech.listening.definition import ALL

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def abx_figure(rows: Sequence[Preference]) -> Figure:
    """The bars of Fig. 5 of the paper: each pair, by condition where there are several.

    Raises:
        ImportError: without matplotlib.
    """
    drawn = by_condition(rows)
    bars = [
        AbxBar(
            "all items" if row.condition == ALL else row.condition,
            *pair,
            row.wins,
            row.total,
            row.low,
            row.high,
        )
        for pair, group in drawn.items()
        for row in group
    ]
    return abx_bars(bars)


def mushra_figure(rows: Sequence[Score]) -> Figure:
    """Mean ratings with 95 % intervals: one group a condition, one mark a stimulus, on the scale of BS.1534.

    Raises:
        AudioError: without rows.
        ImportError: without matplotlib.
    """
    if not rows:
        raise AudioError("no ratings to plot; at least one listener must be left after the screening")
    conditions = [name for name in dict.fromkeys(row.condition for row in rows) if name != ALL] or [ALL]
    stimuli = list(dict.fromkeys(row.stimulus for row in rows))
    figure: Figure = matplotlib_module("matplotlib.figure").Figure(
        figsize=(max(4.5, 1.6 + 0.45 * len(conditions) * len(stimuli)), 3.6), layout="constrained"
    )
    axis = figure.add_subplot()
    for place, stimulus in enumerate(stimuli):
        found = {row.condition: row for row in rows if row.stimulus == stimulus}
        shown = [(i, found[name]) for i, name in enumerate(conditions) if name in found]
        offset = 0.7 * ((place + 0.5) / len(stimuli) - 0.5)
        axis.errorbar(
            [i + offset for i, _ in shown],
            [row.mean for _, row in shown],
            yerr=[[row.mean - row.low for _, row in shown], [row.high - row.mean for _, row in shown]],
            fmt="o",
            capsize=3,
            label=stimulus,
        )
    axis.set_ylim(0, 100)
    axis.set_yticks(range(0, 101, 20))
    for height, word in zip(range(10, 100, 20), ("bad", "poor", "fair", "good", "excellent"), strict=True):
        axis.text(1.01, height, word, transform=axis.get_yaxis_transform(), va="center", fontsize=8)
    axis.grid(axis="y", alpha=0.4)
    axis.set_xticks(range(len(conditions)), ["all items"] if conditions == [ALL] else conditions)
    axis.set_xlim(-0.5, len(conditions) - 0.5)
    axis.set_ylabel("rating, mean and 95 % interval")
    figure.legend(loc="outside upper center", ncols=min(4, len(stimuli)), fontsize=8, frameon=False)
    return figure
