"""Test signals and files, and what the tests of audio files compare them with."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def tone_speech(frames: int, sample_rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Speech-like test signal [channels, frames]: pulsed harmonics plus noise, aperiodic, peak about 0.5."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames) / sample_rate
    envelope = np.abs(np.sin(2 * np.pi * 3.1 * t)) ** 2 + 0.05
    rows = []
    for channel in range(channels):
        tones = sum(
            a * np.sin(2 * np.pi * f * (1 + 0.31 * channel) * t)
            for f, a in ((313, 0.2), (701, 0.15), (1303, 0.1))
        )
        rows.append(tones * envelope + 0.02 * rng.standard_normal(frames))
    return np.stack(rows).astype(np.float32)


def codes16(audio: np.ndarray) -> np.ndarray:
    """Float samples that are exactly 16-bit codes."""
    return (np.rint(audio * 32768).clip(-32768, 32767) / 32768).astype(np.float32)


def encode_av(
    path: Path, audio: np.ndarray, sample_rate: int, codec: str, bit_rate: int | None = None
) -> Path:
    """Encode [channels, time] with FFmpeg, timestamps from 0, as the ffmpeg command does."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[audio.shape[0]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sample_rate)
        context = stream.codec_context
        context.layout, context.format = layout, context.codec.audio_formats[0].name
        if bit_rate:
            context.bit_rate = bit_rate
        container.start_encoding()
        convert = av.AudioResampler(format=context.format.name, layout=layout, rate=sample_rate)
        size = context.frame_size or 1024
        for start in range(0, audio.shape[1], size):
            block = audio[:, start : start + size].T.astype(np.float32).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sample_rate, start, Fraction(1, sample_rate)
            for converted in convert.resample(frame):
                container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return path


def lag(output: np.ndarray, reference: np.ndarray) -> int:
    """Samples by which `output` is late, by cross-correlation."""
    n = 1 << (len(output) + len(reference)).bit_length()
    product = np.fft.rfft(output, n) * np.conj(np.fft.rfft(reference, n))
    peak = int(np.argmax(np.fft.irfft(product, n)))
    return peak if peak < n // 2 else peak - n


def only_file(folder: Path, *names: str) -> None:
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(names)
