"""Audio files in, block by block: `open_reader`, `read`.

Reading takes anything libsndfile or FFmpeg reads. Opus is always decoded at 48 kHz (the rate in its header is
a hint; decoding at it could drop band that is there).
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from hifispeech.audio.io.sndfile import AudioInfo, Source, open_sndfile
from hifispeech.errors import AudioError

LOUDEST = 1e9  # 180 dB above full scale
BLOCK_FRAMES = 65_536


def check_loudest(audio: np.ndarray, name: str) -> None:
    """Refuse samples that no recording has: their squares would leave the range of float32.

    Raises:
        AudioError: if a sample is more than `LOUDEST`.
    """
    if audio.size and (peak := max(float(audio.max()), -float(audio.min()))) > LOUDEST:
        raise AudioError(
            f"{name}: a sample is {peak:.3g} times full scale, more than {LOUDEST:g}; the data is damaged "
            "or no audio, or has to be scaled to -1..1 first"
        )


class AudioReader:
    """An open audio file; make one with `open_reader`. Use as a context manager.

    `info` says what the file is; `warnings` lists what was wrong but survivable (truncated, damaged packets):
    it is complete after the last block, and every entry is also logged.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.path = path
        self._source = source
        self._open: list[Iterator[np.ndarray]] = []

    @property
    def info(self) -> AudioInfo:
        return self._source.info

    @property
    def warnings(self) -> list[str]:
        return self._source.warnings

    def blocks(self, block_frames: int = BLOCK_FRAMES) -> Iterator[np.ndarray]:
        """The samples from the start of the file, as often as called.

        Yields float32 [channels, block_frames]; the last block may be shorter, none is empty.
        Raises AudioError on NaN or infinite samples (with count and first position) and on a rate change.
        """
        if block_frames < 1:
            raise ValueError(f"block_frames={block_frames} must be at least 1; 65536 is a good choice")
        return self._blocks(block_frames)

    def _blocks(self, block_frames: int) -> Iterator[np.ndarray]:
        chunks = self._source.chunks()
        self._open.append(chunks)
        parts: list[np.ndarray] = []
        have = start = 0
        for chunk in chunks:
            if not np.isfinite(chunk).all():
                raise self._not_finite(chunk, start, chunks)
            check_loudest(chunk, str(self.path))
            start += chunk.shape[1]
            parts.append(chunk)
            have += chunk.shape[1]
            if have < block_frames:
                continue
            joined = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
            whole = have - have % block_frames
            for at in range(0, whole, block_frames):
                yield np.ascontiguousarray(joined[:, at : at + block_frames])
            parts, have = ([joined[:, whole:]] if whole < have else []), have - whole
        if not start:  # the header told of samples that are not there
            raise AudioError(
                f"{self.path}: the {self.info.codec} stream decodes to no audio samples (damaged); a file "
                "with at least one sample is needed; record or export it again"
            )
        if have:
            yield np.concatenate(parts, axis=1)

    def samples(
        self, channels: slice = slice(None), on_frames: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """The whole file, or some of its channels, as float32 [channels, time].

        `on_frames` is called with the number of samples so far; what it raises ends the reading.
        """
        blocks, frames = [], 0
        for block in self.blocks():
            blocks.append(block[channels])
            frames += block.shape[1]
            if on_frames is not None:
                on_frames(frames)
        return np.concatenate(blocks, axis=1)

    def _not_finite(self, chunk: np.ndarray, start: int, rest: Iterator[np.ndarray]) -> AudioError:
        bad = ~np.isfinite(chunk)
        frame = int(np.argmax(bad.any(axis=0)))
        channel = int(np.argmax(bad[:, frame]))
        count = int(bad.sum()) + sum(int((~np.isfinite(more)).sum()) for more in rest)
        position = start + frame
        return AudioError(
            f"{self.path}: {count} sample{'s are' if count > 1 else ' is'} NaN or infinite, the first at "
            f"frame {position} ({position / self.info.sample_rate:.3f} s), channel {channel + 1}; "
            "only finite samples can be processed; export the file again or repair those samples"
        )

    def close(self) -> None:
        """Release the file; iterators from `blocks` end."""
        for chunks in self._open:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        self._open.clear()

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_reader(path: str | os.PathLike[str]) -> AudioReader:
    """Open an audio file for block-wise reading.

    Raises AudioError when it is missing, not a regular file, unreadable, empty, not audio, or holds no
    samples.
    """
    file = Path(os.path.abspath(path))
    _check_is_file(file)
    source: Source | None = open_sndfile(file)
    if source is None:
        from hifispeech.audio.io.ffmpeg import FFmpegSource  # 60 ms to import, and not needed for WAV

        source = FFmpegSource(file)
    return AudioReader(file, source)


def read(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Whole file as (float32 [channels, time], sample_rate). Raises AudioError as `open_reader` does."""
    with open_reader(path) as reader:
        return reader.samples(), reader.info.sample_rate


def _check_is_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise AudioError(f"{path}: no such file; an existing audio file is needed; check the path") from error
    except OSError as error:
        raise AudioError(
            f"{path}: cannot be reached ({error.strerror}); check the path and permissions"
        ) from error
    if stat.S_ISDIR(mode):
        raise AudioError(f"{path}: is a folder; an audio file is needed; pass the files in it one by one")
    if not stat.S_ISREG(mode):
        raise AudioError(f"{path}: is not a regular file (a pipe or device); save the audio to a file first")
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if is_empty:
        raise AudioError(f"{path}: is empty (0 bytes); a file with audio is needed; record or copy it again")
