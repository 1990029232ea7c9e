"""Throughput of a folder run with one worker, two and more, and what resuming a finished run costs.

    python benchmarks/folders.py                 # about two minutes on a quiet machine
    python benchmarks/folders.py --workers 1 2 4 8 --files 64

Runs `hifispeech upscale` on a folder of copies of the packaged clip, one thread in each worker. Rounds are
interleaved, so that a busy machine disturbs all alike; start-up (loading the model in each process) is
measured by a run over one very short file for each worker and is included in the times. Writes
docs/benchmarks/folders.md.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from common import report

SPEECH = report.ROOT / "tests" / "data" / "speech_48k.flac"
RATE = 16000
GOAL = 1.8


def main() -> int:
    args = parse_args()
    with tempfile.TemporaryDirectory(dir=args.tmp) as name:
        work = Path(name)
        audio_s = make_folder(work / "in", args.files, args.seconds)
        make_folder(work / "short", max(args.workers), 0.1)
        times: dict[int, list[float]] = {count: [] for count in args.workers}
        starts: dict[int, list[float]] = {count: [] for count in args.workers}
        for _ in range(args.repeats):
            for count in args.workers:
                starts[count].append(upscale(work / "short", work / "none", count, "--force"))
                times[count].append(upscale(work / "in", work / "out", count, "--force"))
        resumed = [upscale(work / "in", work / "out", count, "--resume") for count in args.workers]
    lines = ["# Folders", "", *report.provenance(seed=0, threads="1 in each worker"), ""]
    lines += [f"{args.files} files of {args.seconds:g} s, 16 kHz, mono WAV ({audio_s:.0f} s of audio).", ""]
    lines += [f"Median of {args.repeats} interleaved rounds.", "", *throughput(times, starts, audio_s)]
    lines += [
        "",
        "## A finished run, resumed",
        "",
        "All files are hashed, none is upscaled.",
        "",
    ]
    rows = [[str(count), f"{seconds:.1f}"] for count, seconds in zip(args.workers, resumed, strict=True)]
    lines += report.table(["workers", "seconds"], rows)
    report.write_page(args.out / "folders.md", lines)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers to compare")
    parser.add_argument("--files", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tmp", type=Path, help="folder for the files; a fast disk")
    parser.add_argument("--out", type=Path, default=report.ROOT / "docs" / "benchmarks")
    return parser.parse_args()


def make_folder(folder: Path, files: int, seconds: float) -> float:
    """Files of real speech, each from another place of the clip; returns their duration in seconds."""
    folder.mkdir()
    speech, rate = soundfile.read(SPEECH, dtype="float32")
    speech = speech[:: rate // RATE]  # aliased, which does not matter for speed
    frames = round(seconds * RATE)
    for number in range(files):
        start = number * len(speech) // files
        soundfile.write(folder / f"{number:04}.wav", np.resize(np.roll(speech, -start), frames), RATE)
    return files * frames / RATE


def upscale(source: Path, target: Path, workers: int, *options: str) -> float:
    """Seconds that the command took, from start to end."""
    words = [sys.executable, "-m", "hifispeech", "upscale", source, "-o", target, "--workers", workers, "-q"]
    environment = {**os.environ, **dict.fromkeys(report.THREAD_VARIABLES, "1")}
    started = time.perf_counter()
    subprocess.run([*map(str, words), *options], check=True, env=environment)
    return time.perf_counter() - started


def throughput(times: dict[int, list[float]], starts: dict[int, list[float]], audio_s: float) -> list[str]:
    """The table, and how the goal was met."""
    median = {count: statistics.median(seconds) for count, seconds in times.items()}
    work = {count: median[count] - statistics.median(starts[count]) for count in times}
    first = min(times)
    rows = [
        [
            str(count),
            f"{median[count]:.1f}",
            f"{statistics.median(starts[count]):.1f}",
            f"{audio_s / median[count]:.0f}x",
            f"{median[first] / median[count]:.2f}",
            f"{work[first] / work[count]:.2f}",
        ]
        for count in times
    ]
    header = ["workers", "seconds", "of them start-up", "real time", "speed-up", "speed-up without start-up"]
    lines = report.table(header, rows)
    if {1, 2} <= set(times):
        speed_up = median[1] / median[2]
        verdict = "met" if speed_up >= GOAL else "not met"
        goal = f"Goal, at least {GOAL}x from one to two workers, start-up included"
        lines += ["", f"{goal}: {speed_up:.2f}x, {verdict}."]
    return lines


if __name__ == "__main__":
    sys.exit(main())
