"""Reads what libsndfile does not, or less well, through FFmpeg (PyAV): FLAC, MP3, AAC, Opus, AMR, GSM, video.

Sample n stays sample n: FFmpeg drops encoder delay where the container tells it; the padding at the end,
which it leaves in MP4 and WAV, is cut here. A damaged stretch is replaced by silence of the same length where
the container has timestamps. No PyAV exception leaves this module.
"""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from hifispeech.audio.io.sndfile import CHUNK_FRAMES, AudioInfo, common_tags, warn, warn_if_endless_ogg
from hifispeech.errors import AudioError

# Playlists (hls, concat, sdp ...) are left out: they make FFmpeg open other files. So are text, image and raw
# formats, which "recognise" anything.
_DEMUXERS = """
    3dostr aa aac aax ac3 ac4 act aea aiff amr amrnb amrwb ape asf au avi avr bit caf codec2 dss dts dtshd dsf
    eac3 flac flv gsm gxf ilbc ircam latm loas lvf matroska webm mlp mmf mov mp4 m4a 3gp 3g2 mj2 mp3 mpc mpc8
    mpeg mpegts mxf nistsphere nut nuv oga ogg ogv oma opus osq paf pvf qcp qoa rm rso sds shn sln smjpeg sox
    spdif tak truehd tta voc vqf w64 wav wsaud wv xa xwma
"""
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(_DEMUXERS.split())}
# Containers whose duration is stored, not estimated from the bit rate (MP3 too, when it has a LAME header).
_DURATION_STORED = {"mov", "flac", "wav", "wv", "tta", "ape", "matroska"}
# More than any codec pads: a length that is wrong by more is a lie and is not followed.
_PADDING_FRAMES = 8_192
_MAX_GAP_S = 30.0
_MOST_GAPS_NAMED = 5  # a long recording of a bad line has thousands
_LOSSLESS = ("flac", "alac", "wavpack", "tta", "ape", "tak", "truehd", "mlp")
_ENCODINGS = {"s32": "pcm_24", "s32p": "pcm_24", "flt": "float", "fltp": "float", "dbl": "float"}
_READABLE = "hifispeech reads WAV, FLAC, OGG/Opus, MP3, M4A/AAC, AMR, WebM, MP4/MKV and most other audio"


class FFmpegSource:
    """One file through FFmpeg. Raises AudioError when it is no audio or decodes to nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.warnings: list[str] = []
        with self._open() as (container, stream):
            container_name = container.format.name
            duration_s = _duration_s(container, stream)
            codec = stream.codec_context.codec.canonical_name
            tags = common_tags(container.metadata, stream.metadata)
            frame = next(_Decoder(container, stream).frames(), None)
        if frame is None:
            raise AudioError(
                f"{path}: the {codec} stream decodes to no audio samples (empty, truncated or damaged); "
                "a file with at least one sample is needed; record or export it again"
            )
        is_lossless = codec in _LOSSLESS or codec.startswith("pcm_")
        self.info = AudioInfo(
            sample_rate=frame.sample_rate,
            channels=frame.layout.nb_channels,
            frames=None,
            duration_s=duration_s,
            container=container_name.split(",")[0],
            codec=codec,
            tags=tags,
            sample_encoding=_ENCODINGS.get(frame.format.name, "pcm_16") if is_lossless else "pcm_16",
        )

    def chunks(self) -> Iterator[np.ndarray]:
        """See `Source.chunks`. Raises AudioError when the rate or the channel count changes part-way."""
        info = self.info
        with self._open() as (container, stream):
            decoder = _Decoder(container, stream)
            limit = _length_limit(self._path, container, stream, info.sample_rate)
            count = 0
            for chunk in _cut(self._samples(decoder), limit):
                count += chunk.shape[1]
                yield chunk
        if decoder.damaged:
            warn(self, self._path, f"damaged or truncated: {decoder.damaged} packets could not be decoded")
        if decoder.gaps > _MOST_GAPS_NAMED:
            total_s = decoder.gap_frames / info.sample_rate
            warn(self, self._path, f"damaged: {decoder.gaps} places, {total_s:.2f} s in all, became silence")
        if decoder.cut_short:
            at = f"{count / info.sample_rate:.2f} s"
            warn(
                self,
                self._path,
                f"reading stopped at {at}: truncated, or the stream changes its format there",
            )
        if info.container == "ogg":
            warn_if_endless_ogg(self, self._path)
        self._compare_length(count / info.sample_rate, stream_starts_late=decoder.starts_late)

    def _samples(self, decoder: "_Decoder") -> Iterator[np.ndarray]:
        """Decoded frames as arrays, with silence where packets were damaged, and the last MP4 frame cut."""
        info = self.info
        position: int | None = None  # where the next frame should start
        pending: np.ndarray | None = None
        for frame in decoder.frames():
            if (frame.sample_rate, frame.layout.nb_channels) != (info.sample_rate, info.channels):
                raise AudioError(
                    f"{self._path}: the stream changes from {info.sample_rate} Hz, {info.channels} channels "
                    f"to {frame.sample_rate} Hz, {frame.layout.nb_channels} channels part-way; one rate and "
                    "channel count per file is allowed; convert it first with ffmpeg -i IN -ar 48000 OUT.wav"
                )
            if pending is not None:
                yield pending
            start = _frame_position(frame)
            if start is not None and position is not None:
                yield from self._fill_damage(decoder, start, start - position)
            position = (position or 0 if start is None else start) + frame.samples
            pending = _to_float(frame)
        if pending is not None:
            yield pending[:, : decoder.last_packet_frames(info.sample_rate)]

    def _fill_damage(self, decoder: "_Decoder", start: int, gap: int) -> Iterator[np.ndarray]:
        """Silence for lost packets, so that what follows keeps its place.

        A gap alone is no damage (timestamps drift in live recordings), except in FLAC, whose parser skips
        damaged frames without a word.
        """
        rate = self.info.sample_rate
        is_damaged = decoder.take_damage()
        if (is_damaged or self.info.container == "flac") and 0 < gap <= _MAX_GAP_S * rate:
            decoder.gaps += 1
            decoder.gap_frames += gap
            if decoder.gaps <= _MOST_GAPS_NAMED:
                at = f"{gap / rate:.3f} s before {start / rate:.2f} s"
                warn(self, self._path, f"damaged: {at} could not be decoded and became silence")
            for done in range(0, gap, CHUNK_FRAMES):
                yield np.zeros((self.info.channels, min(CHUNK_FRAMES, gap - done)), np.float32)

    def _compare_length(self, decoded_s: float, stream_starts_late: bool) -> None:
        claimed_s, container = self.info.duration_s, self.info.container
        is_stored = stream_starts_late if container == "mp3" else container in _DURATION_STORED
        if is_stored and claimed_s and decoded_s < 0.98 * claimed_s - 0.1:
            text = f"truncated: its header claims {claimed_s:.2f} s, {decoded_s:.2f} s are there"
            warn(self, self._path, text)

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, AudioStream]]:
        """The container and its main audio stream; PyAV's errors become AudioError."""
        try:
            with av.open(f"file:{self._path}", options=_OPTIONS, metadata_errors="replace") as container:
                stream = container.streams.best("audio")
                if stream is None or not isinstance(stream, AudioStream):
                    raise AudioError(
                        f"{self._path}: has no audio stream; {_READABLE}; pass a file that holds sound"
                    )
                # PyAV has no context for a codec that FFmpeg cannot name, whatever its types say.
                if stream.codec_context is None:  # pyright: ignore[reportUnnecessaryComparison]
                    raise AudioError(
                        f"{self._path}: is damaged, or its audio is of an unknown codec; {_READABLE}; "
                        "convert it to WAV with the program that made it"
                    )
                stream.codec_context.thread_count = 1
                yield container, stream
        except av.error.FFmpegError as error:
            raise AudioError(
                f"{self._path}: not audio, truncated in its header, or of an unknown format "
                f"({error.strerror}); {_READABLE}; check the file or convert it to WAV"
            ) from error


class _Decoder:
    """Packets to frames, stepping over packets that do not decode."""

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self._container, self._stream = container, stream
        self._is_mov = "mov" in container.format.name
        self._packer: AudioResampler | None = None
        self._packet_s: float | None = None
        self._fresh_damage = False
        self.damaged = self.gaps = self.gap_frames = 0
        self.cut_short = False
        self.starts_late = bool(stream.start_time)

    def frames(self) -> Iterator[AudioFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                self.cut_short = True
                return
            except IndexError:  # PyAV knows no stream that begins after the header: such a packet is not ours
                packets = self._container.demux(self._stream)
                continue
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self.damaged += 1
                self._fresh_damage = True
                continue
            if self._is_mov and packet.duration and packet.time_base:
                self._packet_s = float(packet.duration * packet.time_base)
            for frame in frames:
                if isinstance(frame, AudioFrame) and frame.samples:
                    yield from self._packed(frame)

    def _packed(self, frame: AudioFrame) -> list[AudioFrame]:
        """The frame, interleaved if it has many channels: PyAV 18 reads past the plane list of 8 and more."""
        if not frame.format.is_planar or frame.layout.nb_channels < 8:
            return [frame]
        if self._packer is None:
            self._packer = AudioResampler(frame.format.packed, frame.layout, frame.sample_rate)
        return self._packer.resample(frame)

    def take_damage(self) -> bool:
        """Whether packets were lost since the last call."""
        damage, self._fresh_damage = self._fresh_damage, False
        return damage

    def last_packet_frames(self, sample_rate: int) -> int | None:
        """Samples of the last packet that count: an MP4's sample table knows its true length."""
        return None if not self._packet_s or self.damaged else max(1, round(self._packet_s * sample_rate))


def _duration_s(container: InputContainer, stream: AudioStream) -> float | None:
    """What the container claims, in seconds."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    has_video = any(other.type == "video" for other in container.streams)
    return container.duration / 1e6 if container.duration and not has_video else None  # microseconds


def _length_limit(path: Path, container: InputContainer, stream: AudioStream, sample_rate: int) -> int | None:
    """Samples that are not padding, where MP4 (iTunSMPB, edit list) or WAV (fact chunk) tells; else None."""
    if not stream.duration or not stream.time_base:
        return None
    told = round(stream.duration * stream.time_base * sample_rate)
    if container.format.name == "wav":
        return told
    if "mov" not in container.format.name:
        return None
    gapless = container.metadata.get("iTunSMPB", "").split()
    with contextlib.suppress(ValueError, IndexError):
        return int(gapless[3], 16) or None
    with path.open("rb") as file:
        ticks_per_s = _movie_timescale(file)
    # An edit list counts in movie ticks, often milliseconds and rounded either way: allow one tick more.
    return told + (-(-sample_rate // ticks_per_s) if 0 < ticks_per_s < sample_rate else 0)


def _movie_timescale(file: BinaryIO) -> int:
    """Ticks per second of an MP4's movie header (moov/mvhd); 0 when there is none."""
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        header = 8
        if size == 1:
            size, header = int.from_bytes(file.read(8), "big"), 16
        if kind == b"mvhd":
            body = file.read(24)
            at = 20 if body[:1] == b"\1" else 12
            return int.from_bytes(body[at : at + 4], "big")
        if kind == b"moov":
            continue  # step inside
        if size < header:
            return 0
        file.seek(size - header, 1)
    return 0


def _cut(chunks: Iterator[np.ndarray], limit: int | None) -> Iterator[np.ndarray]:
    """Drop what follows sample `limit`, unless it is too much to be padding (then the container lied)."""
    count, held = 0, []
    for chunk in chunks:
        if limit is None:
            yield chunk
            continue
        keep = max(0, min(chunk.shape[1], limit - count))
        count += chunk.shape[1]
        if keep:
            yield chunk[:, :keep]
        if keep < chunk.shape[1]:
            held.append(chunk[:, keep:])
        if count - limit > _PADDING_FRAMES:
            yield from held
            held, limit = [], None


def _frame_position(frame: AudioFrame) -> int | None:
    """Position of the frame's first sample by its timestamp."""
    if frame.pts is None or not frame.time_base:
        return None
    return round(frame.pts * frame.time_base * frame.sample_rate)


def _to_float(frame: AudioFrame) -> np.ndarray:
    """Samples of a frame as float32 [channels, n], full scale +-1."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype.kind == "u":
        return (data.astype(np.float32) - 128) / 128
    if data.dtype.kind == "i":
        return data.astype(np.float32) * np.float32(2.0 ** (1 - 8 * data.dtype.itemsize))
    return np.ascontiguousarray(data, np.float32)
