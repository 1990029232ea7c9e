"""Ways to run the paper's network, and what each costs: time, memory of the weights, change of the output.

    python benchmarks/paper_speed.py                       # the paper's sizes, random weights; ten minutes
    python benchmarks/paper_speed.py --model hifisr-paper.safetensors
    python benchmarks/paper_speed.py --size hifisr_small --seconds 4

Every round runs all ways once, one after the other, so that a busy machine disturbs them alike; the tables
give the medians. The output of each is compared with that of the first by LSD: since LSD is a mean of
distances, the score of a way against any truth differs from that of the first by no more. Needs the extra
`train`. Writes docs/benchmarks/paper_speed.md.
"""

import argparse
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import report
import torch
from speed import interleaved, session, speech

from hifispeech.audio.resample import resample
from hifispeech.evaluate.metrics import lsd
from hifispeech.infer.waveform import level_gain
from hifispeech.models.hifisr import HIFISR_CONFIGS, HiFiSR, export_onnx, load_hifisr
from hifispeech.models.hifisr.fast_conv import speed_up

RATE, HOP = 48000, 256
Run = Callable[[], np.ndarray]
FIRST = "eager"
WAYS = {
    FIRST: "PyTorch float32 as trained: eager, weight norm",
    "folded": "the same, weight norm folded",
    "bf16": "folded, bfloat16 autocast",
    "fast": "folded, long kernels by Fourier tiles: what `Upscaler` runs",
    "onnx": "ONNX Runtime float32: `hifispeech export`",
    "int8": "ONNX Runtime, dynamic int8 (Conv and MatMul)",
}


def main() -> int:
    args = parse_args()
    torch.set_num_threads(args.threads)
    audio = clip(args.seconds)
    with tempfile.TemporaryDirectory(dir=args.tmp) as folder, torch.inference_mode():
        runs = {name: make(name, args, audio, Path(folder)) for name in args.ways}
        outputs = {name: run() for name, run in runs.items()}
        times = interleaved(runs, args.repeats)
    seconds = audio.shape[-1] / RATE
    rows = []
    for name, taken in times.items():
        change = "" if name == FIRST else f"{lsd(outputs[FIRST], outputs[name], 'p1').lsd:.4f}"
        rows.append([WAYS[name], f"{taken / seconds:.2f}", f"{times[FIRST] / taken:.2f}x", change])
    header = ["how", "seconds per second of audio", "speed", "LSD to the first"]
    lines = ["# Speed of the paper's network", "", *report.provenance(args.seed, str(args.threads))]
    lines += [f"- PyTorch {torch.__version__}, {args.size}, {args.model or 'random weights'}", ""]
    lines += [f"A clip of {seconds:.2f} s, mono; median of {args.repeats} interleaved rounds.", ""]
    lines += [*report.table(header, rows)]
    report.write_page(args.out / "paper_speed.md", lines)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=sorted(HIFISR_CONFIGS), default="hifisr")
    parser.add_argument("--model", type=Path, help="a .safetensors of the paper's model, instead of --size")
    parser.add_argument("--ways", nargs="+", choices=sorted(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=5.12, help="length of the clip; a window has 5.12")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=report.ROOT / "docs" / "benchmarks")
    parser.add_argument("--tmp", type=Path, help="folder for temporary files (1 GB)")
    args = parser.parse_args()
    args.ways = [FIRST, *(name for name in WAYS if name in args.ways and name != FIRST)]
    return args


def clip(seconds: float) -> np.ndarray:
    """Real speech from 16 kHz at the level the network sees. Shape: `[1, 1, time]`, whole hops."""
    audio = resample(speech(seconds)[0], 16000, RATE)
    audio = audio[: len(audio) // HOP * HOP]
    return (audio * level_gain(audio))[None, None]


def network(args: argparse.Namespace) -> HiFiSR:
    """The network as trained: loaded, or with random weights that keep the level from layer to layer."""
    if args.model:
        return load_hifisr(args.model)
    torch.manual_seed(args.seed)
    model = HiFiSR(HIFISR_CONFIGS[args.size]()).eval()
    for name, value in model.named_parameters():
        if name.endswith("original0"):  # the gain of weight norm, next to nothing at the start of a training
            value.data.fill_(0.8)
    return model


def make(name: str, args: argparse.Namespace, audio: np.ndarray, folder: Path) -> Run:
    """One way to run the network on `audio`; returns `[time]`."""
    if name in ("onnx", "int8"):
        return make_onnx(name, args, audio, folder)
    model, signal = network(args), torch.from_numpy(audio)
    if name != FIRST:
        model.fold()
    if name == "fast":
        speed_up(model)

    def run() -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):
            return model(signal)[0, 0].float().numpy()

    return run


def make_onnx(name: str, args: argparse.Namespace, audio: np.ndarray, folder: Path) -> Run:
    path = folder / "model.onnx"
    if not path.exists():
        with warnings.catch_warnings(), torch.inference_mode(False):
            warnings.simplefilter("ignore")
            export_onnx(network(args).fold(), path)
    if name == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole, path = path, folder / "int8.onnx"
        quantize_dynamic(whole, path, weight_type=QuantType.QInt8, per_channel=True)
    runtime = session(path, args.threads)
    return lambda: np.asarray(runtime.run(None, {"audio": audio})[0])[0, 0]


if __name__ == "__main__":
    raise SystemExit(main())
