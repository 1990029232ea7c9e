"""Time and peak memory of functions and commands, on real speech at 16 kHz."""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

from common import report
from hifispeech.audio.resample import resample

RATE_IN, RATE_OUT = 16000, 48000
SPEECH = report.ROOT / "tests" / "data" / "speech_48k.flac"
# Runs a command and prints its peak memory in kB. In a fresh interpreter, since Linux counts the memory that
# the parent had before exec.
PEAK_SCRIPT = (
    "import os, subprocess, sys\n"
    "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
    "_, status, usage = os.wait4(child.pid, 0)\n"
    "print(usage.ru_maxrss)\n"
    "sys.exit(os.waitstatus_to_exitcode(status))\n"
)


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session, with the same settings for every network."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def interleaved(candidates: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each candidate; every round runs all of them once."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(repeats + 1):
        for name, run in candidates.items():
            time.sleep(0.1)  # lets the thread pool of the one before stop spinning
            started = time.perf_counter()
            run()
            if round_:  # the first is the warm-up
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def program() -> list[str]:
    """The installed command, or the module where only the source tree is on the path."""
    script = shutil.which("hifispeech", path=str(Path(sys.executable).parent))
    return [script] if script else [sys.executable, "-m", "hifispeech"]


def run_quietly(command: list[str]) -> None:
    """Run a command without output.

    Raises:
        RuntimeError: if it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def peak_mb(command: list[str]) -> float:
    """Peak resident memory of a command in MB (10^6 bytes).

    Raises:
        RuntimeError: if the command fails.
    """
    launcher = [sys.executable, "-S", "-c", PEAK_SCRIPT]
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[:3]} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return int(done.stdout.split()[-1]) * 1024 / 1e6


def speech(seconds: float, channels: int = 1) -> np.ndarray:
    """Real speech repeated to a length, float32 `[channels, time]` at 16 kHz, each channel shifted."""
    clip, rate = soundfile.read(SPEECH, dtype="float32")
    low = resample(np.asarray(clip, np.float32), rate, RATE_IN)
    total = round(seconds * RATE_IN)
    shifts = [channel * low.size // 3 for channel in range(channels)]
    return np.stack([np.resize(np.roll(low, shift), total) for shift in shifts])


def write_speech(path: Path, seconds: int, channels: int) -> None:
    """`speech` as a 16-bit WAV file, written block by block."""
    block = speech(60.0, channels).T
    with soundfile.SoundFile(path, "w", RATE_IN, channels, subtype="PCM_16") as file:
        left = seconds * RATE_IN
        while left > 0:
            file.write(block[:left])
            left -= min(left, len(block))
