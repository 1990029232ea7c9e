"""Steps per second and memory of each training configuration, and how fast the shards feed it.

    python benchmarks/train_step.py                      # all of configs/, on the device found
    python benchmarks/train_step.py hifisr --batch 16    # the paper's, on a GPU

Each configuration trains on noise in a process of its own, so its peak memory is its own. The small
configuration of the paper's model runs once more unoptimised (float32, layers as PyTorch has them); on a GPU
all of the paper's do (no TF32, no compilation), and compiled. On a CPU the batch of the full-size ones is 1:
what is measured is the step, for a batch of 16 the memory would not do. Beside each figure stands that of the
estimator (`hifispeech estimate`) with the rate measured in the process. Needs the extra `train`. Writes
docs/benchmarks/train_step.md and .csv.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import report
from lightning_fabric import Fabric

from hifispeech.audio.spectral import HOP
from hifispeech.datasets.shards import AUDIO_FILE, CLIPS_FILE, SAMPLE_RATE, Shards
from hifispeech.models.conv import plain_layers
from hifispeech.train.config import FastTrainConfig, OfflineTrainConfig, TrainConfig, load
from hifispeech.train.estimate import estimate, measured_device
from hifispeech.train.run import make_task
from hifispeech.train.trainer import Trainer

CONFIGS = report.ROOT / "configs"
UNOPTIMISED, CONFIGURED, COMPILED = "float32 eager", "as configured", "compiled"
SPEAKERS, SECONDS = 4, 30


@dataclass(frozen=True)
class Row:
    """One measurement and its estimate; `rate` is what the estimator was given, operations per second."""

    configuration: str
    way: str
    device: str
    batch: int
    samples: int
    steps_per_s: float
    peak_gb: float
    estimated_steps_per_s: float
    estimated_gb: float
    rate: float


def main() -> int:
    args = parse_args()
    if args.child:
        print(json.dumps(asdict(measure(args.configurations[0], args.child, args))))
        return 0
    on_gpu = torch.cuda.is_available()
    rows = []
    for name in args.configurations:
        big = name.startswith("hifisr") and name != "hifisr_small"
        ways = [UNOPTIMISED] if name == "hifisr_small" or (big and on_gpu) else []
        ways += [CONFIGURED, COMPILED] if big and on_gpu else [CONFIGURED]
        rows += [run_child(name, way, args) for way in ways]
    lines = ["# Training steps", "", *report.provenance(args.seed, str(args.threads))]
    lines += [f"- PyTorch {torch.__version__}; device: {rows[0].device}", "", *steps_table(rows)]
    lines += ["", *feed(args, rows)]
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "train_step.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, Row.__dataclass_fields__)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    report.write_page(args.out / "train_step.md", lines)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    parser.add_argument("configurations", nargs="*", default=known, metavar="CONFIGURATION")
    parser.add_argument("--batch", type=int, help="batch size; default: as configured, on a CPU 1 if large")
    parser.add_argument("--steps", type=int, default=3, help="to be timed, after one to warm up")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU time per thread, for a busy machine"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=report.ROOT / "docs" / "benchmarks")
    parser.add_argument("--child", metavar="WAY", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_child(name: str, way: str, args: argparse.Namespace) -> Row:
    """Measure in a fresh process."""
    words = [sys.executable, __file__, name, "--child", way, "--steps", str(args.steps)]
    words += ["--threads", str(args.threads), "--seed", str(args.seed)]
    words += ["--batch", str(args.batch)] if args.batch else []
    words += ["--cpu-time"] if args.cpu_time else []
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, {way}: {done.stderr[-2000:]}")
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def measure(name: str, way: str, args: argparse.Namespace) -> Row:
    """Steps of one configuration in this process."""
    torch.set_num_threads(args.threads)
    on_gpu = torch.cuda.is_available()
    config = configured(load(CONFIGS / f"{name}.yaml"), way, args.batch, on_gpu)
    found = measured_device("here", "cuda" if on_gpu else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder), args.seed)
        fabric = Fabric(accelerator="cuda" if on_gpu else "cpu", devices=1)
        trainer = Trainer(make_task(config, Path(folder)), Path(folder) / "run", fabric)
        trainer.step = 10**6  # what joins later has joined
        batch = trainer.task.batch(0, 0, 1)
        with plain_layers() if way == UNOPTIMISED else nullcontext():
            seconds = timed(trainer, batch, args)
    if on_gpu:
        peak_gb = torch.cuda.max_memory_allocated() / 1e9
    else:
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    expected = estimate(config, found)
    rate = found.bfloat16 if config.precision == "bf16-mixed" else found.float32
    device = torch.cuda.get_device_name() if on_gpu else report.cpu_name()
    return Row(
        name,
        way,
        device,
        config.batch_size,
        segment_samples(config),
        1 / seconds,
        peak_gb,
        1 / expected.step_s,
        expected.memory_gb,
        rate,
    )


def configured(config: TrainConfig, way: str, batch: int | None, on_gpu: bool) -> TrainConfig:
    """The configuration as it is to be measured."""
    if not on_gpu:  # bfloat16 is emulated on most CPUs
        config = replace(config, precision="32-true")
        if config.batch_size == 16:
            config = replace(config, batch_size=1)
    if way == UNOPTIMISED:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        config = replace(config, precision="32-true")
    if way == COMPILED:
        config = replace(config, compile=True)
    return replace(config, batch_size=batch) if batch else config


def segment_samples(config: TrainConfig) -> int:
    """Samples of one item."""
    if isinstance(config, FastTrainConfig):
        return config.segment_frames * config.model.hop
    if isinstance(config, OfflineTrainConfig):
        return config.segment_frames * HOP
    return config.segment_samples


def timed(trainer: Trainer, batch: Any, args: argparse.Namespace) -> float:
    """Mean seconds per step, after one to warm up (three where it is compiled)."""
    for _ in range(3 if trainer.task.config.compile else 1):
        trainer.train_step([batch])
    clock = time.process_time if args.cpu_time else time.perf_counter
    share = args.threads if args.cpu_time else 1
    wait(trainer)
    started = clock()
    for _ in range(args.steps):
        trainer.train_step([batch])
    wait(trainer)
    return (clock() - started) / args.steps / share


def wait(trainer: Trainer) -> None:
    if trainer.fabric.device.type == "cuda":
        torch.cuda.synchronize()


def write_noise(folder: Path, seed: int) -> None:
    """A prepared data set of noise: speed does not depend on the sound."""
    rng = np.random.default_rng(seed)
    length = SECONDS * SAMPLE_RATE
    clips = [
        {
            "offset": i * length,
            "length": length,
            "split": "train",
            "source": "noise",
            "speaker": f"s{i}",
            "licence": "CC0",
            "bandwidth_hz": 24000.0,
            "lossless": True,
        }
        for i in range(SPEAKERS)
    ]
    audio = (rng.standard_normal(SPEAKERS * length) * 3000).astype("<i2")
    (folder / AUDIO_FILE).write_bytes(audio.tobytes())
    (folder / CLIPS_FILE).write_text(json.dumps(clips))


def steps_table(rows: list[Row]) -> list[str]:
    first = {row.configuration: row.steps_per_s for row in reversed(rows)}
    cells = [
        [
            f"`{row.configuration}`",
            row.way,
            str(row.batch),
            str(row.samples),
            f"{row.steps_per_s:.3g}",
            f"{row.steps_per_s / first[row.configuration]:.2f}x",
            f"{row.peak_gb:.2f}",
            f"{row.estimated_steps_per_s:.3g}",
            f"{row.estimated_gb:.2f}",
        ]
        for row in rows
    ]
    header = ["configuration", "how", "batch", "samples", "steps/s", "speed", "peak GB"]
    return report.table([*header, "estimated steps/s", "estimated GB"], cells)


def feed(args: argparse.Namespace, rows: list[Row]) -> list[str]:
    """What one process reads and makes per second against what the device takes."""
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder), args.seed)
        shards = Shards(Path(folder), "train")
        for row in rows:
            if row.way != CONFIGURED:
                continue
            task = make_task(load(CONFIGS / f"{row.configuration}.yaml"), Path(folder))
            taken = row.steps_per_s * row.batch * row.samples
            read = rate(lambda i, n=row.samples: shards.draw(0, i, n), 200) * row.samples
            items = task.config.batch_size
            made = rate(lambda i, t=task: t.batch(i, 0, 1), 2) * items * row.samples
            cells.append(
                [
                    f"`{row.configuration}`",
                    *(f"{value:.3g}" for value in (taken, read, made)),
                    f"{read / taken:.0f}x",
                    f"{made / taken:.1f}x",
                ]
            )
    header = ["configuration", "taken", "read", "made", "read / taken", "made / taken"]
    return [
        "## Feeding",
        "",
        "Samples per second: what the device takes, what one process reads from the shards, and what it",
        "makes with the low-rate simulation. `--workers` N makes N times the last, until the cores end.",
        "",
        *report.table(header, cells),
    ]


def rate(run: Any, count: int) -> float:
    """Calls per second."""
    run(0)
    started = time.perf_counter()
    for i in range(1, count + 1):
        run(i)
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    raise SystemExit(main())
