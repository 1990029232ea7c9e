"""Pictures and sounds of a run: its figures, and the clips worth looking at and listening to."""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hifispeech.errors import AudioError, explain
from hifispeech.evaluate import lowrate
from hifispeech.evaluate.metrics import value_of
from hifispeech.evaluate.report.figures import comparison_figure, speed_scatter, value_bars
from hifispeech.evaluate.report.plots import save_figure
from hifispeech.evaluate.results import Row
from hifispeech.evaluate.score import FAILURES, Job, audio_path, make_output, matched, read_truth
from hifispeech.evaluate.summary import Summary
from hifispeech.evaluate.systems import BASELINES, System, baselines
from hifispeech.evaluate.tables import Pictures, picture_key
from hifispeech.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def draw_all(jobs: Sequence[Job], summary: Summary, folder: Path, count: int) -> Pictures:
    """Draw the figures of a run and `count` worst clips of each system under test, and keep their audio.

    Writes figures/*.png and *.svg, spectrograms/*.png, audio/ and examples.json into `folder`. Baselines are
    shown beside the others, their own worst clips only where there are only baselines. Nothing for 0.
    """
    if not count:
        return Pictures()
    pictures = Pictures(_figures(summary, folder))
    by_clip = {f"{job.clip.set}/{job.clip.name}": job for job in jobs}
    lost = {(row.clip, row.rate, row.system) for row in summary.failures if not row.values}
    examples = []
    for why, row in chosen(summary, jobs, count):
        key = picture_key(row)
        if key in pictures.clips:
            continue
        job = by_clip[row.clip]
        able = [s for s in job.settings.systems if (row.clip, row.rate, s.label) not in lost]
        try:
            labels = _draw(job, able, row.rate, folder, _picture_name(row))
        except FAILURES as error:
            log.warning("%s: no spectrogram: %s", key, explain(error))
            continue
        pictures.clips[key] = f"spectrograms/{_picture_name(row)}"
        examples.append(
            {"clip": row.clip, "rate": row.rate, "why": why, "picture": pictures.clips[key]} | labels
        )
    write_atomic(folder / "examples.json", json.dumps(examples, indent=1))
    return pictures


def chosen(summary: Summary, jobs: Sequence[Job], count: int) -> list[tuple[str, Row]]:
    """Why and which: a typical clip of each set, then the worst of each system under test."""
    tested = [name for name in summary.systems if name not in BASELINES] or summary.systems[:1]
    found = []
    for set_name in summary.sets:
        if (row := _typical(summary, jobs, set_name, tested[0])) is not None:
            found.append((f"typical of {set_name}", row))
    for name in tested:
        for place, row in enumerate(summary.worst[name][:count], 1):
            found.append((f"worst {place} of {name}", row))
    return found


def _typical(summary: Summary, jobs: Sequence[Job], set_name: str, system: str) -> Row | None:
    """The clip in the middle of its set by name, at the middle rate: not chosen by its result."""
    names = sorted(job.clip.name for job in jobs if job.clip.set == set_name)
    rate = summary.rates[len(summary.rates) // 2]
    failed = {(row.clip, row.rate) for row in summary.failures if row.system == system}
    for name in names[len(names) // 2 :]:
        if (f"{set_name}/{name}", rate) not in failed:
            return Row(set_name, name, "", rate, system)
    return None


def _picture_name(row: Row) -> str:
    name = f"{Path(row.clip).with_suffix('')}-{row.rate}".replace("/", "_")
    plain = re.sub(r"[^\w.-]+", "_", name)
    # Two clips must not share a picture.
    return f"{plain}.png" if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}.png"


def _draw(
    job: Job, systems: Sequence[System], rate: int, folder: Path, name: str
) -> dict[str, dict[str, str]]:
    """Spectrograms of one clip in these systems; keeps the audio. Returns labels and where the audio lies."""
    audio_folder = folder / "audio"
    job = replace(job, settings=replace(job.settings, audio=audio_folder))
    truth = read_truth(job.clip.path, job.settings.max_s).audio
    low = lowrate.low_rate(truth, rate, job.settings.degrade)
    outputs: dict[str, np.ndarray] = {}
    for system in systems:
        try:
            output = make_output(job, truth, low, system, rate).audio
            outputs[system.label] = matched(truth, output, rate, job.settings.align)[1]
        except FAILURES as error:  # in the table of failures already
            log.info("%s: %s", system.label, explain(error))
    shown = {label: audio for label, audio in outputs.items() if label != "resample"} or outputs
    if not shown:
        raise AudioError("no system has an output for it")
    source = baselines.resampled(low, rate)
    title = f"{job.clip.set}/{job.clip.name}, {rate / 1000:g} kHz"
    figure = comparison_figure(source, shown, truth, cutoff_hz=rate / 2, title=title)
    save_figure(figure, folder / "spectrograms" / name, dpi=80)
    labels = [("input", rate), *((label, rate) for label in outputs), ("truth", None)]
    paths = {label: audio_path(audio_folder, label, at, job.clip) for label, at in labels}
    return {"audio": {label: path.relative_to(folder).as_posix() for label, path in paths.items()}}


def _figures(summary: Summary, folder: Path) -> dict[str, str]:
    """Bars of each headline value and the speed scatter, as PNG and SVG; links to the PNG by caption."""
    links = {}
    for value in ("lsd", "lsd_high", "lsd_p2", "visqol"):
        if value in summary.values:
            links[f"{value_of(value).title} by input rate"] = _save(
                value_bars(summary, value), folder, f"{value}-bars"
            )
    try:
        figure = speed_scatter(summary, summary.values[0] if summary.values else "lsd")
    except AudioError:  # ready outputs only
        return links
    links["Quality against speed"] = _save(figure, folder, "speed")
    return links


def _save(figure: "Figure", folder: Path, name: str) -> str:
    for suffix in (".svg", ".png"):
        save_figure(figure, folder / "figures" / f"{name}{suffix}")
    return f"figures/{name}.png"
