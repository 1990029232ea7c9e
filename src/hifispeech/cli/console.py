"""What the command line prints: summaries, tables, errors. Rich is imported when used."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hifispeech.cli.pipe import STREAM
from hifispeech.errors import explain

if TYPE_CHECKING:
    from hifispeech import FileReport, Inspection


def print_error(error: BaseException, source: Path | None = None) -> None:
    """One line on stderr: what is wrong and, where it is known, what to do."""
    text = explain(error)
    if source is not None and str(source) not in text:
        text = f"{source}: {text}"
    typer.echo(f"hifispeech: {text}", err=True)


def print_report(report: "FileReport", seconds: float, as_json: bool) -> None:
    """The summary of one upscaled file, JSON or a line; on stderr where stdout carries the audio."""
    factor = report.duration_s / max(seconds, 1e-9)
    if as_json:
        values = {**asdict(report), "seconds": round(seconds, 3), "real_time_factor": round(factor, 1)}
        text = json.dumps(values, default=str)
    else:
        took = f"{report.duration_s:.1f} s of audio in {seconds:.1f} s ({factor:.0f}x real time)"
        text = f"{report.input} -> {report.output}: {_band_change(report)}, {took}"
        if report.samples_over:
            text += f", {report.samples_over} samples over full scale"
    typer.echo(text, err=report.output == STREAM)


def _band_change(report: "FileReport") -> str:
    """The bandwidth that was found and what became of it."""
    channels = zip(report.cutoff_hz, report.full_band, report.silent, strict=True)
    narrow = sorted({_khz(cutoff_hz) for cutoff_hz, full, silent in channels if not (full or silent)})
    if all(report.silent):
        return "digital silence, kept"
    return f"bandwidth {' and '.join(narrow)} -> 24 kHz" if narrow else "full band already, kept"


def print_inspection(found: "Inspection", as_json: bool) -> None:
    """What is in one file: a JSON object or a small table."""
    if as_json:
        typer.echo(json.dumps(found._asdict()))
        return
    clipping = f"{found.clipped_samples} samples at full scale" if found.clipped_samples else "none"
    band = "digital silence" if found.is_silent else f"up to {_khz(found.cutoff_hz)}"
    if len(set(found.channel_cutoffs_hz)) > 1:
        band += f" (by channel: {', '.join(_khz(hz) for hz in found.channel_cutoffs_hz)})"
    rows = {
        "format": f"{found.container}, {found.codec}",
        "sample rate": f"{found.sample_rate} Hz",
        "channels": str(found.channels),
        "duration": f"{found.duration_s:.3f} s",
        "content": band,
        "full band": "yes" if found.is_full_band else "no",
        "peak": f"{found.peak:.3f}",
        "clipping": clipping,
    }
    print_table(found.path, rows)


def print_table(title: str, rows: Mapping[str, object]) -> None:
    """A title and two columns, on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows.items():
        table.add_row(Text(name), Text(_plain(value)))
    typer.echo(title)
    Console(highlight=False).print(table)


def _plain(value: object) -> str:
    """A value as text; of a nested one `key: value` pairs."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    return ", ".join(_plain(inner) for inner in value) if isinstance(value, list) else str(value)


def _khz(frequency_hz: float) -> str:
    return f"{frequency_hz / 1000:.1f} kHz"
