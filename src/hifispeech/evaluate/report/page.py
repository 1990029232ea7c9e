"""One HTML file with everything of a run: tables, figures, spectrograms, players. It needs no network."""

import base64
import html
import json
import os
import re
import tempfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from hifispeech.audio.io.reader import read
from hifispeech.audio.io.writer import write
from hifispeech.errors import AudioError
from hifispeech.evaluate.runner import load
from hifispeech.evaluate.score import BITS
from hifispeech.evaluate.summary import Summary
from hifispeech.evaluate.systems.baselines import OUTPUT_RATE, resampled
from hifispeech.evaluate.tables import (
    alignment_table,
    cost_table,
    heading,
    how,
    missing,
    value_table,
    worst_lists,
)
from hifispeech.files import write_atomic

_TYPES = {"opus": "audio/ogg", "flac": "audio/flac"}


def write_report(results: Path, output: Path, *, codec: str = "opus", force: bool = False) -> int:
    """Write the report of a run and return its size in bytes; audio is embedded as Opus or FLAC.

    Raises:
        AudioError: no results there, a kept audio file that cannot be read, or the output exists without
            `force`.
    """
    if output.exists() and not force:
        raise AudioError(f"{output}: exists already; choose another name, or replace it with force (--force)")
    summary, run, _ = load(results)
    listed = results / "examples.json"
    examples = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []
    figures = sorted((results / "figures").glob("*.png"))
    page = Template((files("hifispeech.evaluate.report") / "page.html").read_text(encoding="utf-8"))
    anchors = {f"{example['clip']} {example['rate']}": f"#clip{i}" for i, example in enumerate(examples)}
    text = page.substitute(
        title=html.escape(", ".join(summary.systems)),
        how=_blocks([*how(summary, run), "", *missing(summary)]),
        sets="\n".join(_set(summary, name, BITS[run["bits"]]) for name in summary.sets),
        figures="\n".join(f'<img class="figure" alt="{path.stem}" src="{_data(path)}">' for path in figures),
        cost=_blocks([*cost_table(summary), "", *(alignment_table(summary) if summary.alignment else [])]),
        worst=_blocks(worst_lists(summary, anchors)),
        examples="\n".join(_example(results, example, i, codec) for i, example in enumerate(examples)),
    )
    write_atomic(output, text)
    return os.path.getsize(output)


def _set(summary: Summary, name: str, bits: str) -> str:
    """The tables of a set, the first open."""
    parts = [f"<h2>{html.escape(name)}</h2>"]
    parts.append(f"<p>{summary.clips[name]} clips; intervals by {summary.units[name]}.</p>")
    for index, value in enumerate(summary.values):
        state = " open" if index == 0 else ""
        body = _blocks(value_table(summary, name, value))
        parts.append(
            f"<details{state}><summary>{html.escape(heading(value))} ({bits})</summary>{body}</details>"
        )
    return "\n".join(parts)


def _example(results: Path, example: dict[str, Any], index: int, codec: str) -> str:
    """Spectrogram and players of one clip; the players of a clip switch between each other."""
    name = f"{example['clip']}, {example['rate'] / 1000:g} kHz"
    players = []
    for label, place in example["audio"].items():
        source = _audio(results / place, codec)
        players.append(
            f'<figure><figcaption>{html.escape(label)}</figcaption><audio controls preload="metadata" '
            f'src="{source}"></audio></figure>'
        )
    return (
        f'<section class="clip" id="clip{index}"><h3>{html.escape(name)}</h3>'
        f"<p>{html.escape(example['why'])}</p>"
        f'<img alt="Spectrograms of {html.escape(name)}" src="{_data(results / example["picture"])}">'
        f'<div class="players">{"".join(players)}</div></section>'
    )


def _audio(path: Path, codec: str) -> str:
    """A data URI of a file at 48 kHz in the codec."""
    audio, rate = read(path)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"audio.{codec}"
        write(target, audio if rate == OUTPUT_RATE else resampled(audio, rate), OUTPUT_RATE)
        return _data(target, _TYPES[codec])


def _data(path: Path, kind: str = "image/png") -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AudioError(f"{path}: a file of the run is missing; run the evaluation again") from error
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _blocks(lines: Iterable[str]) -> str:
    """HTML of the Markdown that `tables` writes: tables, lists, paragraphs, links, code, bold."""
    out: list[str] = []
    kind = ""
    for line in [*lines, ""]:
        new = "table" if line.startswith("|") else "ul" if line.startswith("- ") else ""
        new = "ol" if line.startswith("1. ") else new or ("p" if line else "")
        if new != kind:
            out += [f"</{kind}>" if kind else "", f"<{new}>" if new else ""]
            kind = new
        if kind == "table":
            out.append(_table_row(line, is_head=out[-1] == "<table>"))
        elif kind in ("ul", "ol"):
            out.append(f"<li>{_inline(line.split(' ', 1)[1])}</li>")
        elif kind:
            out.append(_inline(line))
    return "\n".join(part for part in out if part)


def _table_row(line: str, *, is_head: bool) -> str:
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if all(set(cell) <= set("-:") for cell in cells):
        return ""
    tag = "th" if is_head else "td"
    return f"<tr>{''.join(f'<{tag}>{_inline(cell)}</{tag}>' for cell in cells)}</tr>"


def _inline(text: str) -> str:
    text = html.escape(text)
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
    return re.sub(r"\[([^\]]+)\]\((#?[^)\s]+)\)", r'<a href="\2">\1</a>', text)
