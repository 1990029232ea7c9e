"""Encoders of the formats hifispeech writes, and the table of what each allows.

Every encoder takes float32 blocks [channels, n] within +-1 and writes to a binary file the caller owns, so
that disk errors surface as OSError.
"""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import numpy as np
import soundfile

from hifispeech.errors import AudioError


@dataclass(frozen=True)
class Format:
    """What one file suffix can hold. `rates` is a (lowest, highest) pair or the list of the only rates."""

    encodings: tuple[str, ...]
    max_channels: int
    rates: tuple[int, int] | list[int]
    channel_note: str = ""


_OPUS_RATES = [8_000, 12_000, 16_000, 24_000, 48_000]
_MP3_RATES = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]
# From six channels on, Vorbis and Opus take one for a subwoofer and low-pass it: not ours to do.
_OGG_NOTE = " (with more, the codec low-passes one as subwoofer; use .wav or .flac)"

# The first encoding is the default.
FORMATS: dict[str, Format] = {
    ".wav": Format(("pcm_16", "pcm_24", "float"), 255, (1, 4_000_000)),
    ".flac": Format(("pcm_16", "pcm_24"), 8, (1, 655_350)),
    ".ogg": Format(("vorbis", "opus"), 5, (8_000, 192_000), _OGG_NOTE),
    ".opus": Format(("opus",), 5, _OPUS_RATES, _OGG_NOTE),
    ".mp3": Format(("mp3",), 2, _MP3_RATES),
}
_SNDFILE_SUBTYPES = {
    "pcm_16": "PCM_16",
    "pcm_24": "PCM_24",
    "vorbis": "VORBIS",
    "opus": "OPUS",
    "mp3": "MPEG_LAYER_III",
}
# libsndfile's 0 (best) .. 1 (smallest): Vorbis q7, 131 kbit/s a channel of Opus, LAME V0.
_COMPRESSION = {"vorbis": 0.3, "opus": 0.5, "mp3": 0.0}
# Vorbis and Opus store centre before right; position k of the stream holds channel ORDER[k] of the WAV order.
_OGG_ORDER = {3: [0, 2, 1], 5: [0, 2, 1, 3, 4]}
_SPEAKERS = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
_INFO_IDS = {
    "title": b"INAM",
    "artist": b"IART",
    "album": b"IPRD",
    "date": b"ICRD",
    "genre": b"IGNR",
    "comment": b"ICMT",
    "track": b"ITRK",
}
_ID3_FRAMES = {
    "title": b"TIT2",
    "artist": b"TPE1",
    "album": b"TALB",
    "date": b"TDRC",
    "genre": b"TCON",
    "comment": b"COMM",
    "track": b"TRCK",
}
RIFF_LIMIT = 0xFFFFFFFF
_SLICE_FRAMES = 4_096  # libvorbis keeps a whole call on the stack


class Encoder(Protocol):
    """Writes one stream."""

    def write(self, block: np.ndarray) -> None:
        """Append float32 [channels, n], already within full scale."""
        ...

    def close(self) -> None:
        """Finish headers and trailers; the file itself stays open."""
        ...


def check_format(suffix: str, encoding: str | None, sample_rate: int, channels: int) -> str:
    """The encoding to use, or AudioError naming what this suffix allows."""
    form = FORMATS.get(suffix)
    if form is None:
        raise AudioError(
            f"cannot write {suffix or 'a file without a suffix'!r}; allowed are {', '.join(FORMATS)}; "
            "choose one of these suffixes"
        )
    name = (encoding or form.encodings[0]).lower()
    if name not in form.encodings:
        raise AudioError(f"encoding={name!r} does not fit {suffix}; allowed are {', '.join(form.encodings)}")
    rates = _OPUS_RATES if name == "opus" else form.rates
    fits = sample_rate in rates if isinstance(rates, list) else rates[0] <= sample_rate <= rates[1]
    if not fits:
        allowed = ", ".join(map(str, rates)) if isinstance(rates, list) else f"{rates[0]} to {rates[1]}"
        raise AudioError(
            f"sample_rate={sample_rate} does not fit {name} in {suffix}; allowed are {allowed} Hz; "
            "resample first or write .wav"
        )
    if not 1 <= channels <= form.max_channels:
        raise AudioError(
            f"channels={channels} does not fit {suffix}; allowed are 1 to {form.max_channels}"
            f"{form.channel_note or '; use .wav for more'}"
        )
    return name


def quantise(block: np.ndarray, bits: int) -> np.ndarray:
    """Round float samples to the nearest `bits`-bit code (int32); beyond full scale is the largest code."""
    top = 2.0 ** (bits - 1)
    return np.clip(np.rint(block.astype(np.float64) * top), -top, top - 1).astype(np.int32)


def open_encoder(
    file: BinaryIO,
    suffix: str,
    encoding: str,
    sample_rate: int,
    channels: int,
    tags: Mapping[str, str],
    frames: int | None = None,
) -> Encoder:
    """The encoder for a combination that `check_format` accepted; `frames`: the length, where it is known."""
    if suffix == ".wav":
        return WavEncoder(file, encoding, sample_rate, channels, tags, frames)
    return SndfileEncoder(file, suffix, encoding, sample_rate, channels, tags)


class WavEncoder:
    """WAV, turning itself into RF64 (EBU 3306) when it outgrows 4 GiB.

    With `frames` the header is right from the start, so that the file can be read while it grows.
    """

    def __init__(
        self,
        file: BinaryIO,
        encoding: str,
        sample_rate: int,
        channels: int,
        tags: Mapping[str, str],
        frames: int | None = None,
    ) -> None:
        self._file, self._encoding = file, encoding
        width = {"pcm_16": 2, "pcm_24": 3, "float": 4}[encoding]
        self._frame_bytes = width * channels
        self._data_bytes = 0
        tag = 3 if encoding == "float" else 1
        extensible = channels > 2
        body = struct.pack(
            "<HHIIHH",
            0xFFFE if extensible else tag,
            channels,
            sample_rate,
            min(sample_rate * self._frame_bytes, RIFF_LIMIT),
            self._frame_bytes,
            8 * width,
        )
        if extensible:
            guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
            body += struct.pack("<HHI", 22, 8 * width, _SPEAKERS.get(channels, 0)) + guid
        elif encoding == "float":
            body += struct.pack("<H", 0)
        header = b"RIFF\0\0\0\0WAVE" + _chunk(b"JUNK", bytes(28)) + _chunk(b"fmt ", body)
        self._fact_at = len(header) + 8
        header += _chunk(b"fact", bytes(4)) if encoding == "float" else b""
        info = b"".join(_chunk(_INFO_IDS[name], text.encode() + b"\0") for name, text in tags.items())
        header += _chunk(b"LIST", b"INFO" + info) if info else b""
        self._data_at = len(header) + 8
        file.write(header + b"data\0\0\0\0")
        if frames is not None:
            self._write_sizes(frames * self._frame_bytes)

    def write(self, block: np.ndarray) -> None:
        """See `Encoder.write`."""
        if self._encoding == "float":
            data = block.T.astype("<f4").tobytes()
        elif self._encoding == "pcm_16":
            data = quantise(block, 16).T.astype("<i2").tobytes()
        else:
            codes = np.ascontiguousarray(quantise(block, 24).T).astype("<i4")
            data = codes.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        self._file.write(data)
        self._data_bytes += len(data)

    def close(self) -> None:
        """See `Encoder.close`."""
        self._file.write(b"\0" * (self._data_bytes % 2))
        self._write_sizes(self._data_bytes)

    def _write_sizes(self, size: int) -> None:
        """Put the sizes for `size` bytes of audio into the header."""
        file = self._file
        riff_size = self._data_at + size + size % 2 - 8
        frames = size // self._frame_bytes
        if riff_size > RIFF_LIMIT:
            file.seek(0)
            file.write(
                b"RF64\xff\xff\xff\xffWAVE"
                + _chunk(b"ds64", struct.pack("<QQQI", riff_size, size, frames, 0))
            )
        else:
            file.seek(4)
            file.write(struct.pack("<I", riff_size))
        if self._encoding == "float":
            file.seek(self._fact_at)
            file.write(struct.pack("<I", min(frames, 0xFFFFFFFF)))
        file.seek(self._data_at - 4)
        file.write(struct.pack("<I", 0xFFFFFFFF if riff_size > RIFF_LIMIT else size))
        file.seek(0, os.SEEK_END)


class SndfileEncoder:
    """FLAC, Vorbis, Opus and MP3 through libsndfile."""

    def __init__(
        self,
        file: BinaryIO,
        suffix: str,
        encoding: str,
        sample_rate: int,
        channels: int,
        tags: Mapping[str, str],
    ) -> None:
        self._encoding = encoding
        self._order = _OGG_ORDER.get(channels) if encoding in ("vorbis", "opus") else None
        if encoding == "mp3":  # libsndfile writes the bytes of UTF-8 as Latin-1, so the tag is ours
            file.write(_id3(tags))
        self._sink = _Sink(file)
        self._out = soundfile.SoundFile(
            cast(BinaryIO, self._sink),
            "w",
            sample_rate,
            channels,
            format="OGG" if suffix == ".opus" else suffix[1:].upper(),
            subtype=_SNDFILE_SUBTYPES[encoding],
            compression_level=_COMPRESSION.get(encoding),
            bitrate_mode="VARIABLE" if encoding == "mp3" else None,
        )
        if encoding != "mp3":
            for name, text in tags.items():
                setattr(self._out, "tracknumber" if name == "track" else name, text)
        self._sink.check()

    def write(self, block: np.ndarray) -> None:
        """See `Encoder.write`."""
        if self._encoding == "pcm_16":
            data = quantise(block, 16).astype(np.int16)
        elif self._encoding == "pcm_24":
            data = quantise(block, 24) << 8  # libsndfile keeps the upper 24 bits
        else:
            data = np.clip(block, -1.0, 1.0)[self._order] if self._order else np.clip(block, -1.0, 1.0)
        for start in range(0, data.shape[1], _SLICE_FRAMES):
            self._out.write(np.ascontiguousarray(data[:, start : start + _SLICE_FRAMES].T))
            self._sink.check()

    def close(self) -> None:
        """See `Encoder.close`."""
        self._out.close()
        self._sink.check()


class _Sink:
    """File for libsndfile's callbacks. They cannot raise (C is in between), so an error waits for `check`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._base = file.tell()
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise what a callback met."""
        if self._error is not None:
            raise self._error

    def write(self, data: bytes) -> int:
        if self._error is None:
            try:
                self._file.write(data)
            except BaseException as error:  # also Ctrl-C: raised by the next check
                self._error = error
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset + (self._base if whence == 0 else 0), whence) - self._base

    def tell(self) -> int:
        return self._file.tell() - self._base

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _chunk(name: bytes, body: bytes) -> bytes:
    """One RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _id3(tags: Mapping[str, str]) -> bytes:
    """ID3v2.4 tag in UTF-8, or nothing without tags."""
    frames = b""
    for name, text in tags.items():
        language = b"XXX\0" if name == "comment" else b""
        body = b"\3" + language + text.encode()
        frames += _ID3_FRAMES[name] + _synchsafe(len(body)) + b"\0\0" + body
    return b"ID3\4\0\0" + _synchsafe(len(frames)) + frames if frames else b""


def _synchsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))
