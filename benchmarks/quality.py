"""Quality of the systems on an evaluation set: LSD and ViSQOL per set, input rate and system.

    python benchmarks/quality.py --data ../shared/data --visqol

Reads DATA/eval/<set>/<speaker>/*.flac (48 kHz), makes each low-rate input with soxr VHQ (a linear-phase sinc
filter, flat up to 0.91 of the new Nyquist frequency), runs every system on it and compares with the
original. Every result is kept in the cache under a hash of the recording, the system's code and weights and
the measures, so an interrupted run goes on where it stopped. Writes docs/benchmarks/quality.md, quality.csv
(one line a file) and spectrograms of three clips. Exit code 1 if a file failed: means are then over the
others, and the page says which are missing.
"""

import argparse
import csv
import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import report
import soundfile

from hifispeech import Upscaler
from hifispeech.audio.resample import resample
from hifispeech.errors import HifispeechError
from hifispeech.evaluate import baselines, metrics, plots

PACKAGE = Path(metrics.__file__).resolve().parents[1]
RATE = 48000
RATES = (4000, 8000, 12000, 16000, 24000)
SYSTEMS = ("fast", "resample", "mirror", "mirror12")
VALUES = ("lsd", "lsd_low", "lsd_high", "lsd_p2", "visqol")
FIELDS: tuple[str, ...] = ("file", "set", "speaker", "rate", "system", *VALUES, "real_time_factor", "error")
# Chosen once: the clip with most fricative energy of each kind, so that hiss above the cutoff can be judged.
CLIPS = (
    ("fricatives", "ravdess_speech/actor23/03-01-07-02-02-02-23.flac", "male speech, strong s and z"),
    ("speech", "ravdess_speech/actor20/03-01-03-01-02-02-20.flac", "female speech"),
    ("song", "ravdess_song/actor04/03-02-04-02-02-02-04.flac", "female song"),
)

Row = dict[str, str | float]


@dataclass(frozen=True)
class Job:
    """One recording to score with every system at every rate."""

    path: Path
    name: str  # set/speaker/file
    systems: tuple[str, ...]
    rates: tuple[int, ...]
    digests: dict[str, str]  # of each system's code and weights
    model: str
    visqol: bool
    cache: Path


def main() -> int:
    args = parse_args()
    os.environ |= dict.fromkeys(report.THREAD_VARIABLES, "1")  # for the workers: NumPy reads it on import
    jobs = find_jobs(args)
    started = time.perf_counter()
    rows: list[Row] = []
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(score_file, job) for job in jobs]
        for count, future in enumerate(as_completed(futures), 1):
            rows += future.result()
            seconds = time.perf_counter() - started
            print(f"\r{count}/{len(jobs)} files, {seconds:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows.sort(key=lambda row: (row["file"], row["rate"], args.systems.index(str(row["system"]))))
    write_csv(args.out / "quality.csv", rows)
    figures = draw_figures(args)
    report.write_page(args.out / "quality.md", page(args, rows, figures))
    failed = [row for row in rows if row["error"]]
    for row in failed[:10]:
        print(f"failed: {row['file']} {row['rate']} Hz {row['system']}: {row['error']}", file=sys.stderr)
    return 1 if failed else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds eval/<set>/<speaker>/*.flac"
    )
    parser.add_argument("--systems", type=_names, default=SYSTEMS, help=f"default: {','.join(SYSTEMS)}")
    parser.add_argument("--rates", type=_rates, default=RATES, help="input rates in Hz, comma-separated")
    parser.add_argument(
        "--visqol", action="store_true", help="also ViSQOL: about 0.8 s of CPU per second of audio"
    )
    parser.add_argument(
        "--visqol-every", type=int, default=1, metavar="N", help="ViSQOL on every Nth file of a set only"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth file of a set only")
    parser.add_argument(
        "--model", default="fast", help='weights (.onnx) that "fast" stands for; default: the packaged'
    )
    parser.add_argument("--out", type=Path, default=report.ROOT / "docs" / "benchmarks")
    parser.add_argument("--cache", type=Path, default=report.ROOT / "runs" / "quality-cache")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--figure-rate", type=int, default=8000, help="input rate of the spectrograms in Hz")
    args = parser.parse_args()
    args.systems, args.rates = tuple(args.systems), tuple(args.rates)
    return args


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in SYSTEMS:
            raise argparse.ArgumentTypeError(f"unknown system {name!r}; choose from {', '.join(SYSTEMS)}")
    return names


def _rates(text: str) -> tuple[int, ...]:
    rates = tuple(int(part) for part in text.split(","))
    for rate in rates:
        if not 2000 <= rate < RATE:
            raise argparse.ArgumentTypeError(f"rate {rate} is outside 2000 to {RATE - 1} Hz")
    return rates


def find_jobs(args: argparse.Namespace) -> list[Job]:
    """A job per recording, in a fixed order."""
    folder = args.data / "eval"
    digests = {name: system_digest(name, args.model) for name in args.systems}
    jobs = []
    for set_folder in sorted(path for path in folder.glob("*") if path.is_dir()):
        files = sorted(set_folder.glob("*/*.flac"))[:: args.every]
        for index, path in enumerate(files):
            visqol = args.visqol and index % args.visqol_every == 0
            name = path.relative_to(folder).as_posix()
            jobs.append(Job(path, name, args.systems, args.rates, digests, args.model, visqol, args.cache))
    if not jobs:
        raise SystemExit(f"no eval/<set>/<speaker>/*.flac in {args.data}; pass the folder that holds eval/")
    return jobs


def system_digest(system: str, model: str) -> str:
    """Hash of all that decides a system's output and score, so that no stale number survives a change."""
    files = [PACKAGE / "audio" / name for name in ("resample.py", "spectral.py")]
    files += [PACKAGE / "evaluate" / name for name in ("metrics.py", "perceptual.py", "baselines.py")]
    if system == "fast":
        weights = [Path(model)] if Path(model).is_file() else sorted((PACKAGE / "weights").glob("*.onnx"))
        files += [
            *sorted((PACKAGE / "infer").glob("*.py")),
            *sorted((PACKAGE / "audio").glob("*.py")),
            *weights,
        ]
    digest = hashlib.sha256(system.encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def score_file(job: Job) -> list[Row]:
    """Scores of one recording: from the cache, or computed now. A failure becomes the row's `error`."""
    content = job.path.read_bytes()
    rows = []
    for rate in job.rates:
        for system in job.systems:
            key = hashlib.sha256(content + f"{rate} {job.digests[system]}".encode()).hexdigest()
            entry = job.cache / key[:2] / f"{key}.json"
            scores: dict[str, float] = json.loads(entry.read_text()) if entry.is_file() else {}
            error = ""
            if "lsd" not in scores or (job.visqol and "visqol" not in scores):
                try:
                    scores |= score(job, system, rate, visqol=job.visqol)
                    _store(entry, scores)
                except (HifispeechError, ValueError, RuntimeError) as problem:
                    error = f"{type(problem).__name__}: {problem}"
            set_name, speaker, _ = job.name.split("/", 2)
            row: Row = {"file": job.name, "set": set_name, "speaker": speaker, "rate": rate, "system": system}
            rows.append(
                row | {k: v for k, v in scores.items() if k != "visqol" or job.visqol} | {"error": error}
            )
    return rows


def score(job: Job, system: str, rate: int, *, visqol: bool) -> dict[str, float]:
    """Run one system on one recording and compare it with the original."""
    truth, low = degrade(job.path, rate)
    started = time.perf_counter()
    output = run_system(system, low, rate, job.model)
    seconds = time.perf_counter() - started
    # The input has round(n * rate / 48000) samples, so the output may differ from n by half an input sample.
    length = min(truth.size, output.size)
    if abs(truth.size - output.size) > RATE / rate:
        raise ValueError(f"output has {output.size} samples where {truth.size} were due")
    names = ["lsd", "lsd_p2", *(["visqol"] if visqol else [])]
    values = metrics.measure(truth[:length], output[:length], names, sample_rate_in=rate)
    kept = {name: round(values[name], 6) for name in VALUES if name in values}
    return kept | {"real_time_factor": round(truth.size / RATE / seconds, 2)}


def degrade(path: Path, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The original `[time]` at 48 kHz and its low-rate version `[time]`, by soxr VHQ."""
    read, file_rate = soundfile.read(path, dtype="float32")
    truth = np.asarray(read, np.float32)
    if file_rate != RATE or truth.ndim != 1:
        raise ValueError(
            f"{path.name} has {file_rate} Hz and shape {truth.shape}; evaluation clips are 48 kHz mono"
        )
    return truth, resample(truth, RATE, rate)


def run_system(system: str, low: np.ndarray, rate: int, model: str) -> np.ndarray:
    """Output of a system at 48 kHz, `[time]`."""
    if system == "fast":
        return upscaler(model).process(low, rate)
    if system == "resample":
        return baselines.resampled(low, rate)
    return baselines.mirrored(low, rate, slope_db=12.0 if system == "mirror12" else 0.0)


@lru_cache(maxsize=1)
def upscaler(model: str) -> Upscaler:
    """The model, loaded once a process; one thread, as two processes share the machine."""
    return Upscaler(model, threads=1)


def _store(entry: Path, scores: dict[str, float]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = entry.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(scores))
    temporary.replace(entry)


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw_figures(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Spectrograms of the fixed clips (input, systems, truth). Returns file name and caption."""
    figures = []
    for label, name, what in CLIPS:
        path = args.data / "eval" / name
        if not path.is_file():
            continue
        rate = args.figure_rate
        truth, low = degrade(path, rate)
        systems = [system for system in args.systems if system != "resample"]
        panels = {f"input ({rate / 1000:g} kHz)": baselines.resampled(low, rate)}
        panels |= {system: run_system(system, low, rate, args.model) for system in systems}
        panels["truth"] = truth
        figure = plots.spectrogram_figure(panels, RATE, cutoff_hz=rate / 2, columns=len(panels), title=what)
        target = plots.save_figure(figure, args.out / f"quality-{label}.png", dpi=90)
        figures.append((target.name, f"{what} (`{name}`)"))
    return figures


def page(args: argparse.Namespace, rows: Sequence[Row], figures: Sequence[tuple[str, str]]) -> list[str]:
    """The Markdown page."""
    threads = f"{args.processes} processes of 1"
    lines = ["# Quality", "", *report.provenance(threads=threads)]
    if args.model != "fast":
        lines.append(
            f"- `fast` is `{Path(args.model).name}` ({system_digest('fast', args.model)[:12]}), not shipped"
        )
    lines += ["", *EXPLANATION]
    for set_name in sorted({str(row["set"]) for row in rows}):
        part = [row for row in rows if row["set"] == set_name]
        files = len({row["file"] for row in part})
        speakers = len({row["speaker"] for row in part})
        lines += ["", f"## {set_name}", "", f"{files} clips, {speakers} speakers.", ""]
        lines += report.table(TABLE_HEADER, table_rows(part, args.systems))
    failed = [row for row in rows if row["error"]]
    if failed:
        lines += ["", f"**{len(failed)} results are missing above**, because these failed:", ""]
        lines += [
            f"- {row['file']}, {row['rate']} Hz, {row['system']}: {row['error']}" for row in failed[:50]
        ]
    if figures:
        lines += [
            "",
            "## Spectrograms",
            "",
            f"Input {args.figure_rate / 1000:g} kHz; one colour scale a row.",
        ]
    for file_name, caption in figures:
        lines += ["", f"{caption}:", "", f"![{caption}]({file_name})"]
    return lines


EXPLANATION = [
    "Input: the 48 kHz recording brought to the input rate by soxr VHQ (linear-phase sinc).",
    "Truth: the recording. LSD: protocol P1 (n_fft 2048, hop 512), whole band, below (LF) and above (HF) the",
    "input's Nyquist frequency; LSD P2 is that of ssr_eval; lower is better. ViSQOL: audio mode, 48 kHz,",
    "1 to 4.73, higher is better. Means over clips.",
    "LSD likes mirrored spectra more than listeners do: read it beside ViSQOL. Rows of plain resampling",
    "cannot be compared with other papers: both protocols measure there a distance to a floor.",
    "LSD-LF of plain resampling is all in the resampler's transition band, the last 7 % below the edge.",
    "",
    "`resample`: soxr VHQ to 48 kHz. `mirror`: the low band folded up around the cutoff until 24 kHz.",
    "`mirror12`: the same, falling by 12 dB per octave. Per-file numbers: `quality.csv`. RAVDESS",
    "(CC BY-NC-SA 4.0) is used for evaluation only.",
]
TABLE_HEADER = ("input", "system", "LSD", "LSD-LF", "LSD-HF", "LSD P2", "ViSQOL", "clips (ViSQOL)")


def table_rows(rows: Sequence[Row], systems: Sequence[str]) -> list[list[str]]:
    """Means per rate and system over the files that have the value; the last column counts them."""
    groups: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name in VALUES:
            if name in row:
                groups[int(row["rate"]), str(row["system"])][name].append(float(row[name]))
    cells = []
    for rate in sorted({int(row["rate"]) for row in rows}):
        for system in systems:
            values = groups[rate, system]
            means = [f"{np.mean(values[name]):.3f}" if values[name] else "-" for name in VALUES]
            counts = f"{len(values['lsd'])} ({len(values['visqol'])})"
            cells.append([f"{rate / 1000:g} kHz", system, *means, counts])
    return cells


if __name__ == "__main__":
    sys.exit(main())
