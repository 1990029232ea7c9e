"""Folders of any audio to training shards: measure, reject or mark, trim, resample, write.

A journal has a line for every file done, so an interrupted run goes on where it was. The audio file only
grows; `clips.json` (what `Shards` reads) and `manifest.csv` (what a person reads) are written at the end.
"""

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hifispeech.audio.bandwidth.meter import FULL_BAND_HZ, BandwidthMeter
from hifispeech.audio.io.reader import open_reader
from hifispeech.audio.resample import resample
from hifispeech.datasets.corpora import Source, assign_splits
from hifispeech.datasets.shards import AUDIO_FILE, CLIPS_FILE, SAMPLE_RATE
from hifispeech.errors import USER_ERRORS, AudioError, explain
from hifispeech.files import atomic_file, file_sha256, write_atomic
from hifispeech.runs.processes import Crashed, run_tasks

JOURNAL, MANIFEST = "journal.jsonl", "manifest.csv"
MIN_SECONDS = 0.25
TRIM_DB, MARGIN_S, CELL_S = -50.0, 0.2, 0.01
LOSSY = ("mp3", "mpeg", "vorbis", "opus", "aac", "amr", "gsm", "wma", "ac3", "law", "adpcm", "g72", "speex")


@dataclass(frozen=True)
class Options:
    """What is done to each file; a data set is made with one set of options.

    Files whose band ends below `min_bandwidth_hz` are rejected; 0 keeps all, marked with their bandwidth.
    """

    min_bandwidth_hz: float = FULL_BAND_HZ
    trim: bool = True


@dataclass(frozen=True)
class Entry:
    """What became of one file: kept (`offset`, `length` in samples at 48 kHz) or rejected, and why."""

    path: str
    source: str
    licence: str
    speaker: str
    split: str | None
    kept: bool
    note: str = ""
    sha256: str = ""
    sample_rate: int = 0
    duration_s: float = 0.0
    bandwidth_hz: float = 0.0
    lossless: bool = False
    offset: int = 0
    length: int = 0


Prepared: TypeAlias = tuple[Entry, npt.NDArray[np.int16]]


@dataclass
class Summary:
    """What a run of `prepare` did. `hours` and `speakers` by split, `rejected` files by reason."""

    kept: int = 0
    narrow: int = 0
    hours: dict[str, float] = field(default_factory=dict)
    speakers: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)


def prepare(
    sources: Sequence[Source],
    folder: Path,
    options: Options,
    *,
    valid_speakers: Sequence[str] = (),
    workers: int = 1,
    on_file: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write or complete the data set in `folder`. Files already in its journal are not read again.

    `workers` processes read the files. They are spawned: in a script, the call belongs under
    `if __name__ == "__main__":`.

    Raises:
        ValueError: if the folder holds a data set of other options, or a validation speaker is unknown.
        AudioError: if no file can be kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = _open_journal(folder, options)
    done = {entry.path for entry in entries}
    todo = [source for source in sources if os.fspath(source.path.resolve()) not in done]
    offset = max((entry.offset + entry.length for entry in entries if entry.kept), default=0)
    with (folder / AUDIO_FILE).open("ab") as audio, (folder / JOURNAL).open("a", encoding="utf-8") as journal:
        audio.truncate(2 * offset)  # audio without a line in the journal was not finished
        with closing(_processed(todo, options, workers)) as results:
            for count, (entry, samples) in enumerate(results, start=1):
                if entry.kept:
                    entry = replace(entry, offset=offset, length=len(samples))
                    audio.write(samples.tobytes())
                    audio.flush()
                    offset += len(samples)
                journal.write(json.dumps(asdict(entry)) + "\n")
                journal.flush()
                entries.append(entry)
                if on_file:
                    on_file(count, len(todo))
    if not any(entry.kept for entry in entries):
        raise AudioError(f"no file can be kept: {entries[0].path}: {entries[0].note}; see {folder / JOURNAL}")
    return _finish(folder, entries, valid_speakers)


def _open_journal(folder: Path, options: Options) -> list[Entry]:
    """The entries so far; a new journal starts with the options."""
    path, header = folder / JOURNAL, json.dumps(asdict(options))
    if not path.exists():
        if (folder / CLIPS_FILE).exists():
            raise ValueError(f"{folder} holds a data set made otherwise; pass another output folder")
        path.write_text(header + "\n", encoding="utf-8")
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines[0].strip() != header:
        raise ValueError(
            f"{folder} was prepared with {lines[0].strip()}, not {header}; pass the same or another folder"
        )
    if not lines[-1].endswith("\n"):  # cut while being written
        lines.pop()
        path.write_text("".join(lines), encoding="utf-8")
    return [Entry(**json.loads(line)) for line in lines[1:]]


def _processed(sources: Sequence[Source], options: Options, workers: int) -> Generator[Prepared, None, None]:
    """Results in the order of `sources`, whatever the number of processes.

    Decoders read what strangers made, so they work in processes of their own: one that crashes costs its
    file only, and the next run does not meet that file again.
    """
    tasks = list(enumerate(sources))
    ahead = 4 * workers  # finished audio waits in memory for its turn, so not too much of it
    ended = run_tasks(partial(_handler, options), tasks, workers, max_ahead=ahead, on_log=_log)
    finished: dict[int, Prepared] = {}
    written = 0
    with closing(ended):
        for (number, source), result in ended:
            if isinstance(result, Crashed):
                result = _rejected(source, f"crashed: the process that read it died ({result.reason})")
            finished[number] = result
            while written in finished:
                yield finished.pop(written)
                written += 1


def _handler(options: Options) -> Callable[[tuple[int, Source], Callable[[float], None]], Prepared]:
    return lambda task, on_fraction: _survived(task[1], options)


def _survived(source: Source, options: Options) -> Prepared:
    """`process`, which one file of many must not end with an exception of its own."""
    try:
        return process(source, options)
    except Exception as error:
        text = explain(error) if isinstance(error, USER_ERRORS) else f"unexpected {error!r}; please report it"
        return _rejected(source, f"failed: {text}")


def _log(task: tuple[int, Source] | None, record: logging.LogRecord) -> None:
    logging.getLogger(record.name).log(record.levelno, "%s", record.getMessage())


def _rejected(source: Source, note: str) -> Prepared:
    return Entry(**_origin(source), kept=False, note=note), np.zeros(0, np.int16)


def _origin(source: Source) -> dict[str, Any]:
    """What is known of a file before it is read."""
    return {
        "path": os.fspath(source.path.resolve()),
        "source": source.source,
        "licence": source.licence,
        "speaker": source.speaker,
        "split": source.split,
    }


def process(source: Source, options: Options) -> Prepared:
    """Read, judge and convert one file. Shape: 16-bit samples `[time]` at 48 kHz, empty if rejected."""
    path, known = source.path.resolve(), _origin(source)
    empty = np.zeros(0, np.int16)
    try:
        audio, rate, codec = _read_first_channel(path)
        known["sha256"] = file_sha256(path)
    except (AudioError, OSError) as error:
        return Entry(**known, kept=False, note=f"unreadable: {' '.join(str(error).split())}"), empty
    known |= {"sample_rate": rate, "duration_s": round(len(audio) / rate, 3)}
    known["lossless"] = _is_lossless(codec) if source.lossless is None else source.lossless
    bandwidth_hz, is_silent = source.bandwidth_hz, not audio.any()
    if bandwidth_hz is None:
        meter = BandwidthMeter(rate)
        meter.push(audio)
        found = meter.result()
        bandwidth_hz, is_silent = found.cutoff_hz, found.is_silent
    bandwidth_hz = min(bandwidth_hz, rate / 2)
    known["bandwidth_hz"] = round(bandwidth_hz, 1)
    if is_silent:
        return Entry(**known, kept=False, note="silent"), empty
    if bandwidth_hz < options.min_bandwidth_hz:
        note = f"narrow: its band ends at {bandwidth_hz:.0f} Hz, {options.min_bandwidth_hz:.0f} Hz are needed"
        return Entry(**known, kept=False, note=note), empty
    if options.trim:
        audio = trim(audio, rate)
    if len(audio) < MIN_SECONDS * rate:
        return Entry(**known, kept=False, note=f"short: less than {MIN_SECONDS} s of sound"), empty
    whole = resample(audio, rate, SAMPLE_RATE)
    samples = np.clip(np.round(whole * 32768.0), -32768, 32767).astype("<i2")
    note = "" if bandwidth_hz >= FULL_BAND_HZ else f"marked: its band ends at {bandwidth_hz:.0f} Hz"
    return Entry(**known, kept=True, note=note), samples


def _read_first_channel(path: Path) -> tuple[npt.NDArray[np.float32], int, str]:
    """The first channel: a mix of microphones would add comb filters. Shape: `[time]`, rate, codec."""
    with open_reader(path) as reader:
        audio = reader.samples(slice(1))[0]
        return audio, reader.info.sample_rate, f"{reader.info.container} {reader.info.codec}"


def _is_lossless(codec: str) -> bool:
    return not any(name in codec.lower() for name in LOSSY)


def trim(audio: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float32]:
    """Cut silence at both ends, 50 dB below the loudest 10 ms, but a margin. Shape: `[time]` to `[less]`."""
    cell = max(1, round(CELL_S * sample_rate))
    count = len(audio) // cell
    if count == 0:
        return audio
    power = np.square(audio[: count * cell].reshape(count, cell)).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (TRIM_DB / 10))
    if not len(loud):
        return audio
    margin = round(MARGIN_S * sample_rate)
    return audio[max(0, loud[0] * cell - margin) : (loud[-1] + 1) * cell + margin]


def _finish(folder: Path, entries: list[Entry], valid_speakers: Sequence[str]) -> Summary:
    """Write `clips.json` and `manifest.csv` and count."""
    kept = [entry for entry in entries if entry.kept]
    given = {entry.speaker: entry.split for entry in kept}
    splits = assign_splits(given, valid_speakers)
    summary = Summary(kept=len(kept), narrow=sum(entry.note.startswith("marked") for entry in kept))
    clips: list[dict[str, Any]] = []
    for entry in kept:
        split = _split_of(entry, splits)
        summary.hours[split] = summary.hours.get(split, 0.0) + entry.length / SAMPLE_RATE / 3600
        names = ("offset", "length", "source", "speaker", "licence", "bandwidth_hz", "lossless")
        clips.append({**{name: getattr(entry, name) for name in names}, "split": split})
    for split in summary.hours:
        summary.speakers[split] = len({clip["speaker"] for clip in clips if clip["split"] == split})
    for entry in entries:
        if not entry.kept:
            reason = entry.note.split(":")[0]
            summary.rejected[reason] = summary.rejected.get(reason, 0) + 1
    write_atomic(folder / CLIPS_FILE, json.dumps(clips))
    _write_manifest(folder / MANIFEST, entries, splits)
    return summary


def _split_of(entry: Entry, splits: dict[str, str]) -> str:
    """Speakers chosen for validation go there whole; else a file's own split, else its speaker's."""
    own = splits[entry.speaker]
    return own if own == "valid" or not entry.split else entry.split


def _write_manifest(path: Path, entries: list[Entry], splits: dict[str, str]) -> None:
    columns = [name for name in Entry.__dataclass_fields__ if name not in ("offset", "length")]
    with atomic_file(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, columns, extrasaction="ignore")
        writer.writeheader()
        for entry in entries:
            row = asdict(entry)
            row["split"] = _split_of(entry, splits) if entry.kept else ""
            writer.writerow(row)
