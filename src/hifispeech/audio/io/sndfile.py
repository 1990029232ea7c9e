"""What a readable file is to the rest of the package, and the libsndfile side of it.

A *source* describes one file (`info`), lists what was odd about it (`warnings`) and yields its samples from
the start, as often as asked, in constant memory (`chunks`). `ffmpeg` holds the other source; `audio.io`
chooses.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from hifispeech.errors import AudioError

log = logging.getLogger(__name__)

TAGS = ("title", "artist", "album", "date", "genre", "comment", "track")
_TAG_ALIASES = {"tracknumber": "track", "author": "artist", "year": "date"}
CHUNK_FRAMES = 65_536
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"dns.", b"caff", b"NIST", b"Crea", b"OggS")

# What libsndfile reads with the exact length. Block codecs (GSM, ADPCM) go to FFmpeg, which knows how much of
# the last block is padding; Vorbis comes here because FFmpeg leaves padding in files of one page.
_EXACT_SUBTYPES = {
    "PCM_S8": "pcm_16",
    "PCM_U8": "pcm_16",
    "PCM_16": "pcm_16",
    "PCM_24": "pcm_24",
    "PCM_32": "float",
    "FLOAT": "float",
    "DOUBLE": "float",
    "ULAW": "pcm_16",
    "ALAW": "pcm_16",
    "VORBIS": "pcm_16",
}
# Vorbis stores centre before right and so on; channel k of the WAV order is channel ORDER[k] of the stream.
_VORBIS_ORDER = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}
# "data : 384000 (should be 191979)" in libsndfile's log of the header.
_SIZE_CLAIM = re.compile(r"\b(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)")
# Programs that write to a pipe put a size near 2 or 4 GiB: length unknown, not truncated.
_STREAMED_SIZE = 0x7FFFF000


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself.

    `frames` is exact where known before decoding, else None; `duration_s` is then what the container claims
    (None if nothing): good for a progress bar, not for an allocation. `sample_encoding` is the smallest of
    pcm_16, pcm_24 and float that keeps every sample of a lossless file (pcm_16 for lossy ones).
    """

    sample_rate: int
    channels: int
    frames: int | None
    duration_s: float | None
    container: str
    codec: str
    tags: dict[str, str] = field(default_factory=dict)
    sample_encoding: str = "pcm_16"


class Source(Protocol):
    """One readable file."""

    info: AudioInfo
    warnings: list[str]

    def chunks(self) -> Iterator[np.ndarray]:
        """Samples from the start, float32 [channels, n], n >= 1."""
        ...


def common_tags(*metadata: Mapping[str, str]) -> dict[str, str]:
    """Reduce container metadata to the tags in `TAGS`, under one spelling; the first mapping wins."""
    tags: dict[str, str] = {}
    for mapping in metadata:
        for key, value in mapping.items():
            name = _TAG_ALIASES.get(key.lower(), key.lower())
            text = str(value).replace("\0", "").strip()
            if name in TAGS and text:
                tags.setdefault(name, text)
    return tags


def _last_ogg_page(path: Path) -> bytes:
    """The last Ogg page in the file, from its capture pattern on; empty when there is none near the end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65_536))
        tail = file.read()
    at = tail.rfind(b"OggS")
    return tail[at:] if 0 <= at < len(tail) - 27 else b""


def warn_if_endless_ogg(source: Source, path: Path) -> None:
    """Ogg records no length, but its last page is marked."""
    page = _last_ogg_page(path)
    if not (page and page[5] & 4):
        warn(source, path, "truncated: the end mark of the stream is missing; what is there is used")


def warn(source: Source, path: Path, text: str) -> None:
    """Log `text` about `path` once and keep it for the caller."""
    if text not in source.warnings:
        source.warnings.append(text)
        log.warning("%s: %s", path, text)


class SndfileSource:
    """WAV, RF64, W64, AIFF, AU, CAF and relatives, and Ogg Vorbis, through libsndfile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.warnings: list[str] = []
        with soundfile.SoundFile(path) as file:
            self.info = AudioInfo(
                sample_rate=file.samplerate,
                channels=file.channels,
                frames=file.frames,
                duration_s=file.frames / file.samplerate,
                container=file.format.lower(),
                codec=file.subtype.lower(),
                tags=common_tags(file.copy_metadata()),
                sample_encoding=_EXACT_SUBTYPES.get(file.subtype, "pcm_16"),
            )
            self.is_exact = file.subtype in _EXACT_SUBTYPES
            claim = _SIZE_CLAIM.search(file.extra_info)
        if claim and int(claim[2]) < int(claim[1]) < _STREAMED_SIZE and self.info.frames:
            share = int(claim[2]) / int(claim[1])
            warn(self, path, f"truncated: {share:.1%} of the audio its header claims is there and used")
        is_vorbis = self.info.codec == "vorbis"
        if is_vorbis:
            warn_if_endless_ogg(self, path)
        self._order = _VORBIS_ORDER.get(self.info.channels) if is_vorbis else None

    def chunks(self) -> Iterator[np.ndarray]:
        """See `Source.chunks`."""
        try:
            count, claimed = 0, self.info.frames or 0
            with soundfile.SoundFile(self._path) as file:
                while True:
                    block = file.read(CHUNK_FRAMES, dtype="float32", always_2d=True)
                    if not len(block):
                        break
                    count += len(block)
                    yield np.ascontiguousarray(block.T[self._order] if self._order else block.T)
            if count < claimed:
                warn(self, self._path, f"damaged: {count} of {claimed} samples could be decoded")
        except (soundfile.LibsndfileError, OSError) as error:
            raise AudioError(
                f"{self._path}: reading failed ({error}); check the file and the disk"
            ) from error


def open_sndfile(path: Path) -> SndfileSource | None:
    """The libsndfile source if that is the right reader for `path`, else None (FFmpeg's turn).

    Asked only for files that begin like one of its formats: its MP3 reader would resynchronise inside any
    data and print to the terminal.
    """
    with path.open("rb") as file:
        head = file.read(18)  # an Ogg page has its stream's number in bytes 14 to 17
    is_known = head[:4] in _MAGIC or head[8:12] in (b"WAVE", b"AIFF", b"AIFC", b"8SVX", b"16SV")
    if not is_known or path.suffix.lower() == ".raw":  # soundfile takes that suffix for header-less data
        return None
    try:
        source = SndfileSource(path)
    except (soundfile.LibsndfileError, OSError, ValueError):
        return None
    if head[:4] == b"OggS" and _last_ogg_page(path)[14:18] not in (b"", head[14:18]):
        return None  # several streams in a row or interleaved: libsndfile would stop after the first
    return source if source.is_exact and source.info.frames else None
