"""Speed of the fast model in batches on a GPU, against batch size, precision and compilation.

    python benchmarks/gpu.py                    # on a machine with CUDA; writes docs/benchmarks/gpu.md
    python benchmarks/gpu.py --page $OUT/gpu.md # the page elsewhere

Without CUDA it says so, runs a few seconds of audio on the CPU to see that all parts work, writes nothing.
Needs PyTorch and onnx (extra `train`). The audio is synthetic. Where soxr, soundfile or av are not installed,
the parts that need them (resampling, measuring, files) are left out: the STFT, the network, the inverse STFT,
the transfers and the sum remain.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from common import report

GOAL = 5000  # times real time, in batch, on an H200
AUDIO_LIBRARIES = ("soxr", "soundfile", "av")
RATE_IN, RATE = 16000, 48000
CUTOFF_BIN = RATE_IN // 2 * 2048 // RATE
LISTS = 3  # batches in a row, so that their ends overlap as in real work
MARKS = ("<!-- figures:begin -->", "<!-- figures:end -->")
NO_CUDA = (
    "No CUDA device here: a dry run on the CPU, with little audio. The figures say nothing about a GPU, "
    "and nothing is written."
)


@dataclass(frozen=True)
class Figure:
    """One way to run: times real time on the device alone, and with transfers and the CPU's part."""

    batch_size: int
    precision: str
    compiled: bool
    alone: float = 0.0
    whole: float = 0.0
    peak_gb: float = 0.0
    error: str = ""


def main() -> int:
    args = parse_args()
    missing = stand_in_for_missing()
    on_cuda = torch.cuda.is_available()
    torch.set_num_threads(args.threads)
    lines = report.provenance(args.seed, str(args.threads))
    name = torch.cuda.get_device_name() if on_cuda else "none"
    lines += [f"- GPU: {name}; PyTorch {torch.__version__}, CUDA {torch.version.cuda}", ""]
    if not on_cuda:
        print(NO_CUDA, file=sys.stderr)
        lines += [NO_CUDA, ""]
    figures = [
        figure
        for precision, compiled in itertools.product(("fp32", "bf16"), (False, True))
        if args.compile or not compiled
        for figure in measure(precision, compiled, args)
    ]
    lines += figures_table(figures, args)
    lines += ["", *sequential_and_differences(args)]
    if missing:
        lines += ["", f"Files and resampling not measured: {', '.join(missing)} not installed."]
    else:
        lines += ["", *end_to_end(args)]
    if on_cuda:
        lines += ["", verdict(figures, name)]
        write_between_marks(args.page, lines)
    print("\n".join(lines))
    return 0


def parse_args() -> argparse.Namespace:
    on_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    sizes = [1, 8, 64, 256] if on_cuda else [1, 2]
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=sizes)
    parser.add_argument(
        "--seconds", type=float, default=60.0 if on_cuda else 3.0, help="length of a recording"
    )
    parser.add_argument("--repeats", type=int, default=5 if on_cuda else 1)
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=on_cuda, help="also torch.compile"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--page", type=Path, default=report.ROOT / "docs" / "benchmarks" / "gpu.md")
    return parser.parse_args()


def stand_in_for_missing() -> list[str]:
    """Audio libraries that are not installed; empty modules take their place, so that the package, which
    imports them by the way, can be imported. Nothing here calls them.
    """
    missing = []
    for name in AUDIO_LIBRARIES:
        try:
            import_module(name)
        except ModuleNotFoundError:
            sys.modules[name] = ModuleType(name)
            missing.append(name)
    return missing


def narrow_noise(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """Noise up to 7.9 kHz whose level rises and falls as that of syllables. Shape: `[time]`."""
    count = int(seconds * rate)
    rng = np.random.default_rng(seed)
    envelope = 0.02 + 0.1 * np.sin(np.arange(count) * (2 * np.pi * 2.3 / rate)) ** 2
    spectrum = np.fft.rfft(rng.standard_normal(count) * envelope)
    spectrum[int(7900 / rate * count) :] = 0
    return np.fft.irfft(spectrum, count).astype(np.float32)


def measure(precision: str, compiled: bool, args: argparse.Namespace) -> list[Figure]:
    """Every batch size in one way, the largest first; a size that fails does not stop the others."""
    from hifispeech.infer.batch.upscaler import BatchUpscaler

    device = "cuda" if torch.cuda.is_available() else "cpu"
    upscaler = BatchUpscaler(args.model, device, precision=precision, compiled=compiled)  # type: ignore[arg-type]
    figures = []
    for size in sorted(args.batch_sizes, reverse=True):
        upscaler.batch_size = size
        try:
            figures.append(one_size(upscaler, size, precision, compiled, args))
        except RuntimeError as error:  # memory, or a compiler that is not there
            reason = str(error).strip().splitlines()[0][:80]
            figures.append(Figure(size, precision, compiled, error=reason))
    return figures[::-1]


def one_size(upscaler, size: int, precision: str, compiled: bool, args: argparse.Namespace) -> Figure:  # type: ignore[no-untyped-def]
    from hifispeech.infer.batch.network import CHUNK_FRAMES
    from hifispeech.infer.batch.rows import Chunk, Row
    from hifispeech.infer.frames import EdgeTrack

    network = upscaler.network
    edges = EdgeTrack((0,), (CUTOFF_BIN,), (CUTOFF_BIN,))
    signal = narrow_noise(args.seconds, args.seed)
    rows = [Row(signal, edges, network.look_ahead) for _ in range(size)]
    on_cuda = network.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()

    def whole() -> None:
        for _ in upscaler.generate([rows] * LISTS):
            pass

    first = min(CHUNK_FRAMES, len(rows[0].steps) - CHUNK_FRAMES)
    chunk = Chunk.of(rows, max(first, 0), CHUNK_FRAMES, pin=False)
    hops, plan = chunk.hops.to(network.device), chunk.plan.to(network.device)
    state = tuple(x.to(network.device) for x in network.initial_state(size))
    calls = 10 if on_cuda else 1

    def alone() -> None:
        for _ in range(calls):
            network.run(hops, plan, state)
        if on_cuda:
            torch.cuda.synchronize()

    alone_s, whole_s = median_s(alone, args.repeats), median_s(whole, args.repeats)
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_cuda else 0.0
    chunk_s = size * CHUNK_FRAMES * 512 / RATE
    return Figure(
        size,
        precision,
        compiled,
        calls * chunk_s / alone_s,
        LISTS * size * args.seconds / whole_s,
        peak,
    )


def median_s(run: Callable[[], object], repeats: int) -> float:
    """Median seconds after one run to warm up."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def figures_table(figures: Sequence[Figure], args: argparse.Namespace) -> list[str]:
    rows = [
        [
            str(f.batch_size),
            f.precision,
            "yes" if f.compiled else "no",
            *(
                [f.error, "", ""]
                if f.error
                else [f"{f.alone:.0f}x", f"{f.whole:.0f}x", f"{f.peak_gb:.1f}" if f.peak_gb else "-"]
            ),
        ]
        for f in figures
    ]
    header = ["batch", "precision", "compiled", "device alone", "with transfers and sum", "peak GB"]
    return [
        f"Recordings of {args.seconds:g} s at 48 kHz, mono; times real time, median of {args.repeats}.",
        "",
        *report.table(header, rows),
    ]


def sequential_and_differences(args: argparse.Namespace) -> list[str]:
    """ONNX Runtime on the CPU for comparison, and how far the batch's numbers are from its numbers."""
    from hifispeech.audio.spectral import stft
    from hifispeech.infer.batch.rows import Row
    from hifispeech.infer.batch.upscaler import BatchUpscaler
    from hifispeech.infer.frames import EdgeTrack, Generator
    from hifispeech.infer.onnx import FrameModel

    signal = narrow_noise(min(args.seconds, 10.0), args.seed + 1)
    edges = EdgeTrack((0,), (CUTOFF_BIN,), (CUTOFF_BIN,))
    model = FrameModel(args.model, "cpu", 1)
    kept: list[np.ndarray] = []

    def sequential() -> None:
        generator = Generator(model, edges)
        kept[:] = [np.concatenate([generator.push(signal), generator.flush()])]

    seconds = median_s(sequential, args.repeats)
    lines = [
        f"Sequential, ONNX Runtime, one CPU thread, the same part of the work: "
        f"{len(signal) / RATE / seconds:.0f}x."
    ]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    logs = np.log10(np.maximum(np.abs(stft(kept[0])) ** 2, 1e-8))
    for precision in ("fp32", "bf16"):
        upscaler = BatchUpscaler(args.model, device, precision=precision)
        row = Row(signal, edges, upscaler.network.look_ahead)
        list(upscaler.generate([[row]]))
        other = np.log10(np.maximum(np.abs(stft(row.audio)) ** 2, 1e-8))
        distance = np.sqrt(((other - logs) ** 2).mean(1)).mean()
        lines.append(
            f"{precision} on {device} against it: largest difference "
            f"{np.abs(row.audio - kept[0]).max():.1e} of full scale, LSD {distance:.4f}."
        )
    return lines


def end_to_end(args: argparse.Namespace) -> list[str]:
    """Arrays at 16 kHz to arrays at 48 kHz, resampling and measuring included, against the `Upscaler`."""
    from hifispeech import Upscaler
    from hifispeech.infer.batch.upscaler import BatchUpscaler

    size = max(args.batch_sizes)
    clip = narrow_noise(args.seconds, args.seed + 2, RATE_IN)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = BatchUpscaler(args.model, device, precision="bf16", batch_size=size, threads=args.threads)
    sequential = Upscaler(args.model, "cpu", threads=1)
    count = LISTS * size
    batch_s = median_s(lambda: batch.process_many([(clip, RATE_IN)] * count), args.repeats)
    alone_s = median_s(lambda: sequential.process(clip, RATE_IN), args.repeats)
    return [
        f"End to end, 16 kHz arrays to 48 kHz arrays, bandwidth measured, {args.threads} CPU threads beside "
        f"the device: {count * args.seconds / batch_s:.0f}x (bf16, batch {size}). "
        f"`Upscaler` on one CPU thread: {args.seconds / alone_s:.0f}x."
    ]


def verdict(figures: Sequence[Figure], name: str) -> str:
    best = max(figures, key=lambda figure: figure.whole)
    reached = "reached" if best.whole >= GOAL else "not reached"
    return (
        f"Goal on an H200: {GOAL}x. Best here ({name}): {best.whole:.0f}x with batch {best.batch_size}, "
        f"{best.precision}{', compiled' if best.compiled else ''}: {reached}."
    )


def write_between_marks(page: Path, lines: Sequence[str]) -> None:
    """Replace the figures of the page, or begin a page with them."""
    text = "\n".join([MARKS[0], *lines, MARKS[1]])
    if page.is_file():
        before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
        text = before + text + rest.partition(MARKS[1])[2]
    else:
        text += "\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
