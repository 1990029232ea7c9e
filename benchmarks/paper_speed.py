"""Ways to run the paper's network, and what each costs: time, and change of the output.

    python benchmarks/paper_speed.py                       # the paper's sizes, random weights; four minutes
    python benchmarks/paper_speed.py --model hifisr-paper.safetensors
    python benchmarks/paper_speed.py --threads 1 --cpu-time --seconds 0.64     # on a busy machine
    python benchmarks/paper_speed.py --size hifisr_small --seconds 4

Every round runs all ways once, one after the other, so that a busy machine disturbs them alike; the tables
give the medians. The output of each is compared with that of the first by LSD: since LSD is a mean of
distances, the score of a way against any truth differs from that of the first by no more. bfloat16 is left
out where the processor has no instructions for it: emulated, it takes minutes. Needs the extra
`train` and 4 GB of memory. Half of the time goes into the export to ONNX; `--onnx FILE` keeps it for the next
run. Writes docs/benchmarks/paper_speed.md.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from common import report
from common.paper import randomise
from common.timing import session, speech

from hifispeech.audio.resample import resample
from hifispeech.evaluate.metrics import lsd
from hifispeech.infer.windows import level_gain
from hifispeech.models.conv import plain_layers
from hifispeech.models.hifisr import HIFISR_CONFIGS, HiFiSR, export_onnx, load_hifisr
from hifispeech.models.hifisr.fast_conv import speed_up

RATE, HOP = 48000, 256
Run = Callable[[], np.ndarray]
FIRST = "eager"
WAYS = {
    FIRST: "PyTorch float32 eager, its own layers, weight norm",
    "folded": "the same, weight norm folded",
    "bf16": "folded, bfloat16 autocast",
    "fast": "folded, convolutions by Fourier tiles and channels last: what `Upscaler` runs",
    "onnx": "ONNX Runtime float32: `hifispeech export`",
    "int8": "ONNX Runtime, dynamic int8, MatMul (the encoder)",
    "int8-all": "ONNX Runtime, dynamic int8, Conv and MatMul",
}


def main() -> int:
    args = parse_args()
    torch.set_num_threads(args.threads)
    audio = clip(args.seconds)
    with tempfile.TemporaryDirectory(dir=args.tmp) as folder, torch.inference_mode():
        runs = {name: make(name, args, audio, Path(folder)) for name in args.ways}
        times, outputs = measured(runs, args)
    seconds = audio.shape[-1] / RATE
    rows = []
    for name, taken in times.items():
        change = "" if name == FIRST else f"{lsd(outputs[FIRST], outputs[name], 'p1').lsd:.4f}"
        cells = [f"{taken / seconds:.2f}", f"{seconds / taken:.2f}x", f"{times[FIRST] / taken:.2f}x", change]
        rows.append([WAYS[name], *cells])
    what = "CPU seconds" if args.cpu_time else "seconds"
    header = ["how", f"{what} per second of audio", "real time", "against the first", "LSD to the first"]
    lines = ["# Speed of the paper's network", "", *report.provenance(args.seed, str(args.threads))]
    lines += [f"- PyTorch {torch.__version__}, {args.size}, {args.model or 'random weights'}", ""]
    lines += [f"A clip of {seconds:.2f} s, mono; median of {args.repeats} interleaved rounds.", ""]
    lines += [*report.table(header, rows)]
    if "bf16" in WAYS.keys() - set(args.ways) and not has_bfloat16():
        lines += ["", "bfloat16 is not in the table: this processor has no instructions for it."]
    report.write_page(args.out / "paper_speed.md", lines)
    return 0


def measured(
    runs: dict[str, Run], args: argparse.Namespace
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Median seconds and output of each way; every round runs all of them once, the first to warm up."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    outputs: dict[str, np.ndarray] = {}
    for round_ in range(args.repeats + 1):
        for name, run in runs.items():
            time.sleep(0.1)  # lets the thread pool of the one before stop spinning
            started = clock()
            outputs[name] = run()
            if round_:
                times[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in times.items()}, outputs


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers; True where the system does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=sorted(HIFISR_CONFIGS), default="hifisr")
    parser.add_argument("--model", type=Path, help="a .safetensors of the paper's model, instead of --size")
    ways = [name for name in WAYS if name != "bf16" or has_bfloat16()]
    parser.add_argument("--onnx", type=Path, help="the exported model; made there if it is missing")
    parser.add_argument(
        "--ways", nargs="+", choices=sorted(WAYS), default=ways, metavar="WAY", help=", ".join(WAYS)
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU time, for a busy machine; with --threads 1"
    )
    parser.add_argument("--seconds", type=float, default=1.28, help="length of the clip; a window has 5.12")
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
    """The network as trained: loaded, or with random weights."""
    if args.model:
        return load_hifisr(args.model)
    torch.manual_seed(args.seed)
    return randomise(HiFiSR(HIFISR_CONFIGS[args.size]()).eval())


def make(name: str, args: argparse.Namespace, audio: np.ndarray, folder: Path) -> Run:
    """One way to run the network on `audio`; returns `[time]`."""
    if name in ("onnx", "int8", "int8-all"):
        return make_onnx(name, args, audio, folder)
    model, signal = network(args), torch.from_numpy(audio)
    if name != FIRST:
        model.fold()
    if name == "fast":
        speed_up(model)

    layers = nullcontext if name == "fast" else plain_layers

    def run() -> np.ndarray:
        with layers(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):
            return model(signal)[0, 0].float().numpy()

    return run


def make_onnx(name: str, args: argparse.Namespace, audio: np.ndarray, folder: Path) -> Run:
    path = args.onnx or folder / "model.onnx"
    if not path.exists():
        with warnings.catch_warnings(), torch.inference_mode(False):
            warnings.simplefilter("ignore")
            export_onnx(network(args).fold(), path)
    if name != "onnx":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole, path = path, folder / f"{name}.onnx"
        kinds = ["MatMul", "Gemm", *(["Conv"] if name == "int8-all" else [])]
        quantize_dynamic(whole, path, kinds, per_channel=True, weight_type=QuantType.QInt8)
    runtime = session(path, args.threads)
    return lambda: np.asarray(runtime.run(None, {"audio": audio})[0])[0, 0]


if __name__ == "__main__":
    raise SystemExit(main())
