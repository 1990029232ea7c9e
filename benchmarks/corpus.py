"""What `hifispeech corpus` gets through on this machine, and what that means for many hours on many machines.

python benchmarks/corpus.py --price 0.10 --price 0.40 --machine-cores 8
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common.report import ROOT, THREAD_VARIABLES, provenance, table, write_page

import hifispeech
from hifispeech.runs.corpus.ray import plan_batches
from hifispeech.runs.corpus.store import Source

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clip", type=Path, default=ROOT / "examples" / "phone_8k.wav", help="repeated")
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each file")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--hours", type=float, default=10_000.0, help="of audio, for the arithmetic")
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--machine-cores", type=int, default=8, help="of a machine that is rented")
    parser.add_argument("--efficiency", type=float, default=0.8, help="share of the local rate a core keeps")
    parser.add_argument("--price", type=float, action="append", help="of a machine an hour; repeat it")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "corpus.md")
    options = parser.parse_args()
    if options.files < 8 * max(options.workers):
        parser.error(f"--files {options.files}: pass 8 for each of {max(options.workers)} workers or more")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(options.clip, folder / "in", options.files, options.seconds)
        runs = [measure(folder, workers, options) for workers in options.workers]
    best = max(factor / workers for workers, _, factor in runs)
    write_page(options.out, page(options, runs, best))


def make_files(clip: Path, folder: Path, count: int, seconds: float) -> None:
    """`count` files of `seconds`, all different: the clip repeated, each from another start and level."""
    audio, sample_rate = hifispeech.read(clip)
    length = round(seconds * sample_rate)
    rng = np.random.default_rng(SEED)
    folder.mkdir()
    for number in range(count):
        start = int(rng.integers(audio.shape[1]))
        repeats = math.ceil((start + length) / audio.shape[1])
        part = np.tile(audio, repeats)[:, start : start + length] * rng.uniform(0.5, 1.0)
        hifispeech.write(folder / f"{number:04}.wav", part.astype(np.float32), sample_rate)


def batch_files(files: int, workers: int) -> int:
    """Files of a batch, as `plan_batches` makes them of files of one length."""
    return len(plan_batches([Source(str(number), 1, "") for number in range(files)], workers)[0])


def measure(folder: Path, workers: int, options: argparse.Namespace) -> tuple[int, float, float]:
    """(workers, seconds, times real time) from the first rows to the last: without the start of Ray."""
    output = str(folder / f"out{workers}")
    command = [sys.executable, "-m", "hifispeech", "corpus", str(folder / "in"), "-o", output]
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
    times: list[float] = []
    with subprocess.Popen(
        [*command, "--json", "--workers", str(workers)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        for _ in process.stdout:
            times.append(time.perf_counter())
    if process.returncode or len(times) != options.files:
        raise SystemExit(f"the run failed with exit code {process.returncode}")
    # Counted from when each worker has ended a batch, whose rows arrive together.
    first_rows = workers * batch_files(options.files, workers)
    seconds = times[-1] - times[first_rows - 1]
    return workers, seconds, (options.files - first_rows) * options.seconds / seconds


def page(options: argparse.Namespace, runs: list[tuple[int, float, float]], rate: float) -> list[str]:
    """The Markdown: what was measured, then the arithmetic."""
    per_machine = rate * options.machine_cores * options.efficiency
    lines = ["# Throughput of a corpus run", "", *provenance(SEED, "one a worker"), ""]
    lines += [
        f"{options.files} files of {options.seconds:g} s at 8 kHz to FLAC at 48 kHz, without the start.",
        "",
    ]
    rows = [[str(workers), f"{seconds:.1f}", f"{factor:.0f}"] for workers, seconds, factor in runs]
    lines += [*table(["workers", "seconds", "times real time"], rows), ""]
    lines += [f"## {options.hours:,.0f} hours of audio", ""]
    lines += [
        f"Arithmetic, not measurement: {rate:.0f}x real time for a core as above, machines of "
        f"{options.machine_cores} cores that keep {options.efficiency:.0%} of it: {per_machine:.0f}x each.",
        "Prices are inputs, not facts.",
        "",
    ]
    prices = options.price or []
    header = ["machines", "hours of wall clock", *(f"cost at {price:g} a machine-hour" for price in prices)]
    rows = []
    for machines in options.machines:
        hours = options.hours / (per_machine * machines)
        rows.append([str(machines), f"{hours:.1f}", *(f"{hours * machines * price:.2f}" for price in prices)])
    lines += table(header, rows)
    for price in prices:
        lines += ["", f"At {price:g} a machine-hour, an hour of audio costs {price / per_machine:.6f}."]
    return lines


if __name__ == "__main__":
    main()
