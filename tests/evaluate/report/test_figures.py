"""Figures in the paper's form: panels, bars, whiskers and points where the numbers say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hifispeech.errors import AudioError
from hifispeech.evaluate.report import figures, plots
from hifispeech.evaluate.results import Row
from hifispeech.evaluate.summary import Summary, summarise

pytest.importorskip("matplotlib")
RATE = 48000


@pytest.fixture(scope="module")
def summary() -> Summary:
    made = []
    for name in ("speech", "song"):
        for i in range(4):
            for rate in (8000, 16000):
                for shift, system in enumerate(("fast", "mirror", "peer")):
                    facts = {"duration_s": 1.0, "seconds": 0.1 * (shift + 1)} if system != "peer" else {}
                    values = {"lsd": 1 + shift + 0.1 * i}
                    made.append(Row(name, f"{i}.wav", "a", rate, system, values, facts))
    return summarise([*made, Row("speech", "5.wav", "a", 8000, "broken", error="failed")])


def bars(axis: Any) -> list[Any]:
    return list(axis.patches)


def test_comparison_shows_levels_and_errors_of_known_size(tmp_path: Path) -> None:
    truth = 0.1 * np.random.default_rng(0).standard_normal(RATE // 2)
    figure = figures.comparison_figure(0.01 * truth, {"a": 0.1 * truth, "b": truth}, truth, cutoff_hz=4000)
    panels = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in panels] == [
        *("input", "a", "b", "truth"),
        *("input minus truth", "a minus truth", "b minus truth"),
    ]
    errors = [np.median(np.asarray(axis.images[0].get_array())) for axis in panels[4:]]
    assert errors == pytest.approx([-40, -20, 0], abs=0.01)
    assert plots.save_figure(figure, tmp_path / "x.svg").read_bytes().startswith(b"<?xml")
    with pytest.raises(AudioError, match="no system"):
        figures.comparison_figure(truth, {}, truth)


def test_outputs_of_other_lengths_can_be_compared() -> None:
    truth = 0.1 * np.random.default_rng(0).standard_normal(RATE // 2)
    figures.comparison_figure(truth[:5000], {"cut": truth[:9000], "long": np.tile(truth, 2)}, truth)


def test_bars_have_the_height_of_the_means_and_whiskers_of_the_intervals(summary: Summary) -> None:
    figure = figures.value_bars(summary, "lsd")
    panels = figure.axes
    assert [axis.get_title() for axis in panels] == ["speech (5 clips)", "song (4 clips)"]
    heights = sorted({round(patch.get_height(), 6) for patch in bars(panels[0])})
    assert heights == pytest.approx([1.15, 2.15, 3.15])
    assert len(bars(panels[0])) == 3 * 2  # nothing for a system that never worked
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fast", "mirror", "peer"]
    with pytest.raises(AudioError, match="no 'visqol'; it has lsd"):
        figures.value_bars(summary, "visqol")


def test_bars_say_what_is_missing(summary: Summary) -> None:
    """A bar over some of the clips has their number on it; a system without a bar is named in the legend."""
    made = [Row("s", f"{i}.wav", "a", 8000, name, {"lsd": 1.0}) for i in range(3) for name in ("a", "b")]
    made[0] = Row("s", "0.wav", "a", 8000, "a", error="hung")
    axis: Any = figures.value_bars(summarise(made), "lsd").axes[0]
    assert [text.get_text() for text in axis.texts] == ["2 of 3"]
    figure = figures.value_bars(summary, "lsd")
    assert figure.legends[0].get_title().get_text() == "no value at all: broken"
    assert not any(axis.texts for axis in figure.axes)


def test_speed_shows_the_systems_that_ran(summary: Summary) -> None:
    figure = figures.speed_scatter(summary)
    points = [
        tuple(offset) for dots in figure.axes[0].collections for offset in np.asarray(dots.get_offsets())
    ]
    assert points == [pytest.approx((10.0, 1.15)), pytest.approx((5.0, 2.15))]
    ready = summarise([Row("s", "a.wav", "x", 8000, "peer", {"lsd": 1.0})])
    with pytest.raises(AudioError, match="a speed"):
        figures.speed_scatter(ready)


def test_abx_bars_end_at_the_share() -> None:
    rows = [
        figures.AbxBar("8 kHz", "ours", "NVSR", 30, 40, 0.59, 0.87),
        figures.AbxBar("16 kHz", "ours", "NVSR", 20, 40, 0.34, 0.66),
    ]
    axis: Any = figures.abx_bars(rows, "preference").axes[0]
    assert [patch.get_width() for patch in bars(axis)] == pytest.approx([75, 25, 50, 50])
    whiskers = [np.asarray(line.get_segments()[0])[:, 0] for line in axis.collections]
    np.testing.assert_allclose(whiskers, [[59, 87], [34, 66]])
    assert [text.get_text() for text in axis.texts[:2]] == ["ours 75.0 %", "NVSR 25.0 %"]
    tops = [bar.get_y() for bar in bars(axis)[::2]]  # the axis points down
    assert all(text.get_position()[1] < top for text, top in zip(axis.texts[::2], tops, strict=True))
    with pytest.raises(AudioError, match="no answers"):
        figures.abx_bars([])
    with pytest.raises(AudioError, match="no answers"):
        figures.abx_bars([figures.AbxBar("x", "a", "b", 0, 0, 0, 1)])
