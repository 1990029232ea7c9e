"""Files through `BatchUpscaler`: decoded, measured and written in threads beside the device."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from hifispeech.audio.io.sndfile import AudioInfo
from hifispeech.audio.resample import check_rate
from hifispeech.errors import HifispeechError
from hifispeech.infer.batch.recording import Recording, grouped
from hifispeech.infer.batch.rows import Samples
from hifispeech.infer.batch.upscaler import BatchUpscaler
from hifispeech.infer.edges import RATE
from hifispeech.infer.file import FileReport, InputFile

# Seconds of a file's channels together, and of a group's: an hour at 48 kHz takes about 2 GB, and two groups
# are in memory at a time.
MOST_S = 600.0
GROUP_S = 3600.0


class TooLongError(HifispeechError):
    """A file is longer than batches take; `Upscaler.process_file` works on it in constant memory."""


class FileJob(NamedTuple):
    """A file to read and the file to write, which is replaced if it is there."""

    source: Path
    target: Path


def upscale_files(
    upscaler: BatchUpscaler,
    jobs: Sequence[FileJob],
    *,
    encoding: str | None = None,
    cutoff_hz: float | None = None,
    peak: str = "limit",
) -> Iterator[tuple[int, FileReport | Exception]]:
    """Upscale files together; yields the number of each job as it ends, and its report or what went wrong.

    `encoding`, `cutoff_hz` and `peak` are those of `Upscaler.process_file`. A file of more than `MOST_S`
    seconds is not begun or broken off: its error is `TooLongError`.
    """
    files: list[_File] = []
    for number, job in enumerate(jobs):
        try:
            files.append(_File(number, job, cutoff_hz, upscaler.network.look_ahead))
        except Exception as error:  # whatever it is, it is of this file
            yield number, error
    writing: deque[list[Future[tuple[int, FileReport | Exception]]]] = deque()
    with ThreadPoolExecutor(upscaler.threads, "hifispeech-write") as pool:
        for group in upscaler.work(grouped(files, upscaler.batch_size, GROUP_S)):
            writing.append([pool.submit(file.write, encoding, peak) for file in group])
            if len(writing) > 1:
                yield from (future.result() for future in writing.popleft())
        for futures in writing:
            yield from (future.result() for future in futures)


class _File(Recording):
    """A file on its way through a batch.

    Raises:
        AudioError: its header cannot be read.
        TooLongError: it says so there.
    """

    def __init__(self, number: int, job: FileJob, cutoff_hz: float | None, look_ahead: int) -> None:
        with InputFile(job.source) as self.file:
            info = self.file.info
        check_rate(info.sample_rate)
        seconds = info.duration_s or 0.0
        _check_length(job.source, info, seconds)
        self.job = job
        super().__init__(number, self._read, info.channels, seconds, cutoff_hz, look_ahead)

    def _read(self) -> tuple[Samples, int]:
        """The samples; a header that promised fewer is not believed."""
        info = self.file.info
        with self.file:
            audio = self.file.samples(lambda _, seconds: _check_length(self.job.source, info, seconds))
        return audio, info.sample_rate

    def write(self, encoding: str | None, peak: str) -> tuple[int, FileReport | Exception]:
        """Write the result; the number of the job and its end."""
        target = self.job.target
        try:
            audio, self.file.tracks = self.result(), self.tracks
            writer = self.file.writer(target, force=True, encoding=encoding, peak=peak)
            with writer:
                for start in range(0, audio.shape[1], RATE):
                    writer.write(audio[:, start : start + RATE])
            return self.number, self.file.report(target, writer)
        except Exception as error:  # whatever it is, it is of this file
            return self.number, error


def _check_length(path: Path, info: AudioInfo, seconds: float) -> None:
    if seconds * info.channels > MOST_S:
        raise TooLongError(
            f"{path}: {seconds:.0f} s of {info.channels} channels, more than the {MOST_S:.0f} s that batches "
            "take; use Upscaler.process_file"
        )
