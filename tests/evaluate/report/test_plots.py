"""Figures: levels, layout, formats, and the message without matplotlib."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hifispeech.errors import AudioError
from hifispeech.evaluate.report import plots

RATE = 48000


def signals(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"system {i}": (0.1 * rng.standard_normal(RATE // 4)).astype(np.float32) for i in range(count)}


def test_full_scale_sine_is_zero_db() -> None:
    sine = np.sin(2 * np.pi * 64 / 2048 * np.arange(RATE))
    image = plots.spectrogram_db(sine)
    assert image[10].argmax() == 64
    assert image[10].max() == pytest.approx(0, abs=1e-6)
    assert plots.spectrogram_db(np.zeros(100)).max() == -100


def test_grid_has_a_panel_per_signal_on_one_scale() -> None:
    pytest.importorskip("matplotlib")
    figure = plots.spectrogram_figure(signals(5), RATE, cutoff_hz=4000, title="clip", columns=3)
    panels = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in panels] == [f"system {i}" for i in range(5)]
    assert len({axis.images[0].get_clim() for axis in panels}) == 1
    assert panels[0].get_ylim() == (0, 24)
    assert np.asarray(panels[0].lines[0].get_ydata())[0] == 4


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("b.svg", b"<?xml")])
def test_files_are_of_the_named_kind_and_reproducible(tmp_path: Path, name: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    first, second = (
        plots.save_figure(plots.spectrogram_figure(signals(2)), tmp_path / part / name).read_bytes()
        for part in ("1", "2")
    )
    assert first.startswith(magic)
    assert first == second


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(AudioError, match="no signals"):
        plots.spectrogram_figure({})
    with pytest.raises(AudioError, match="'x' is empty"):
        plots.spectrogram_figure({"x": np.zeros(0)})
    with pytest.raises(ValueError, match=r"use one of \.png, \.svg"):
        plots.save_figure(plots.spectrogram_figure(signals(1)), tmp_path / "a.gif")


def test_long_signals_are_thinned_by_maximum() -> None:
    image = np.full((5000, 3), -90.0)
    image[4321, 1] = 0
    thin = plots.thinned(image)
    assert thin.shape[0] <= plots.MAX_COLUMNS
    assert thin.max() == 0


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "hifispeech\[eval\]"'):
        plots.spectrogram_figure(signals(1))
