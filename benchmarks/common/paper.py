"""The paper's model beside the fast one, for `python benchmarks/speed.py --paper`: real time, peak memory.

The weights are random: neither figure depends on them.
"""

import argparse
from pathlib import Path

import torch

from common import report, timing
from hifispeech import Upscaler
from hifispeech.models.hifisr import HIFISR_CONFIGS, HiFiSR, save_hifisr

SECONDS = 2.56
SMALL = "hifisr_small"


def section(args: argparse.Namespace, folder: Path) -> list[str]:
    """Real-time factors at full size on a short clip, and peak memory of the small size on long files."""
    return [
        "## The model of the paper beside it",
        "",
        *networks(args, folder),
        "",
        f"Peak memory of `hifispeech upscale --model` with `{SMALL}` (the same structure and windows), mono:",
        "",
        *memory(args, folder),
    ]


def networks(args: argparse.Namespace, folder: Path) -> list[str]:
    """Samples in, samples out, interleaved; what `Upscaler` runs."""
    torch.set_num_threads(args.threads)
    clip = timing.speech(SECONDS)[0]
    runs = {}
    for name in (args.model, "hifisr"):
        model = name if name == args.model else random_model(name, args.seed, folder)
        upscaler = Upscaler(model, "cpu", threads=args.threads)
        runs[name] = lambda upscaler=upscaler: upscaler.process(clip, timing.RATE_IN, cutoff_hz=7500)
    times = timing.interleaved(runs, repeats=3)
    rows = [
        [f"`{Path(name).name}`", f"{1000 * taken:.0f}", f"{SECONDS / taken:.2f}x"]
        for name, taken in times.items()
    ]
    return [
        f"A clip of {SECONDS} s, end to end, {args.threads} threads, median of 3 rounds in turn; `hifisr`",
        "at full size (109.6 M) with random weights, in PyTorch. [Other ways to run it](paper_speed.md).",
        "",
        *report.table(["model", "ms", "real time"], rows),
    ]


def memory(args: argparse.Namespace, folder: Path) -> list[str]:
    """Peak resident memory of the command line program."""
    model, source = random_model(SMALL, args.seed, folder), folder / "long.wav"
    rows, peaks = [], []
    for minutes in args.paper_minutes:
        timing.write_speech(source, 60 * minutes, channels=1)
        command = [*timing.program(), "upscale", str(source), "-o", str(folder / "long_out.wav"), "--force"]
        peaks.append(timing.peak_mb([*command, "--model", str(model), "--device", "cpu"]))
        rows.append([f"{minutes} min", f"{peaks[-1]:.0f}"])
    growth = 100 * (peaks[1] / peaks[0] - 1)
    return [*report.table(["file", "peak MB"], rows), "", f"The longer against the shorter: {growth:+.1f} %."]


def random_model(size: str, seed: int, folder: Path) -> Path:
    """A model file with the random weights of `randomise`."""
    path = folder / f"{size}.safetensors"
    torch.manual_seed(seed)
    save_hifisr(randomise(HiFiSR(HIFISR_CONFIGS[size]())), path, force=True)
    return path


def randomise(model: HiFiSR) -> HiFiSR:
    """Make the level stay from layer to layer, in place."""
    for name, value in model.named_parameters():
        if name.endswith("original0"):  # the gain of weight norm, next to nothing at the start of a training
            value.data.fill_(0.8)
    return model
