"""Before and after, to listen to: short clips that a browser plays, and the page that holds them.

    python benchmarks/listen.py --data ../shared/data

Takes examples/phone_8k.wav and, from DATA/manifest.csv, recordings of the split `valid` under a permissive
licence: speakers that no packaged model was trained on. Each recording is brought to 4, 8 and 16 kHz and back
up by the default model, which hears all of it; the page plays the loudest seconds. Writes docs/listen.md and
docs/listen/*.ogg (Opus, mono).
"""

import argparse
import csv
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from common import report

from hifispeech import Upscaler, read, write
from hifispeech.audio.resample import resample
from hifispeech.evaluate.lowrate import METHODS, low_rate
from hifispeech.files import write_atomic
from hifispeech.weights.packaged import DEFAULT, read_model

Samples = npt.NDArray[np.float32]
RATE = 48000
PAGE = report.ROOT / "docs" / "listen.md"
CLIPS = report.ROOT / "docs" / "listen"
PHONE = report.ROOT / "examples" / "phone_8k.wav"
PERMISSIVE = ("MIT", "CC0 1.0")
TERMS = {  # kept beside the clips, as the licence wants
    "Sakshee5/alphanumeric-audio-dataset": "copyright (c) 2024 Sakshee Patil, [licence](listen/LICENSE.txt)"
}
FULL_BAND_HZ = 20_000
LOUDEST_PEAK = 0.7  # of the clips of one recording, which all get the same gain
MOST_BYTES = 2_000_000


class Recording(NamedTuple):
    """A recording of the manifest, and what has to be said where it is played."""

    path: Path
    source: str
    licence: str
    speaker: str


def main() -> int:
    args = parse_args()
    recordings = choose(args.data, args.recordings)
    upscaler = Upscaler()
    made = [phone(upscaler, args.seconds)]
    for name, recording in named(recordings):
        made += clips_of(upscaler, recording, name, args.rates, args.seconds)
    written = {path for row in made for path in row[1:] if path is not None}
    for stale in set(CLIPS.glob("*.ogg")) - written:
        stale.unlink()
    total = sum(path.stat().st_size for path in written)
    if total > MOST_BYTES:
        raise SystemExit(f"the clips take {total} bytes, more than {MOST_BYTES}; pass fewer --seconds")
    write_atomic(PAGE, "\n".join(page(made, recordings)) + "\n")
    print(f"{PAGE}: {len(written)} clips, {total / 1e6:.2f} MB")
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv and recordings")
    parser.add_argument("--recordings", type=int, default=3, help="how many, each of another speaker")
    parser.add_argument("--rates", type=int, nargs="+", default=[4000, 8000, 16000], help="input rates in Hz")
    parser.add_argument("--seconds", type=float, default=3.5, help="length of a clip")
    return parser.parse_args()


def choose(data: Path, count: int) -> list[Recording]:
    """The first full-band speech recording of each of the first speakers held out for validation."""
    found: dict[str, Recording] = {}
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] != "valid" or row["kind"] != "speech" or row["licence"] not in PERMISSIVE:
                continue
            if row["lossless"] == "1" and float(row["bandwidth_hz"]) >= FULL_BAND_HZ:
                recording = Recording(data / row["path"], row["source"], row["licence"], row["speaker"])
                found.setdefault(row["speaker"], recording)
    if len(found) < count:
        raise SystemExit(f"{data}/manifest.csv has {len(found)} such speakers; pass fewer --recordings")
    return list(found.values())[:count]


Row = tuple[str, Path | None, Path | None, Path | None]  # title, input, result, truth


def phone(upscaler: Upscaler, seconds: float) -> Row:
    """The example of this repository; the line cut its band off, and there is no truth here."""
    audio, rate = read(PHONE)
    plain, result = resample(audio[0], rate, RATE), upscaler.process(audio[0], rate)
    input_path, result_path = save({"phone-input": plain, f"phone-{DEFAULT}": result}, seconds)
    return "a telephone, 8 kHz", input_path, result_path, None


def clips_of(
    upscaler: Upscaler, recording: Recording, name: str, rates: list[int], seconds: float
) -> Iterator[Row]:
    """Input and result at each rate, and the truth."""
    audio, own_rate = read(recording.path)
    truth = resample(audio[0], own_rate, RATE)
    signals = {f"{name}-truth": truth}
    for rate in rates:
        narrow = low_rate(truth, rate)
        signals[f"{name}-{rate}-input"] = fitted(resample(narrow, rate, RATE), len(truth))
        signals[f"{name}-{rate}-{DEFAULT}"] = fitted(upscaler.process(narrow, rate), len(truth))
    truth_path, *paths = save(signals, seconds)
    for rate, input_path, result_path in zip(rates, paths[::2], paths[1::2], strict=True):
        yield f"{name}, {rate / 1000:g} kHz", input_path, result_path, truth_path


def fitted(audio: Samples, length: int) -> Samples:
    """The same with this many samples: a low rate may not hold the length exactly. Shape: `[time]`."""
    return np.pad(audio, (0, max(0, length - len(audio))))[:length]


def save(signals: dict[str, Samples], seconds: float) -> list[Path]:
    """Write the loudest part, the same one of every signal and with the same gain, as Opus."""
    first = next(iter(signals.values()))
    length = min(round(seconds * RATE), len(first))
    energy = np.concatenate([[0.0], np.cumsum(np.square(first, dtype=np.float64))])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    parts = {name: audio[start : start + length] for name, audio in signals.items()}
    gain = np.float32(LOUDEST_PEAK / max(np.abs(part).max() for part in parts.values()))
    CLIPS.mkdir(parents=True, exist_ok=True)
    paths = [CLIPS / f"{name}.ogg" for name in parts]
    for path, part in zip(paths, parts.values(), strict=True):
        write(path, gain * part[None], RATE, encoding="opus", force=True)
    return paths


def page(rows: list[Row], recordings: list[Recording]) -> list[str]:
    """The lines of docs/listen.md."""
    sources = sorted({(recording.source, recording.licence) for recording in recordings})
    return [
        "# Listen",
        "",
        f"Before and after, with the default model [`{DEFAULT}`](models/{DEFAULT}.md). The input is what a",
        "plain resampler makes of the low rate at 48 kHz; the truth is the recording that the input was",
        "made of. Use headphones: small loudspeakers hide the difference.",
        "",
        f"| clip | input | `{DEFAULT}` | truth |",
        "|---|---|---|---|",
        *(f"| {title} | {player(a)} | {player(b)} | {player(c)} |" for title, a, b, c in rows),
        "",
        "## Where the clips come from",
        "",
        "- **Telephone.** `examples/phone_8k.wav` (CC0 1.0), 300 to 3400 Hz; the README beside it names its",
        "  source. `offline` was trained on the recording it was made of, among others: the voices below are",
        "  the better test.",
        "- **Voices.** The models were not trained on these speakers. The clips are the first recordings of",
        "  the list that fit, not the best ones.",
        *(f"    - {name}: {r.speaker}, `{r.path.name}`" for name, r in named(recordings)),
        *(f"    - source: [{s}](https://github.com/{s}), {terms(s, licence)}" for s, licence in sources),
        f"- **Low rates.** {METHODS['sinc']}.",
        "- **Clips.** The model heard each recording as a whole; the page plays the loudest seconds. All",
        "  clips of a recording have the same gain. They are Opus at 131 kbit/s, which ends at 20 kHz: to",
        "  measure, upscale the recordings yourself.",
        "",
        "## How it was made",
        "",
        *report.provenance(),
        f"- model: `{DEFAULT}`, SHA-256 {hashlib.sha256(read_model(DEFAULT)).hexdigest()[:16]}...",
    ]


def named(recordings: list[Recording]) -> Iterator[tuple[str, Recording]]:
    """Each recording with its name on the page."""
    return ((f"voice{number}", recording) for number, recording in enumerate(recordings, 1))


def terms(source: str, licence: str) -> str:
    return f"{licence}, {TERMS[source]}" if source in TERMS else licence


def player(path: Path | None) -> str:
    if path is None:
        return ""
    source = path.relative_to(PAGE.parent).as_posix()
    return (
        f'<audio controls preload="none" style="width: 11em" src="{source}">'
        f'<a href="{source}">{path.stem}</a></audio>'
    )


if __name__ == "__main__":
    sys.exit(main())
