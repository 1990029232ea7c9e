"""One clip through every system at every rate: read, make the low-rate input, run, align, measure, keep."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hifispeech.audio.io.encode import quantise
from hifispeech.audio.io.reader import read
from hifispeech.audio.io.writer import write
from hifispeech.audio.resample import resample
from hifispeech.errors import AudioError, HifispeechError, explain
from hifispeech.evaluate import align, lowrate, metrics, systems
from hifispeech.evaluate.results import Row
from hifispeech.evaluate.sets import Clip
from hifispeech.evaluate.systems import PACKAGE, RATE, System
from hifispeech.files import file_sha256, write_atomic

MIN_REFERENCE_RATE = 44100
BITS = {"16": "16-bit samples", "24": "24-bit samples", "float": "32-bit float samples"}
# What a tool, a codec or a decoder can make of a bad file; anything else is a mistake of ours.
FAILURES = (HifispeechError, ValueError, OSError, RuntimeError, MemoryError)

Audio = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """What is measured and how; the same for all clips of a run.

    `max_s`: of a longer recording its first so many seconds are scored. `audio`: folder to keep inputs,
    outputs and truth in (SYSTEM/RATE/SET/FILE), or None. `bits`: what outputs are rounded to, see
    `BITS`. `work` is for the files of commands; a killed run leaves some there.
    """

    rates: tuple[int, ...]
    systems: tuple[System, ...]
    metrics: tuple[str, ...]
    cache: Path
    work: Path
    degrade: str = "sinc"
    align: bool = False
    max_s: float = 30.0
    audio: Path | None = None
    nisqa_weights: Path | None = None
    bits: str = "16"


@dataclass(frozen=True)
class Job:
    """A clip to score; `without` are metrics left out for it."""

    clip: Clip
    settings: Settings
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Truth:
    """A reference `[channels, time]` at 48 kHz, the hash of its file, and what was done to it."""

    audio: Audio
    sha256: str
    notes: str


def score_clip(job: Job) -> list[Row]:
    """Rows of one clip, for every rate and system in order. What fails is the `error` of its row."""
    try:
        truth = read_truth(job.clip.path, job.settings.max_s)
    except FAILURES as error:
        return failed_rows(job, f"reference: {explain(error)}")
    rows = []
    for rate in job.settings.rates:
        low = None
        for system in job.settings.systems:
            entry, known = _cached(job, truth, system, rate)
            needed = [name for name in job.settings.metrics if name not in job.without]
            wanted = [name for name in needed if name not in known["done"]]
            errors: list[str] = []
            if wanted or _to_keep(job, system.label, rate):
                try:
                    low = lowrate.low_rate(truth.audio, rate, job.settings.degrade) if low is None else low
                    errors = _score(job, truth, low, system, rate, known, wanted)
                    write_atomic(entry, json.dumps(known))
                except FAILURES as error:
                    errors = [explain(error)]
            rows.append(_row(job, system, rate, known, needed, truth.notes, errors))
    return rows


def failed_rows(job: Job, error: str) -> list[Row]:
    """A row with this error for every rate and system."""
    clip = job.clip
    return [
        Row(clip.set, clip.name, clip.speaker, rate, system.label, error=error)
        for rate in job.settings.rates
        for system in job.settings.systems
    ]


def read_truth(path: Path, max_s: float) -> Truth:
    """The reference at 48 kHz: 44.1 kHz and more is resampled, the first `max_s` seconds are taken.

    Raises:
        AudioError: unreadable, below 44.1 kHz, or digital silence.
    """
    audio, rate = read(path)
    if rate < MIN_REFERENCE_RATE:
        raise AudioError(
            f"{path.name} has {rate} Hz; full-band speech at {MIN_REFERENCE_RATE} Hz or more is needed"
        )
    notes = []
    if rate != RATE:
        audio = resample(audio, rate, RATE)
        notes.append(f"reference resampled from {rate} Hz")
    if audio.shape[1] > round(max_s * RATE):
        audio = audio[:, : round(max_s * RATE)]
        notes.append(f"first {max_s:g} s only")
    if not audio.any(axis=1).all():
        raise AudioError(
            f"{path.name} is digital silence (a channel or all); there is nothing to compare with"
        )
    return Truth(audio, file_sha256(path), "; ".join(notes))


def make_output(job: Job, truth: Audio, low: Audio, system: System, rate: int) -> systems.Output:
    """A system's output for the clip; kept, with input and truth, where the run keeps audio.

    Raises:
        AudioError, ModelError: as `systems.run`, or another number of channels.
    """
    job.settings.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.settings.work) as folder:
        output = systems.run(system, low, rate, job.clip.name, Path(folder))
    if output.audio.shape[0] != truth.shape[0]:
        raise AudioError(
            f"output has {output.audio.shape[0]} channels where the reference has {truth.shape[0]}"
        )
    output = replace(output, audio=rounded(output.audio, job.settings.bits))
    keep_audio(job, "truth", None, truth, RATE)
    keep_audio(job, "input", rate, low, rate)
    keep_audio(job, system.label, rate, output.audio, RATE)
    return output


def rounded(audio: Audio, bits: str) -> Audio:
    """The audio as a file of so many bits holds it: clipped at full scale and rounded, or as it is ("float").

    Shape: `[channels, time]`.
    """
    if bits == "float":
        return audio
    return (quantise(audio, int(bits)) / 2.0 ** (int(bits) - 1)).astype(np.float32)


def matched(
    truth: Audio, output: Audio, rate: int, wants_align: bool
) -> tuple[Audio, Audio, dict[str, float]]:
    """Truth and output as they are compared: aligned, or of one length already; and what the alignment found.

    Raises:
        AudioError: another length without alignment, a wrong pair with it.
    """
    if wants_align:
        found = align.align(truth, output, RATE, rate / 2)
        ref, est = align.undo(truth, output, found)
        return (
            ref.astype(np.float32),
            est.astype(np.float32),
            {"delay_samples": found.delay_samples, "gain": found.gain},
        )
    # The input has round(n * rate / 48000) samples, so an output may differ by half an input sample.
    difference = output.shape[1] - truth.shape[1]
    if abs(difference) > RATE / rate:
        raise AudioError(
            f"output has {output.shape[1]} samples where {truth.shape[1]} are due; "
            "pass --align if the tool shifts or cuts"
        )
    length = min(truth.shape[1], output.shape[1])
    return truth[:, :length], output[:, :length], {}


def _score(
    job: Job, truth: Truth, low: Audio, system: System, rate: int, known: dict, wanted: list[str]
) -> list[str]:
    """Run and measure, adding to `known`; returns what could not be measured."""
    output = make_output(job, truth.audio, low, system, rate)
    audio = output.audio
    if system.kind == "folder" and "only" in truth.notes:  # the whole recording's output for its beginning
        audio = audio[:, : truth.audio.shape[1]]
    ref, est, facts = matched(truth.audio, audio, rate, job.settings.align)
    silent, frames = metrics.silent_frames(ref, sample_rate=RATE)
    facts |= {"silent_frames": silent, "frames": frames}
    known["facts"] = {"duration_s": round(ref.shape[1] / RATE, 3), **facts, **output.costs}
    errors = []
    for name in wanted:
        try:
            values = metrics.measure(
                ref,
                est,
                [name],
                sample_rate=RATE,
                sample_rate_in=rate,
                nisqa_weights=job.settings.nisqa_weights,
            )
        except AudioError as error:
            errors.append(f"{name}: {explain(error)}")
            continue
        known["values"] |= {key: float(f"{value:.6g}") for key, value in values.items()}
        known["done"][name] = sorted(values)
    return errors


def _cached(job: Job, truth: Truth, system: System, rate: int) -> tuple[Path, dict]:
    """The cache file of a result, and what is known: `values`, `facts`, the values of each metric `done`."""
    settings = job.settings
    parts = [
        truth.sha256,
        str(rate),
        settings.degrade,
        str(settings.align),
        f"{settings.max_s:g}",
        settings.bits,
    ]
    parts += [systems.digest(system, job.clip.name, rate), code_digest()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    entry = settings.cache / key[:2] / f"{key}.json"
    empty: dict = {"values": {}, "facts": {}, "done": {}}
    try:
        return entry, json.loads(entry.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return entry, empty


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Hash of the code that makes inputs and measures outputs: no number outlives a change of it."""
    files = [PACKAGE / "evaluate" / f"{name}.py" for name in ("align", "lowrate")]
    files += [PACKAGE / "audio" / f"{name}.py" for name in ("resample", "resample_fir", "spectral")]
    for folder in ("evaluate/metrics", "audio/degrade"):
        files += sorted((PACKAGE / folder).glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _row(
    job: Job, system: System, rate: int, known: Mapping, needed: list[str], notes: str, errors: list[str]
) -> Row:
    clip = job.clip
    names = [key for metric in needed for key in known["done"].get(metric, ())]
    values = {name: known["values"][name] for name in sorted(names, key=list(known["values"]).index)}
    return Row(
        clip.set,
        clip.name,
        clip.speaker,
        rate,
        system.label,
        values,
        known["facts"],
        notes,
        "; ".join(errors),
    )


def audio_path(folder: Path, label: str, rate: int | None, clip: Clip) -> Path:
    """Where audio of a run is kept: LABEL/RATE/SET/NAME.flac, the truth without a rate."""
    place = folder / label if rate is None else folder / label / str(rate)
    return (place / clip.set / clip.name).with_suffix(".flac")


def keep_audio(job: Job, label: str, rate: int | None, audio: Audio, sample_rate: int) -> None:
    """Write audio where the run keeps it."""
    if job.settings.audio is None:
        return
    path = audio_path(job.settings.audio, label, rate, job.clip)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, audio, sample_rate, encoding="pcm_24", force=True)


def _to_keep(job: Job, label: str, rate: int | None) -> bool:
    folder = job.settings.audio
    return folder is not None and not audio_path(folder, label, rate, job.clip).is_file()
