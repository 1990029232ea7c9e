"""Live streams measured: latency, compute per 10 ms block, reaction to a change of the bandwidth, memory.

    python benchmarks/stream.py [--seconds 20] [--hours 24] [--model fast]

writes `docs/benchmarks/stream.md`. Times are those of one thread, CPU time of the process, so that other
programs on the machine disturb little.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
from common import report

import hifispeech
from hifispeech.audio.resample import pass_and_half_share, resample
from hifispeech.audio.resample_fir import reach
from hifispeech.infer.live.follower import BandwidthFollower
from hifispeech.infer.live.stream import Stream
from hifispeech.infer.onnx import FrameModel

RATE = 48000
BLOCK_S = 0.01
SPEECH = report.ROOT / "tests" / "data" / "speech_48k.flac"
RATES = (4000, 8000, 16000, 24000, 44100, 48000)
QUALITIES = ("QQ", "LQ", "MQ", "HQ", "VHQ")
SEED = 0


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=20, help="length of the speech for each rate")
    parser.add_argument("--hours", type=float, default=24.0, help="simulated length of the call for memory")
    parser.add_argument("--model", default="fast", help="packaged model or .onnx file")
    parser.add_argument("--output", type=Path, default=report.ROOT / "docs" / "benchmarks" / "stream.md")
    args = parser.parse_args()
    model = FrameModel(args.model, "cpu", threads=1)
    lines = ["# Live streams", "", *report.provenance(seed=SEED, threads="1"), ""]
    lines += [*latency(model), "", *compute(model, args.seconds), "", *resamplers(), ""]
    lines += [*reaction(), "", *memory(model, args.hours)]
    report.write_page(args.output, lines)


def speech(seconds: float, rate: int, cutoff_hz: float | None = None) -> np.ndarray:
    """Real speech over and over `[time]`, cut off at `cutoff_hz`, with the rounding noise of 16 bits."""
    audio = np.resize(hifispeech.read(SPEECH)[0][0], round(seconds * RATE))
    if cutoff_hz is not None:
        spectrum = np.fft.rfft(audio)
        spectrum[round(cutoff_hz * seconds) :] = 0
        audio = np.fft.irfft(spectrum, len(audio)).astype(np.float32)
    rng = np.random.default_rng(SEED)
    audio = audio if rate == RATE else resample(audio, RATE, rate)
    return (audio + (rng.random(audio.size) - rng.random(audio.size)) / 32768).astype(np.float32)


def blocks(audio: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`[..., time]` in blocks."""
    return (audio[..., start : start + size] for start in range(0, audio.shape[-1], size))


def latency(model: FrameModel) -> list[str]:
    """Stated against measured: a click goes in sample by sample, and is watched for."""
    rows = []
    for rate in RATES:
        stream = Stream(rate, 1, model)
        at = round(0.25 * rate)
        click = np.zeros(round(0.5 * rate), np.float32)
        click[at] = 0.9
        out, sent, waited = [], 0, 0.0
        for sample in range(len(click)):
            out.append(stream.push(click[sample : sample + 1]))
            sent += out[-1].size
            waited = max(waited, (sample + 1) / rate - sent / RATE)
        heard = np.concatenate([*out, stream.flush()])
        spectrum = np.fft.rfft(heard)
        spectrum[int(0.4 * min(rate, RATE) * len(heard) / RATE) :] = 0  # what is generated has no one place
        place = int(np.argmax(np.fft.irfft(spectrum, len(heard))))
        shift_ms = 1000 * (place / RATE - at / rate)
        rows.append(
            [f"{rate} Hz", f"{stream.latency_ms:.1f}", f"{1000 * waited:.1f}", f"{abs(shift_ms):.3f}"]
        )
    header = ["input", "stated ms", "longest wait, ms", "shift of a click, ms"]
    return [
        "## Latency",
        "",
        "Stated: STFT frame and look-ahead of the model (64 ms) and reach of the resampler. Longest wait:",
        "how late, at worst, an output sample came after the input of the same time, samples one by one.",
        "",
        *report.table(header, rows),
    ]


def compute(model: FrameModel, seconds: int) -> list[str]:
    """CPU time of each `push` of 10 ms."""
    rows = []
    for rate, channels, cutoff_hz in (
        (8000, 1, 3400), (16000, 1, None), (48000, 1, 7000), (48000, 1, None), (8000, 2, 3400)
    ):  # fmt: skip
        audio = np.stack([speech(seconds, rate, cutoff_hz)] * channels)
        stream = Stream(rate, channels, model)
        spent = []
        for block in blocks(audio, round(BLOCK_S * rate)):
            started = time.process_time()
            stream.push(block)
            spent.append(1000 * (time.process_time() - started))
        spent = spent[10:]  # the first call of everything
        content = f"up to {cutoff_hz / 1000:.1f} kHz" if cutoff_hz else "all there is"
        cells = [np.median(spent), np.quantile(spent, 0.99), max(spent), sum(spent) / len(spent)]
        rows.append(
            [f"{rate} Hz, {channels} channel{'s'[: channels - 1]}, {content}", *(f"{c:.2f}" for c in cells)]
        )
    return [
        "## Compute per block of 10 ms",
        "",
        f"CPU time in ms of `push`, {seconds} s of speech, bandwidth followed. Most blocks complete a frame",
        "of 10.7 ms; every half second the bandwidth is measured (99 %); for a new edge the model hears the",
        "last second again (most). A mean below 10 ms is faster than real time.",
        "",
        *report.table(["input", "median", "99 %", "most", "mean"], rows),
    ]


def resamplers() -> list[str]:
    """Delay of soxr's settings and of ours."""
    rows = []
    for quality in QUALITIES:
        rows.append([f"soxr {quality}", *(f"{soxr_delay_ms(rate, quality):.1f}" for rate in RATES[:5])])
    rows.append(["ours", *(f"{1000 * reach(rate, RATE) / rate:.1f}" for rate in RATES[:5])])
    rows.append(
        [
            "ours, transition band",
            *(f"{pass_and_half_share(rate)[0]:.2f} to 1 of Nyquist" for rate in RATES[:5]),
        ]
    )
    return [
        "## Resampling to 48 kHz: delay in ms",
        "",
        "soxr: how far the output was behind at worst, input in blocks of 1 ms. QQ is a cubic interpolation:",
        f"of noise at 8 kHz up to 3.4 kHz it leaves images above 4 kHz of {image_db(8000, 'QQ'):.0f} dB, our",
        f"filter of {image_db(8000, None):.0f} dB.",
        "",
        *report.table(["filter", *(f"{rate} Hz" for rate in RATES[:5])], rows),
    ]


def soxr_delay_ms(rate: int, quality: str) -> float:
    """The longest wait for an output sample of soxr."""
    stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality=quality)
    block = np.zeros((rate // 1000, 1), np.float32)
    sent, worst = 0, 0.0
    for count in range(1, 3001):
        sent += len(stream.resample_chunk(block))
        worst = max(worst, count * len(block) / rate - sent / RATE)
    return 1000 * worst


def image_db(rate: int, quality: str | None) -> float:
    """Power above the input's Nyquist frequency against that below, for noise up to 0.85 of it."""
    noise = np.fft.rfft(np.random.default_rng(SEED).standard_normal(4 * rate))
    noise[int(0.85 * len(noise)) :] = 0
    audio = np.fft.irfft(noise).astype(np.float32)
    out = (
        resample(audio, rate, low_latency=True)
        if quality is None
        else soxr.resample(audio, rate, RATE, quality)
    )
    inner = out[RATE // 2 : -RATE // 2].astype(np.float64)
    power = np.abs(np.fft.rfft(inner * np.blackman(len(inner)))) ** 2
    edge = int(len(power) * rate / RATE)
    return 10 * float(np.log10(power[edge + 20 :].sum() / power[:edge].sum()))


def reaction() -> list[str]:
    """Time from a change of the bandwidth to the decision, over many places of the change in the speech."""
    rows = []
    for before_hz, after_hz in ((3400, 7000), (7000, 3400), (3400, None), (None, 3400)):
        waits = []
        for shift in range(8):
            change_s = 8.0 + 0.19 * shift
            at = round(change_s * RATE)
            parts = [speech(16, RATE, hz) for hz in (before_hz, after_hz)]
            audio = np.concatenate([parts[0][:at], parts[1][at:]])
            waits.append(first_change_s(audio, change_s) - change_s)
        names = [f"{hz / 1000:.1f} kHz" if hz else "full band" for hz in (before_hz, after_hz)]
        cells = [f"{np.median(waits):.1f}", f"{max(waits):.1f}"]
        rows.append([f"{names[0]} to {names[1]}", *cells])
    return [
        "## Reaction to a change of the bandwidth, seconds",
        "",
        "From the change to the new edge, eight places of the change in real speech.",
        "",
        *report.table(["change", "median", "most"], rows),
    ]


def first_change_s(audio: np.ndarray, after_s: float) -> float:
    """When the follower first gave another edge after that time; infinity if never."""
    follower = BandwidthFollower(RATE)
    for start in range(0, len(audio), follower.until_decision):
        part = audio[start : start + follower.until_decision]
        end_s = (start + len(part)) / RATE
        if follower.push(part) and end_s > after_s:
            return end_s
    return float("inf")


def memory(model: FrameModel, hours: float) -> list[str]:
    """Resident memory as time goes on: a call with three seconds of speech in every ten minutes."""
    stream = Stream(8000, 1, model)
    word, silence = speech(3, 8000, 3400)[None], np.zeros((1, 8000), np.float32)
    rows = []
    for quarter in range(1, 5):
        for second in range(round((quarter - 1) * 900 * hours), round(quarter * 900 * hours)):
            source = word[:, second % 600 * 8000 :][:, :8000] if second % 600 < 3 else silence
            for block in blocks(source, 800):
                stream.push(block)
        pages = int(Path("/proc/self/statm").read_text().split()[1])  # now, not the peak of what went before
        rows.append([f"{hours * quarter / 4:g} h", f"{pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.1f}"])
    return [
        "## Memory",
        "",
        "Memory of this process in MB (10^6 bytes), Python and libraries included, while a call is streamed,",
        "three seconds of speech in every ten minutes. Buffers of fixed size are all that a stream holds",
        "(`tests/infer/live/test_stream.py::test_memory_is_constant_over_time`).",
        "",
        *report.table(["streamed", "MB"], rows),
    ]


if __name__ == "__main__":
    sys.exit(main())
