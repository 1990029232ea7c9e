"""Bandwidth detection measured: `python benchmarks/bandwidth.py --data DIR [--files N]` prints Markdown.

DIR holds `manifest.csv` (path, sample_rate, duration_s, bandwidth_hz) and the audio. Every clip is low-passed
at every cutoff by every filter family and brought to 48 kHz; cutoffs above a clip's own edge are skipped. The
truth is the -6 dB point of the whole chain. Half of the clips are stored as float, half as dithered 16-bit.
"""

from __future__ import annotations

import argparse
import csv
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from hifispeech.audio.bandwidth.meter import BandwidthMeter, detect_bandwidth
from hifispeech.audio.degrade.filters import DegradeSpec, apply, effective_cutoff

CUTOFFS_HZ = (2000, 3400, 4000, 5500, 6000, 8000, 11000, 12000, 16000, 20000)
FAMILIES: dict[str, dict[str, object]] = {
    "brick-wall (FFT)": {"family": "fft"},
    "soxr resampler": {"family": "soxr"},
    "elliptic, order 8": {"family": "elliptic", "order": 8, "ripple_db": 0.1, "stop_db": 80.0},
    "Chebyshev I, order 8": {"family": "chebyshev1", "order": 8, "ripple_db": 0.5},
    "gentle FIR, 30 % transition": {"family": "fir", "fir_transition": 0.3},
}
LOW_RATES = (8000, 16000, 24000)
FULL_BAND_FROM_HZ = 20500.0


def dithered(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """16-bit with triangular dither."""
    noise = rng.random(audio.shape) - rng.random(audio.shape)
    return (np.round(audio * 32767 + noise) / 32768).astype(np.float32)


def clips(data: Path, split: str, count: int, seed: int) -> Iterator[tuple[np.ndarray, int, float]]:
    """(audio [time], rate, own edge in Hz) of up to `count` lossless clips of at least one second."""
    with open(data / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["lossless"] == "1" and float(r["duration_s"]) >= 1.0]
    rows = [r for r in rows if r["path"].startswith(split)]
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    for i in order:
        audio, rate = soundfile.read(data / rows[i]["path"], dtype="float32", always_2d=True)
        yield audio[:, 0], rate, float(rows[i]["bandwidth_hz"])


def summary(errors: list[float]) -> str:
    """Median relative error and share within 8 %, for a table cell."""
    if not errors:
        return "-"
    absolute = np.abs(errors)
    return f"{100 * np.median(absolute):.1f} / {100 * np.mean(absolute <= 0.08):.0f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="eval", help="start of the paths to use (default: eval)")
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    errors: dict[tuple[str, object], list[float]] = defaultdict(list)
    full: list[bool] = []
    spent_s = audio_s = 0.0
    meters: dict[int, BandwidthMeter] = {}
    for audio, rate, own_hz in clips(args.data, args.split, args.files, args.seed):
        meter = meters.setdefault(rate, BandwidthMeter(rate))
        begin = time.process_time()
        meter.push(audio)
        spent_s += time.process_time() - begin
        found = detect_bandwidth(audio, rate)
        audio_s += len(audio) / rate
        if own_hz >= FULL_BAND_FROM_HZ:
            full.append(found.is_full_band)
        for cutoff in (c for c in CUTOFFS_HZ if c < 0.97 * own_hz):
            for name, options in FAMILIES.items():
                target = round(2 * cutoff / 0.9556) if name.startswith("soxr") else 48000
                edge = target / 2 if name.startswith("soxr") else float(cutoff)
                spec = DegradeSpec(target, edge, **options)  # pyright: ignore[reportArgumentType]
                low, _, truth = apply(audio, rate, spec, rate_out=48000)
                low = dithered(low, rng) if rng.random() < 0.5 else low
                error = detect_bandwidth(low, 48000).cutoff_hz / truth - 1
                errors[name, cutoff].append(error)
                errors[name, "all"].append(error)
        for low_rate in LOW_RATES:
            spec = DegradeSpec(low_rate, low_rate / 2)
            low = dithered(apply(audio, rate, spec)[0], rng)
            truth = effective_cutoff(spec, sample_rate=rate)
            errors["low-rate files", low_rate].append(detect_bandwidth(low, low_rate).cutoff_hz / truth - 1)

    begin = time.process_time()
    for meter in meters.values():
        meter.result()
    result_ms = 1000 * (time.process_time() - begin) / max(1, len(meters))
    out = sys.stdout.write
    out(f"`python benchmarks/bandwidth.py --split {args.split} --files {args.files} --seed {args.seed}`, ")
    out(f"{platform.machine()}, one core. Cells: median |error| in % / share of files within 8 %.\n\n")
    columns = [*CUTOFFS_HZ, "all"]
    out("| filter | " + " | ".join(str(c) for c in columns) + " |\n|" + "---|" * (len(columns) + 1) + "\n")
    for name in FAMILIES:
        out(f"| {name} | " + " | ".join(summary(errors[name, c]) for c in columns) + " |\n")
    out("\n| low-rate files (truth: -6 dB point of the resampler) | median / within 8 % |\n|---|---|\n")
    for low_rate in LOW_RATES:
        out(f"| {low_rate} Hz | {summary(errors['low-rate files', low_rate])} |\n")
    out(f"\nFull-band recordings recognised: {100 * np.mean(full) if full else 0:.1f} % of {len(full)}. ")
    out(f"Time: {1000 * spent_s / audio_s:.2f} ms a second of audio, then {result_ms:.0f} ms a result.\n")


if __name__ == "__main__":
    main()
