"""Codec round trips in memory, through PyAV and libsndfile, with the codec's delay measured and removed."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any

import av
import numpy as np
import soundfile

from hifispeech.errors import AudioError

# Codec -> (sample rates, bit rates in bit/s; () where the codec has only one).
CODECS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mulaw": ((8000, 11025, 16000), ()),
    "gsm": ((8000,), ()),
    "amr_nb": ((8000,), (4750, 5900, 7400, 12200)),
    "opus": ((8000, 12000, 16000, 24000), (8000, 12000, 16000, 24000, 32000)),
    "mp3": ((8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100), (16000, 24000, 32000, 48000, 64000)),
    "aac": ((8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100), (16000, 24000, 32000, 48000, 64000)),
}
# Codec -> (FFmpeg encoder, container); mu-law and GSM go through libsndfile.
_FFMPEG = {
    "amr_nb": ("libopencore_amrnb", "amr"),
    "opus": ("libopus", "ogg"),
    "mp3": ("libmp3lame", "mp3"),
    "aac": ("aac", "adts"),
}
_SNDFILE = {"mulaw": "ULAW", "gsm": "GSM610"}


@lru_cache(maxsize=1)
def available_codecs() -> tuple[str, ...]:
    """Names from `CODECS` that this machine's libsndfile and FFmpeg can encode."""
    found = []
    for name in CODECS:
        if name in _SNDFILE:
            usable = soundfile.check_format("WAV", _SNDFILE[name])
        else:
            usable = _FFMPEG[name][0] in av.codecs_available and _has_encoder(_FFMPEG[name][0])
        if usable:
            found.append(name)
    return tuple(found)


def _has_encoder(name: str) -> bool:
    try:
        return bool(av.Codec(name, "w").name)
    except ValueError:  # PyAV's UnknownCodecError
        return False


@lru_cache(maxsize=256)
def codec_probe(codec: str, sample_rate: int, bit_rate: int) -> tuple[int, float]:
    """(delay in samples, -6 dB edge in Hz) of a codec, measured on syllable-like noise and pulses."""
    rng = np.random.default_rng(0)
    n = 2 * sample_rate
    time_s = np.arange(n) / sample_rate
    pulses = np.zeros(n)
    pulses[
        np.cumsum(rng.integers(sample_rate // 200, sample_rate // 90, n // (sample_rate // 90)))[:-1] % n
    ] = 4.0
    probe = (
        (pulses + 0.25 * rng.standard_normal(n)) * (0.55 - 0.45 * np.cos(2 * math.pi * 3.7 * time_s)) * 0.1
    )
    coded = round_trip(probe, codec, sample_rate, bit_rate, 0, keep_tail=True)
    n_fft = good_length(len(probe) + len(coded))
    correlation = np.fft.irfft(np.fft.rfft(coded, n_fft) * np.conj(np.fft.rfft(probe, n_fft)), n_fft)
    delay = int(np.argmax(np.abs(correlation[: min(8192, n_fft // 2)])))
    coded = padded(coded[delay:], n)
    bins = 64
    shape = (n // (2 * bins), 2 * bins)
    window = np.hanning(2 * bins)
    power = [
        np.mean(np.abs(np.fft.rfft(y[: shape[0] * shape[1]].reshape(shape) * window)) ** 2, 0)
        for y in (probe, coded)
    ]
    ratio = power[1] / (power[0] + 1e-20)
    kept = np.flatnonzero(ratio > 0.25 * np.median(ratio[4:24]))
    return delay, float(min(kept[-1] + 0.5, bins) * sample_rate / (2 * bins))


def round_trip(
    x: np.ndarray, codec: str, sample_rate: int, bit_rate: int, delay: int, *, keep_tail: bool = False
) -> np.ndarray:
    """Encode and decode [time] in memory and take `delay` samples off the front; same length back."""
    if codec not in available_codecs():
        raise AudioError(f"this build cannot encode {codec}; available: {', '.join(available_codecs())}")
    peak = max(1.0, float(np.max(np.abs(x))))  # the codecs clip at full scale; a hot clip keeps its shape
    scaled = (np.concatenate([x, np.zeros(sample_rate // 4)]) / peak).astype(np.float32)
    buffer = io.BytesIO()
    if codec in _SNDFILE:
        soundfile.write(buffer, scaled, sample_rate, format="WAV", subtype=_SNDFILE[codec])
        buffer.seek(0)
        coded = np.asarray(soundfile.read(buffer, dtype="float64")[0])
    else:
        _encode(buffer, scaled, codec, sample_rate, bit_rate)
        buffer.seek(0)
        coded = _decode(buffer, sample_rate)
    coded = coded.astype(np.float64) * peak
    return coded if keep_tail else padded(coded[delay:], len(x))


def _encode(buffer: io.BytesIO, x: np.ndarray, codec: str, sample_rate: int, bit_rate: int) -> None:
    encoder, container = _FFMPEG[codec]
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(encoder, rate=sample_rate)
        stream.layout = "mono"
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(
            np.round(x[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = sample_rate
        # the encoder's own sample format and frame size
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=sample_rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))


def _decode(buffer: io.BytesIO, sample_rate: int) -> np.ndarray:
    """The whole stream as [time] float64 at `sample_rate`."""
    with av.open(buffer) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)
        parts = [p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)]
        parts += [p.to_ndarray()[0] for p in resampler.resample(None)]
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def padded(x: np.ndarray, length: int) -> np.ndarray:
    return np.pad(x, (0, max(0, length - x.shape[-1])))[:length]


def good_length(n: int) -> int:
    """A length >= n with small prime factors."""
    power = 1 << max(4, (n - 1).bit_length())
    return min(m for m in (power, power * 3 // 4, power * 5 // 8) if m >= n)
