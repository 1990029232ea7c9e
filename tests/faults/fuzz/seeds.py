"""Small valid files of every container, made with soundfile and PyAV: what the fuzzer damages."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

from hifispeech.audio import io

SECONDS = 0.3
TAGS = {"title": "Grüße", "artist": "声", "track": "3"}

# Container: (file, how it is made, rate, channels). The fuzzer calls the damaged file by the name given here.
Maker = tuple[str, Callable[[Path, np.ndarray, int], None], int, int]


def _sf(form: str, subtype: str) -> Callable[[Path, np.ndarray, int], None]:
    def make(path: Path, audio: np.ndarray, rate: int) -> None:
        soundfile.write(path, audio.T, rate, format=form, subtype=subtype)

    return make


def _ours(encoding: str | None = None) -> Callable[[Path, np.ndarray, int], None]:
    def make(path: Path, audio: np.ndarray, rate: int) -> None:
        io.write(path, audio, rate, encoding=encoding, tags=TAGS)

    return make


def _av(
    codec: str, form: str | None = None, options: dict[str, str] | None = None, bit_rate: int | None = None
) -> Callable[[Path, np.ndarray, int], None]:
    """FFmpeg's encoder `codec`; the container by the suffix unless `form` names it."""

    def make(path: Path, audio: np.ndarray, rate: int) -> None:
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[audio.shape[0]]
        with av.open(str(path), "w", format=form, options=options or {}) as container:
            stream = container.add_stream(codec, rate=rate)
            context = stream.codec_context
            context.layout = layout
            formats = context.codec.audio_formats
            name = formats[0].name if formats else "s16"
            context.format = name  # pyright: ignore[reportAttributeAccessIssue]
            context.options = {"strict": "experimental"}
            if bit_rate:
                context.bit_rate = bit_rate
            container.start_encoding()
            convert = av.AudioResampler(name, layout, rate)
            size = context.frame_size or 1024
            for start in range(0, audio.shape[1] - size + 1, size):
                block = audio[:, start : start + size].T.astype(np.float32).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
                for converted in convert.resample(frame):
                    container.mux(stream.encode(converted))
            container.mux(stream.encode(None))

    return make


CONTAINERS: dict[str, list[Maker]] = {
    "wav": [
        ("a.wav", _sf("WAV", "PCM_16"), 8000, 1),
        ("b.wav", _sf("WAV", "FLOAT"), 16000, 2),
        ("c.wav", _sf("WAVEX", "PCM_24"), 22050, 2),
        ("d.wav", _sf("WAV", "ULAW"), 8000, 1),
        ("e.wav", _sf("WAV", "MS_ADPCM"), 16000, 1),
        ("f.wav", _sf("WAV", "GSM610"), 8000, 1),
        ("g.wav", _av("g722"), 16000, 1),
        ("h.wav", _ours("pcm_16"), 16000, 8),
    ],
    "flac": [
        ("a.flac", _ours("pcm_16"), 16000, 1),
        ("b.flac", _ours("pcm_24"), 44100, 2),
        ("c.flac", _av("flac"), 16000, 2),
    ],
    "ogg": [
        ("a.ogg", _ours("vorbis"), 16000, 1),
        ("b.ogg", _sf("OGG", "VORBIS"), 44100, 2),
        ("c.ogg", _av("flac", "ogg"), 16000, 1),
    ],
    "opus": [
        ("a.opus", _ours(), 48000, 1),
        ("b.opus", _av("libopus", bit_rate=12_000), 16000, 1),
        ("c.opus", _sf("OGG", "OPUS"), 48000, 2),
    ],
    "mp3": [
        ("a.mp3", _ours(), 44100, 2),
        ("b.mp3", _av("libmp3lame", bit_rate=32_000), 16000, 1),
        ("c.mp3", _sf("MP3", "MPEG_LAYER_III"), 24000, 1),
    ],
    "m4a": [
        ("a.m4a", _av("aac", "ipod"), 16000, 1),
        ("b.m4a", _av("aac", "ipod"), 44100, 2),
        ("c.m4a", _av("alac", "ipod"), 16000, 2),
        ("d.mp4", _av("aac", "mp4", {"movflags": "frag_keyframe+empty_moov"}), 16000, 1),
        ("e.mov", _av("pcm_s16le", "mov"), 16000, 1),
    ],
    "amr": [
        ("a.amr", _av("libopencore_amrnb", "amr", bit_rate=12_200), 8000, 1),
        ("b.amr", _av("libopencore_amrnb", "amr", bit_rate=4_750), 8000, 1),
        ("c.3gp", _av("libopencore_amrnb", "3gp", bit_rate=12_200), 8000, 1),
    ],
    "webm": [
        ("a.webm", _av("libopus", "webm"), 48000, 1),
        ("b.webm", _av("vorbis", "webm"), 16000, 2),
        ("c.mkv", _av("aac", "matroska"), 16000, 1),
        ("d.mkv", _av("flac", "matroska"), 16000, 1),
        ("e.mkv", _av("pcm_s16le", "matroska"), 8000, 6),
    ],
    "aiff": [
        ("a.aiff", _sf("AIFF", "PCM_16"), 16000, 1),
        ("b.au", _sf("AU", "FLOAT"), 8000, 2),
        ("c.caf", _sf("CAF", "PCM_24"), 16000, 1),
        ("d.w64", _sf("W64", "PCM_16"), 16000, 2),
        ("e.rf64", _sf("RF64", "PCM_16"), 8000, 1),
        ("f.caf", _av("alac", "caf"), 16000, 1),
    ],
    "other": [
        ("a.wma", _av("wmav2", "asf", bit_rate=64_000), 44100, 1),
        ("b.avi", _av("pcm_s16le", "avi"), 16000, 1),
        ("c.ac3", _av("ac3", "ac3"), 48000, 2),
        ("d.ts", _av("aac", "mpegts"), 16000, 1),
        ("e.aac", _av("aac", "adts"), 16000, 1),
        ("f.mka", _av("wavpack", "matroska"), 16000, 2),
        ("g.mka", _av("tta", "matroska"), 16000, 1),
        ("h.flv", _av("aac", "flv"), 44100, 1),
        ("i.nut", _av("mp2", "nut"), 16000, 1),
        ("j.mp2", _av("mp2", "mp2"), 16000, 1),
        ("k.voc", _av("pcm_u8", "voc"), 8000, 1),
    ],
}


def make_seeds(folder: Path, container: str) -> list[Path]:
    """The valid files of a container in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make, rate, channels in CONTAINERS[container]:
        rng = np.random.default_rng(len(paths))
        time_s = np.arange(round(SECONDS * rate)) / rate
        swell = np.abs(np.sin(2 * np.pi * 3.1 * time_s))
        rows = [0.3 * np.sin(2 * np.pi * (310 + 97 * row) * time_s) * swell for row in range(channels)]
        audio = np.stack(rows) + 0.02 * rng.standard_normal((channels, len(time_s)))
        make(folder / name, audio.astype(np.float32), rate)
        paths.append(folder / name)
    return paths
