"""Figures (matplotlib, from the `eval` extra): spectrograms side by side on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hifispeech.audio.io.reader import read
from hifispeech.audio.resample import resample
from hifispeech.audio.spectral import N_FFT, stft
from hifispeech.errors import AudioError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
MAX_COLUMNS = 1200  # more frames than a panel has pixels are thinned by maximum, which keeps clicks visible


def spectrogram_db(audio: npt.NDArray[np.floating], range_db: float = 100.0) -> npt.NDArray[np.float64]:
    """Power spectrogram in dB, where a full-scale sine is 0, not below `-range_db`.

    Shape: `[time]` to `[frames, bins]`; `[channels, time]` is averaged over channels in power.
    """
    signal = np.atleast_2d(np.asarray(audio, dtype=np.float64))
    amplitude = np.abs(stft(signal)) / (N_FFT / 4)
    power = np.square(amplitude).mean(axis=0)
    return 10 * np.log10(np.maximum(power, 10 ** (-range_db / 10)))


def spectrogram_figure(
    signals: Mapping[str, npt.NDArray[np.floating]],
    sample_rate: int = 48000,
    *,
    cutoff_hz: float | None = None,
    title: str | None = None,
    columns: int = 4,
    range_db: float = 90.0,
) -> Figure:
    """A grid of spectrograms: one panel a signal, in the order given, on one colour scale.

    The usual order is input, systems, truth. The scale ends at the loudest bin of all panels, so that levels
    can be compared; frequency is linear up to half the rate.

    Args:
        signals: label to `[time]` or `[channels, time]`, all at `sample_rate` hertz. Lengths may differ.
        cutoff_hz: draws a dashed line at the end of the input's band.
        range_db: what the colours span below the loudest bin, in dB.

    Raises:
        AudioError: without signals, or for an empty one.
        ImportError: without matplotlib.
    """
    check_signals(signals)
    figure_module = matplotlib_module("matplotlib.figure")
    columns = min(columns, len(signals))
    rows = -(-len(signals) // columns)
    figure: Figure = figure_module.Figure(
        figsize=(3.4 * columns + 0.8, 2.7 * rows + 0.4), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    images = {label: thinned(spectrogram_db(audio, 200.0)) for label, audio in signals.items()}
    top = max(float(image.max()) for image in images.values())
    shown = None
    for axis, (label, image) in zip(axes.flat, images.items(), strict=False):
        duration_s = np.shape(signals[label])[-1] / sample_rate
        shown = axis.imshow(
            image.T,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap="magma",
            extent=(0, duration_s, 0, sample_rate / 2000),
            vmin=top - range_db,
            vmax=top,
        )
        axis.set_title(label, fontsize=10)
        if cutoff_hz is not None:
            axis.axhline(cutoff_hz / 1000, color="white", linewidth=0.7, linestyle="--", alpha=0.7)
    label_axes(axes, np.arange(axes.size).reshape(axes.shape) < len(images))
    if title:
        figure.suptitle(title, fontsize=11)
    figure.colorbar(shown, ax=axes, label="dB", shrink=0.9, pad=0.01)  # type: ignore[arg-type]
    return figure


def at_48k(path: str | Path) -> npt.NDArray[np.float32]:
    """A file as `[channels, time]` at 48 kHz, so that files of any rate share one scale.

    Raises:
        AudioError: if it cannot be read.
    """
    audio, rate = read(path)
    return resample(audio, rate, 48000)


def save_figure(figure: Figure, path: str | Path, dpi: int = 110) -> Path:
    """Write a figure as PNG or SVG by its suffix, making the folder; the same figure gives the same bytes.

    Raises:
        ValueError: for another suffix.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"cannot write a figure as {target.name!r}; use one of {', '.join(FORMATS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = {"Software": None} if suffix == ".png" else {"Date": None}
    with matplotlib_module("matplotlib").rc_context({"svg.hashsalt": "hifispeech"}):
        figure.savefig(target, dpi=dpi, metadata=metadata)
    return target


def check_signals(signals: Mapping[str, npt.NDArray[np.floating]]) -> None:
    """Raise `AudioError` unless there are signals, all finite and not empty."""
    if not signals:
        raise AudioError("no signals to plot; pass at least one")
    for label, audio in signals.items():
        if np.size(audio) == 0 or not np.isfinite(audio).all():
            raise AudioError(
                f"signal {label!r} is empty or not finite; pass finite audio with at least one sample"
            )


def matplotlib_module(module: str) -> Any:
    """Import a module of matplotlib; an ImportError names the extra that has it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError('matplotlib is not installed; run: pip install "hifispeech[eval]"') from error


def thinned(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`[frames, bins]` with at most `MAX_COLUMNS` frames, each the maximum of its neighbours."""
    group = -(-image.shape[0] // MAX_COLUMNS)
    return np.maximum.reduceat(image, np.arange(0, image.shape[0], group), axis=0) if group > 1 else image


def label_axes(axes: npt.NDArray[Any], used: npt.NDArray[np.bool_]) -> None:
    """Axis labels at the outer panels, unused panels hidden. Both `[rows, columns]`."""
    for (row, column), axis in np.ndenumerate(axes):
        axis.set_visible(bool(used[row, column]))
        if not used[row + 1 :, column].any():
            axis.set_xlabel("time in s")
            axis.tick_params(labelbottom=True)
        if not used[row, :column].any():
            axis.set_ylabel("kHz")
            axis.tick_params(labelleft=True)
