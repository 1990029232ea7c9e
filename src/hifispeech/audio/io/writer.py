"""`AudioWriter`: an audio file that appears whole or not at all."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import soundfile

from hifispeech.audio.io import encode
from hifispeech.audio.io.sndfile import TAGS, AudioInfo, common_tags
from hifispeech.errors import AudioError
from hifispeech.files import rename, temporary_beside

log = logging.getLogger(__name__)

PEAK_POLICIES = ("limit", "scale")
# The largest 16-bit code: the level that peak="scale" brings the loudest sample to.
FULL_SCALE = 32767 / 32768
_COPY_FRAMES = 65_536

StrPath = str | os.PathLike[str]


class AudioWriter:
    """Writes float32 blocks [channels, n] to .wav, .flac, .ogg, .opus or .mp3; use as a context manager.

    encoding: .wav pcm_16 (default), pcm_24, float; .flac pcm_16, pcm_24; .ogg vorbis (default), opus.
    peak: what happens above full scale. "limit" sets each such sample to the largest code (never wraps);
        "scale" turns the whole output down so that the highest peak just fits (needs a float copy on the
        disk meanwhile). Float WAV is written as it is under both.
    tags: those named in `source.TAGS` are kept, others ignored.
    inputs: files that must not be overwritten, not even with force.
    frames: the length, where it is known before: a WAV then has its final header from the start.

    The audio goes to a temporary file in the target's folder, which replaces the target on a clean exit and
    is removed on any exception, Ctrl-C included. After the exit `peak` is the largest magnitude given to
    `write`, `samples_over` how many samples were above full scale, `frames` the length and `gain` what
    "scale" multiplied by.

    Raises AudioError before anything is written when the target exists (without force), is an input or no
    regular file, when its folder is missing or read-only, or when suffix, encoding, rate and channels do not
    fit; later when the disk is full, a sample is not finite, or nothing was written.
    """

    def __init__(
        self,
        path: StrPath,
        sample_rate: int,
        channels: int,
        *,
        encoding: str | None = None,
        force: bool = False,
        tags: Mapping[str, str] | None = None,
        peak: str = "limit",
        inputs: StrPath | list[StrPath] | tuple[StrPath, ...] = (),
        frames: int | None = None,
    ) -> None:
        if peak not in PEAK_POLICIES:
            raise AudioError(f"peak={peak!r} is unknown; allowed are {', '.join(PEAK_POLICIES)}")
        self.path = Path(os.path.abspath(path))
        self.encoding = encode.check_format(self.path.suffix.lower(), encoding, sample_rate, channels)
        self.sample_rate, self.channels = sample_rate, channels
        self.peak, self.samples_over, self.frames, self.gain = 0.0, 0, 0, 1.0
        self._tags = common_tags(tags or {})
        self._force, self._expected = force, frames
        self._inputs = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
        self._scale = peak == "scale" and self.encoding != "float"
        self._files: list[BinaryIO] = []
        self._pending: BinaryIO | None = None
        self._encoder: encode.Encoder | None = None
        check_target(self.path, force=self._force, inputs=self._inputs)

    def __enter__(self) -> "AudioWriter":
        try:
            with self._explained():
                out = self._create()
                if self._scale:
                    self._pending = self._create()
                self._encoder = encode.open_encoder(
                    out,
                    self.path.suffix.lower(),
                    self.encoding,
                    self.sample_rate,
                    self.channels,
                    self._tags,
                    self._expected,
                )
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, block: np.ndarray) -> None:
        """Append float samples [channels, n]; [n] will do for one channel. NaN raises AudioError."""
        if self._encoder is None:
            raise RuntimeError("AudioWriter is not open; use it as `with AudioWriter(...) as writer:`")
        data = np.asarray(block, np.float32)
        data = data[np.newaxis] if data.ndim == 1 else data
        if data.ndim != 2 or data.shape[0] != self.channels:
            raise AudioError(
                f"block of shape {np.shape(block)} does not fit; [{self.channels}, time] is expected"
            )
        if not data.shape[1]:
            return
        magnitude = np.abs(data)
        highest = float(magnitude.max())
        if not np.isfinite(highest):
            bad = int((~np.isfinite(data)).sum())
            raise AudioError(
                f"{bad} of the samples to write are NaN or infinite; only finite samples can be written"
            )
        self.peak = max(self.peak, highest)
        self.samples_over += int(np.count_nonzero(magnitude > 1.0)) if highest > 1.0 else 0
        self.frames += data.shape[1]
        with self._explained():
            if self._pending is not None:
                self._pending.write(data.T.tobytes())
            else:
                self._encoder.write(data)

    def part(self) -> tuple[Path, int]:
        """The temporary file, and how many bytes of it are written; final ones if `grows_only`."""
        if not self._files:
            raise RuntimeError("AudioWriter is not open; use it as `with AudioWriter(...) as writer:`")
        with self._explained():
            self._files[0].flush()
            return Path(self._files[0].name), os.fstat(self._files[0].fileno()).st_size

    @property
    def grows_only(self) -> bool:
        """Whether bytes once written stay: then the file can be sent on while it is made."""
        if self._scale:
            return False
        return self.encoding in ("vorbis", "opus") or (
            self.path.suffix.lower() == ".wav" and self._expected is not None
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with self._explained():
                    self._commit()
        finally:
            self._discard()

    def _commit(self) -> None:
        """Finish the temporary file and give it the target's name."""
        assert self._encoder is not None
        if not self.frames:
            raise AudioError(f"{self.path}: no samples were written; at least one is needed")
        if self._pending is not None:
            self._copy_scaled(self._pending)
        encoder, self._encoder = self._encoder, None
        encoder.close()
        for file in self._files:
            file.close()
        check_target(self.path, force=self._force, inputs=self._inputs)  # it may have appeared meanwhile
        rename(Path(self._files[0].name), Path(os.path.realpath(self.path)))
        if self.samples_over and self.encoding != "float":
            done = f"scaled by {self.gain:.4f}" if self._scale else "limited"
            log.warning(
                "%s: %d samples above full scale (peak %.3f), %s",
                self.path,
                self.samples_over,
                self.peak,
                done,
            )

    def _copy_scaled(self, pending: BinaryIO) -> None:
        assert self._encoder is not None
        self.gain = FULL_SCALE / self.peak if self.peak > 1.0 else 1.0
        pending.seek(0)
        while data := pending.read(4 * self.channels * _COPY_FRAMES):
            block = np.frombuffer(data, np.float32).reshape(-1, self.channels).T
            self._encoder.write(block * np.float32(self.gain) if self.gain < 1.0 else block)

    def _create(self) -> BinaryIO:
        """A new file beside the target, with the permissions a new file gets."""
        # Beside what a link points to: the link stays, its file is replaced.
        file = open(temporary_beside(Path(os.path.realpath(self.path))), "x+b")  # noqa: SIM115 (see _discard)
        self._files.append(file)
        return file

    def _discard(self) -> None:
        """Close and remove every temporary file that is left."""
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            with contextlib.suppress(Exception):
                encoder.close()
        for file in self._files:
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                os.unlink(file.name)
        self._files.clear()
        self._pending = None

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the disk and of the codec library as AudioError."""
        try:
            yield
        except OSError as error:
            raise AudioError(
                f"{self.path}: cannot be written ({error.strerror or error}); nothing was left behind; "
                "check free space and permissions, or write elsewhere"
            ) from error
        except soundfile.SoundFileError as error:
            raise AudioError(
                f"{self.path}: encoding to {self.encoding} failed ({error}); write .wav instead"
            ) from error


def write(
    path: StrPath,
    audio: np.ndarray,
    sample_rate: int,
    *,
    encoding: str | None = None,
    force: bool = False,
    tags: Mapping[str, str] | None = None,
    peak: str = "limit",
    inputs: StrPath | list[StrPath] | tuple[StrPath, ...] = (),
) -> AudioWriter:
    """Write a whole array [channels, time] or [time]; the arguments are those of `AudioWriter`.

    Returns the closed writer: its `peak`, `samples_over` and `gain` tell what happened to the level.
    """
    data = np.atleast_2d(np.asarray(audio, np.float32))
    writer = AudioWriter(
        path, sample_rate, data.shape[0], encoding=encoding, force=force, tags=tags, peak=peak, inputs=inputs
    )
    with writer:
        for start in range(0, data.shape[1], _COPY_FRAMES):
            writer.write(data[:, start : start + _COPY_FRAMES])
    return writer


def check_target(path: Path, *, force: bool, inputs: Sequence[StrPath] = ()) -> None:
    """Raise AudioError if a result must not or cannot be put at `path`; see `AudioWriter`."""
    for other in inputs:
        if same_file(path, other):
            raise AudioError(f"{path}: output and input are the same file; write to another name")
    if not os.path.isdir(path.parent):
        raise AudioError(f"{path.parent}: no such folder; create it first or write elsewhere")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder; a file name is needed")
    if path.exists() and not path.is_file():
        raise AudioError(f"{path}: is a pipe or device; only regular files can be written")
    if path.exists() and not force:
        raise AudioError(f"{path}: exists already; choose another name, or replace it with force (--force)")


def choose_encoding(path: StrPath, info: AudioInfo) -> str | None:
    """Encoding for `path` that keeps the precision of the input `info`; None: the default of the format."""
    form = encode.FORMATS.get(Path(path).suffix.lower())
    if form is None or "pcm_16" not in form.encodings:
        return None
    return info.sample_encoding if info.sample_encoding in form.encodings else "pcm_24"


def same_file(a: StrPath, b: StrPath) -> bool:
    """Whether two paths name one file (through links and other spellings), existing or not."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return os.path.normcase(os.path.realpath(a)) == os.path.normcase(os.path.realpath(b))


__all__ = ["TAGS", "AudioWriter", "check_target", "choose_encoding", "same_file", "write"]
