"""Figures in the form of the paper's: spectrograms with differences, LSD bars, ABX bars, LSD against speed.

Each function returns a matplotlib figure; `plots.save_figure` writes PNG or SVG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hifispeech.errors import AudioError
from hifispeech.evaluate.metrics import value_of
from hifispeech.evaluate.report.plots import (
    check_signals,
    label_axes,
    matplotlib_module,
    spectrogram_db,
    thinned,
)
from hifispeech.evaluate.summary import Entry, Summary
from hifispeech.evaluate.tables import direction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Distinguishable with every kind of colour vision (Okabe and Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#555555")
DIFFERENCE_DB = 40.0
QUIET_DB = 85.0  # below the loudest bin: what is quieter in both has no difference worth a colour

Audio = npt.NDArray[np.floating]


@dataclass(frozen=True)
class AbxBar:
    """One bar: of `total` answers, `wins` chose `first` over `second`; the share lies in `low..high`."""

    label: str
    first: str
    second: str
    wins: int
    total: int
    low: float
    high: float


def comparison_figure(
    source: Audio,
    systems: Mapping[str, Audio],
    truth: Audio,
    sample_rate: int = 48000,
    *,
    cutoff_hz: float | None = None,
    title: str | None = None,
    range_db: float = 90.0,
) -> Figure:
    """Figure 2 of the paper: input, systems and truth side by side; below, how far each is from the truth.

    Args:
        source: the low-rate input brought to `sample_rate`; all signals are `[time]` or `[channels, time]`.
        systems: label to output, in the order shown.
        cutoff_hz: draws a dashed line at the end of the input's band.

    Raises:
        AudioError: without systems, or for an empty or not finite signal.
        ImportError: without matplotlib.
    """
    signals = {"input": source, **systems, "truth": truth}
    check_signals(signals)
    if not systems:
        raise AudioError("no system's output to show; pass at least one")
    images = {label: spectrogram_db(audio, 200.0) for label, audio in signals.items()}
    top = max(float(image.max()) for image in images.values())
    figure: Figure = matplotlib_module("matplotlib.figure").Figure(
        figsize=(2.9 * len(signals) + 0.9, 5.2), layout="constrained"
    )
    axes = figure.subplots(2, len(signals), squeeze=False, sharex=True, sharey=True)
    level = error = None
    for column, (label, image) in enumerate(images.items()):
        duration_s = np.shape(signals[label])[-1] / sample_rate
        box: dict[str, Any] = {
            "origin": "lower",
            "aspect": "auto",
            "interpolation": "nearest",
            "extent": (0, duration_s, 0, sample_rate / 2000),
        }
        shown = axes[0, column].imshow(thinned(image).T, cmap="magma", vmin=top - range_db, vmax=top, **box)
        level = level or shown
        axes[0, column].set_title(label, fontsize=10)
        if label != "truth":
            difference = _difference_db(image, images["truth"], top)
            error = axes[1, column].imshow(
                difference.T, cmap="RdBu_r", vmin=-DIFFERENCE_DB, vmax=DIFFERENCE_DB, **box
            )
            axes[1, column].set_title(f"{label} minus truth", fontsize=10)
        for axis in axes[:, column]:
            if cutoff_hz is not None and axis.images:
                colour = "white" if axis is axes[0, column] else "black"
                axis.axhline(cutoff_hz / 1000, color=colour, linewidth=0.7, linestyle="--", alpha=0.7)
    used = [[True] * len(signals), [label != "truth" for label in signals]]
    label_axes(axes, np.array(used))
    figure.colorbar(level, ax=axes[0].tolist(), label="dB", pad=0.01)  # type: ignore[arg-type]
    figure.colorbar(error, ax=axes[1].tolist(), label="error in dB", pad=0.01)  # type: ignore[arg-type]
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _difference_db(
    image: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], top: float
) -> npt.NDArray[np.float64]:
    """Level of the output minus that of the truth, over the frames that both have."""
    frames = min(len(image), len(truth))
    floor = top - QUIET_DB
    difference = np.maximum(image[:frames], floor) - np.maximum(truth[:frames], floor)
    step = max(1, -(-frames // 1200))
    return difference[::step]


def value_bars(summary: Summary, value: str = "lsd", sets: Sequence[str] | None = None) -> Figure:
    """Figures 3 and 4 of the paper: bars of a value by input rate and system, a panel for each data set.

    Whiskers are 95 % intervals. A bar that not all clips are in says how many; systems without any are named.

    Raises:
        AudioError: the run does not have the value.
        ImportError: without matplotlib.
    """
    names = list(sets or summary.sets)
    having = [s for s in summary.systems if any(_bars(summary, name, value, s) for name in names)]
    names = [name for name in names if any(_bars(summary, name, value, s) for s in having)]
    if not names:
        raise AudioError(f"this run has no {value!r}; it has {', '.join(summary.values)}")
    bars = len(having)
    width = 0.8 / bars
    size = (max(4.6, 0.32 * bars * len(summary.rates) + 1.2) * len(names), 3.6)
    figure: Figure = matplotlib_module("matplotlib.figure").Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axis, name in zip(axes, names, strict=True):
        for index, system in enumerate(having):
            found = _bars(summary, name, value, system)
            offset = (index - (bars - 1) / 2) * width
            axis.bar(
                [place + offset for place, _, _ in found],
                [entry.mean.mean for _, entry, _ in found],
                0.92 * width,
                yerr=np.array([whisker for _, _, whisker in found]).T if found else None,
                color=COLOURS[summary.systems.index(system) % len(COLOURS)],
                label=system,
                error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
            )
            for place, entry, whisker in found:
                if entry.mean.count < entry.expected:
                    text, top = f"{entry.mean.count} of {entry.expected}", entry.mean.mean + whisker[1]
                    beside = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "fontsize": 7}
                    axis.annotate(text, (place + offset, top), **beside)
        axis.set_title(f"{name} ({summary.clips[name]} clips)", fontsize=10)
        axis.set_xticks(range(len(summary.rates)), [f"{rate / 1000:g}" for rate in summary.rates])
        axis.set_xlabel("input rate in kHz")
        _plain_style(axis)
    axes[0].set_ylabel(f"{value_of(value).title}\n{direction(value)}", fontsize=9)
    _bar_legend(figure, axes[0], [system for system in summary.systems if system not in having])
    return figure


def _bar_legend(figure: Figure, axis: Any, without: Sequence[str]) -> None:
    """The systems in one legend below all panels; `axis` has a bar container for each."""
    handles, labels = axis.get_legend_handles_labels()
    title = f"no value at all: {', '.join(without)}" if without else None
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": min(len(handles), 6), "frameon": False}
    figure.legend(handles, labels, title=title, fontsize=9, title_fontsize=8, **place)


def _bars(
    summary: Summary, set_name: str, value: str, system: str
) -> list[tuple[int, Entry, tuple[float, float]]]:
    """Place, entry and lengths of the whiskers of each bar."""
    found = []
    for place, rate in enumerate(summary.rates):
        entry = summary.entry(set_name, rate, system, value)
        if entry is not None and np.isfinite(entry.mean.mean):
            mean = entry.mean
            below, above = np.nan_to_num([max(0, mean.mean - mean.low), max(0, mean.high - mean.mean)])
            found.append((place, entry, (float(below), float(above))))
    return found


def speed_scatter(summary: Summary, value: str = "lsd") -> Figure:
    """A value (mean over the rates) against the real-time factor, a point a system, a panel a data set.

    Systems whose speed is not known, such as folders of outputs, are left out.

    Raises:
        AudioError: no system has both.
        ImportError: without matplotlib.
    """
    points = {
        name: {
            system: mean for system in summary.systems if (mean := _over_rates(summary, name, value, system))
        }
        for name in summary.sets
    }
    if not any(points.values()):
        raise AudioError(f"no system of this run has both {value!r} and a speed; run one that computes")
    figure: Figure = matplotlib_module("matplotlib.figure").Figure(
        figsize=(4.6 * len(points), 3.6), layout="constrained"
    )
    axes = figure.subplots(1, len(points), squeeze=False, sharey=True, sharex=True)[0]
    for axis, (name, means) in zip(axes, points.items(), strict=True):
        for system, (factor, mean) in means.items():
            memory = summary.costs[system]["peak_memory_mb"]
            colour = COLOURS[summary.systems.index(system) % len(COLOURS)]
            axis.scatter([factor], [mean], s=55, color=colour, zorder=3)
            text = system if memory is None else f"{system}\n{memory:.0f} MB"
            axis.annotate(text, (factor, mean), xytext=(6, 4), textcoords="offset points", fontsize=8)
        axis.set_xscale("log")
        axis.margins(x=0.25, y=0.2)
        axis.axvline(1, color="#999999", linewidth=0.8, linestyle=":")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("times real time, one thread")
        _plain_style(axis)
    axes[0].set_ylabel(f"{value_of(value).title}, mean over rates", fontsize=9)
    return figure


def _over_rates(summary: Summary, set_name: str, value: str, system: str) -> tuple[float, float] | None:
    factor = summary.costs[system]["real_time_factor"]
    entries = [summary.entry(set_name, rate, system, value) for rate in summary.rates]
    means = [entry.mean.mean for entry in entries if entry is not None]
    if factor is None or len(means) < len(summary.rates) or not np.isfinite(means).all():
        return None
    return factor, float(np.mean(means))


def abx_bars(rows: Sequence[AbxBar], title: str | None = None) -> Figure:
    """Figure 5 of the paper: who was preferred, a bar a row, the interval of the share, the 50 % line.

    Raises:
        AudioError: without rows, or for a row without answers.
        ImportError: without matplotlib.
    """
    if not rows or any(row.total < 1 or not 0 <= row.wins <= row.total for row in rows):
        raise AudioError("no answers to plot; each bar needs 0 <= wins <= total and total >= 1")
    figure: Figure = matplotlib_module("matplotlib.figure").Figure(
        figsize=(7.2, 0.62 * len(rows) + 1.3), layout="constrained"
    )
    axis = figure.subplots()
    for place, row in enumerate(rows):
        share = row.wins / row.total
        axis.barh(place, 100 * share, 0.42, color=COLOURS[0])
        axis.barh(place, 100 * (1 - share), 0.42, left=100 * share, color="#D9D9D9")
        whisker = [[100 * max(0, share - row.low)], [100 * max(0, row.high - share)]]
        axis.errorbar(100 * share, place, xerr=whisker, color="#222222", capsize=3, linewidth=1.2)
        # Above the bar, where neither its colour nor the whisker is in the way, however small a part is.
        named = {"va": "bottom", "fontsize": 8}
        axis.text(0.6, place - 0.23, f"{row.first} {100 * share:.1f} %", color=COLOURS[0], **named)
        axis.text(99.4, place - 0.23, f"{row.second} {100 * (1 - share):.1f} %", ha="right", **named)
    axis.axvline(50, color="#222222", linewidth=0.8, linestyle="--")
    axis.set_xlim(0, 100)
    axis.set_yticks(range(len(rows)), [f"{row.label}\nn = {row.total}" for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("share of the answers in %, 95 % interval")
    if title:
        axis.set_title(title, fontsize=11)
    _plain_style(axis, grid=False)
    return figure


def _plain_style(axis: Any, *, grid: bool = True) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if grid:
        axis.grid(axis="y", color="#DDDDDD", linewidth=0.7)
        axis.set_axisbelow(True)
