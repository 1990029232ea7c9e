"""Speed and memory of the default model against a Vocos-shaped network and of one STFT and its inverse.

    python benchmarks/speed.py          # about three minutes
    python benchmarks/speed.py --long   # also peak memory for 5 and 60 minutes, and the cost of an hour
    python benchmarks/speed.py --paper  # also the paper's model; seven minutes more, needs the extra `train`

All systems run in one process, one after the other in every round, so that a busy machine disturbs them
alike; the table gives the median round. The Vocos-shaped network is exported here (needs the `train` extra)
and runs in ONNX Runtime with the settings of our own network. Writes docs/benchmarks/speed.md.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
from common import report
from common.timing import (
    RATE_IN,
    RATE_OUT,
    interleaved,
    peak_mb,
    program,
    run_quietly,
    session,
    speech,
    timed,
    write_speech,
)

from hifispeech import Upscaler
from hifispeech.audio.bands import first_band, recording_band_powers
from hifispeech.audio.resample import resample
from hifispeech.audio.spectral import HOP, N_FFT, istft, stft
from hifispeech.infer.load import Model, open_model
from hifispeech.infer.offline import OfflineModel
from hifispeech.weights.packaged import DEFAULT, STREAMING


def main() -> int:
    args = parse_args()
    with tempfile.TemporaryDirectory(dir=args.tmp) as folder:
        lines = ["# Speed", "", *report.provenance(seed=args.seed, threads=str(args.threads))]
        lines += ["", *networks(args, Path(folder))]
        lines += ["", *command_line(args, Path(folder))]
        lines += ["", *lengths(args, Path(folder))]
        if args.long:
            lines += ["", *memory(args, Path(folder))]
        if args.paper:
            from common import paper

            lines += ["", *paper.section(args, Path(folder))]
    report.write_page(args.out / "speed.md", lines)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="for all networks")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip for the first table")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default=DEFAULT, help="name or weights (.onnx) of our model")
    parser.add_argument(
        "--long", action="store_true", help="also the long files: minutes, and 1.2 GB of disk"
    )
    parser.add_argument(
        "--long-minutes", type=int, nargs=2, default=(5, 60), metavar=("SHORT", "LONG"), help="for --long"
    )
    parser.add_argument("--paper", action="store_true", help="also the paper's model: speed and peak memory")
    parser.add_argument(
        "--paper-minutes", type=int, nargs=2, default=(1, 5), metavar=("SHORT", "LONG"), help="for --paper"
    )
    parser.add_argument("--out", type=Path, default=report.ROOT / "docs" / "benchmarks")
    parser.add_argument("--tmp", type=Path, help="folder for temporary files")
    return parser.parse_args()


def networks(args: argparse.Namespace, folder: Path) -> list[str]:
    """Real-time factors of one clip, end to end and network by network."""
    from common import vocos_shaped

    clip = speech(args.seconds)[0]
    seconds = clip.size / RATE_IN
    wide = resample(clip, RATE_IN, RATE_OUT)
    frames = 1 + wide.size // HOP
    rng = np.random.default_rng(args.seed)
    vocos_path = folder / "vocos_shaped.onnx"
    vocos_shaped.export(vocos_path, args.seed)
    theirs, theirs_alone = session(vocos_path, args.threads), session(vocos_path, 1)
    upscalers = {name: Upscaler(name, threads=args.threads) for name in (args.model, STREAMING)}
    ours = {threads: open_model(args.model, "cpu", threads) for threads in (args.threads, 1)}
    logs = recording_band_powers(wide.astype(np.float32))
    first = first_band(np.full(len(logs), RATE_IN * N_FFT // (2 * RATE_OUT)))
    their_feeds = random_feeds(theirs, frames, rng)
    times = interleaved(
        {
            "end": lambda: upscalers[args.model].process(clip, RATE_IN),
            "streaming": lambda: upscalers[STREAMING].process(clip, RATE_IN),
            "ours": lambda: network_only(ours[args.threads], logs, first),
            "theirs": lambda: theirs.run(None, their_feeds),
            "ours alone": lambda: network_only(ours[1], logs, first),
            "theirs alone": lambda: theirs_alone.run(None, their_feeds),
            "floor": lambda: istft(stft(wide), wide.size),
        },
        args.repeats,
    )
    label = f"`{Path(args.model).name}`"
    names = {
        "end": (f"{label} end to end: samples in, samples out", ""),
        "streaming": (f"`{STREAMING}` end to end", ""),
        "ours": (f"{label}, network only", f"{parameters(weights_path(args.model)) / 1e6:.2f} M"),
        "theirs": ("Vocos-shaped, network only", f"{parameters(vocos_path) / 1e6:.2f} M"),
        "ours alone": (f"{label}, network only, one thread", ""),
        "theirs alone": ("Vocos-shaped, network only, one thread", ""),
        "floor": (f"one STFT and its inverse ({N_FFT}/{HOP})", ""),
    }
    rows = [
        [name, size, f"{1000 * times[key]:.1f}", f"{seconds / times[key]:.0f}x"]
        for key, (name, size) in names.items()
    ]
    share = (times["theirs"] + times["floor"]) / times["end"]
    alone, together = times["theirs alone"] / times["ours alone"], times["theirs"] / times["ours"]
    return [
        f"## A clip of {seconds:g} s, {RATE_IN // 1000} kHz to {RATE_OUT // 1000} kHz, mono",
        "",
        f"Median of {args.repeats} interleaved rounds after a warm-up, {args.threads} threads.",
        "",
        *report.table(["what", "stored numbers", "ms", "real time"], rows),
        "",
        f"The default takes {times['end'] / times['streaming']:.2f} times as long as the streaming model.",
        f"Its network is {alone:.1f} times as fast as the Vocos-shaped one on one thread, {together:.1f}",
        f"times on {args.threads}; end to end it is {share:.1f} times as fast as that network plus STFT and",
        "inverse.",
    ]


def network_only(model: Model, logs: np.ndarray, first: np.ndarray) -> None:
    """Our network over all frames at once."""
    if not isinstance(model, OfflineModel):
        raise SystemExit("--model must be an offline model here")
    model.envelope(logs, first, 0)


def weights_path(model: str) -> Path:
    """The ONNX file behind a model name or path."""
    if Path(model).is_file():
        return Path(model)
    from importlib.resources import files

    path = Path(str(files("hifispeech") / "weights" / f"{model}.onnx"))
    if not path.is_file():
        raise SystemExit(f"no weights for model {model!r} at {path}; pass --model PATH")
    return path


def random_feeds(
    network: onnxruntime.InferenceSession, frames: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Random inputs for `frames` frames."""
    feeds = {}
    for item in network.get_inputs():
        shape = [dim if isinstance(dim, int) else 1 if "batch" in str(dim) else frames for dim in item.shape]
        feeds[item.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


def parameters(path: Path) -> int:
    """Numbers stored in an ONNX file's initialisers."""
    import onnx

    return sum(int(np.prod(tensor.dims)) for tensor in onnx.load(str(path)).graph.initializer)


def command_line(args: argparse.Namespace, folder: Path) -> list[str]:
    """Start-up time: whole processes, from the shell's point of view."""
    clip = folder / "clip.wav"
    soundfile.write(clip, speech(5.0)[0], RATE_IN)
    upscale = [
        *program(),
        "upscale",
        str(clip),
        "-o",
        str(folder / "out.wav"),
        "--force",
        *model_option(args),
    ]
    times = interleaved(
        {
            "python": lambda: run_quietly([sys.executable, "-c", "import numpy"]),
            "version": lambda: run_quietly([*program(), "--version"]),
            "upscale": lambda: run_quietly(upscale),
        },
        args.repeats,
    )
    rows = [
        ["`hifispeech --version`", f"{times['version']:.2f}"],
        ["`hifispeech upscale` of a 5 s clip", f"{times['upscale']:.2f}"],
        ["(for comparison) `python -c 'import numpy'`", f"{times['python']:.2f}"],
    ]
    return ["## Command line, start-up included", "", *report.table(["command", "seconds"], rows)]


def lengths(args: argparse.Namespace, folder: Path) -> list[str]:
    """Cost of files of growing length, file to file, with the model loaded."""
    upscaler = Upscaler(args.model, threads=args.threads)
    rows = []
    for seconds in (1, 10, 60, 600, *((60 * args.long_minutes[1],) if args.long else ())):
        source, target = folder / "in.wav", folder / "out.wav"
        write_speech(source, seconds, channels=1)
        repeats = 5 if seconds <= 60 else 1
        elapsed = (
            interleaved(
                {"file": lambda a=source, b=target: upscaler.process_file(a, b, force=True)}, repeats
            )["file"]
            if repeats > 1
            else timed(lambda a=source, b=target: upscaler.process_file(a, b, force=True))
        )
        rows.append(
            [f"{seconds} s", f"{elapsed:.3f}", f"{1000 * elapsed / seconds:.2f}", f"{seconds / elapsed:.0f}x"]
        )
        source.unlink()
        target.unlink()
    header = ["length", "seconds", "ms per second of audio", "real time"]
    return ["## File to file against length (WAV, mono, 16 kHz)", "", *report.table(header, rows)]


def memory(args: argparse.Namespace, folder: Path) -> list[str]:
    """Peak resident memory of the command line program on long stereo files."""
    rows, peaks = [], []
    for minutes in args.long_minutes:
        source, target = folder / "long.wav", folder / "long_out.wav"
        write_speech(source, 60 * minutes, channels=2)
        command = [*program(), "upscale", str(source), "-o", str(target), "--force", *model_option(args)]
        started = time.perf_counter()
        peaks.append(peak_mb(command))
        elapsed = time.perf_counter() - started
        rows.append(
            [f"{minutes} min", f"{peaks[-1]:.0f}", f"{elapsed:.1f}", f"{60 * minutes / elapsed:.0f}x"]
        )
        source.unlink()
        target.unlink()
    growth = 100 * (peaks[1] / peaks[0] - 1)
    return [
        "## Peak memory of `hifispeech upscale`, stereo WAV, 16 kHz",
        "",
        *report.table(["file", "peak MB", "seconds", "real time"], rows),
        "",
        f"{args.long_minutes[1]} minutes against {args.long_minutes[0]}: {growth:+.1f} %.",
    ]


def model_option(args: argparse.Namespace) -> list[str]:
    return ["--model", args.model] if args.model != DEFAULT else []


if __name__ == "__main__":
    sys.exit(main())
