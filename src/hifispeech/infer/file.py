"""A file on its way through the package: open, measure, generate, report. The only loop over its samples.

A file is read twice: where its band ends has to be known before the first sample can be generated, and a long
file does not fit into memory. Neither pass holds more than a second of it.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from hifispeech.audio.io.reader import AudioReader, open_reader
from hifispeech.audio.io.sndfile import AudioInfo
from hifispeech.audio.io.writer import AudioWriter, choose_encoding
from hifispeech.infer.edges import RATE, Track, fixed_track, measure

Samples = npt.NDArray[np.float32]
# Gets each second `[channels, time]` and the seconds so far, it included; what it raises ends the work.
Watch = Callable[[Samples, float], None]
# Blocks at the rate of the file, that rate, the number of channels, a track for each: to blocks at 48 kHz.
Generate = Callable[[Iterator[Samples], int, int, list[Track]], Iterator[Samples]]


@dataclass(frozen=True)
class FileReport:
    """What `Upscaler.process_file` did.

    `cutoff_hz`, `full_band` and `silent` have one value a channel: the lowest cutoff over time (0 for digital
    silence), full band throughout, digital silence throughout.
    """

    input: Path
    output: Path
    sample_rate: int
    channels: int
    duration_s: float
    cutoff_hz: tuple[float, ...]
    full_band: tuple[bool, ...]
    silent: tuple[bool, ...]
    peak: float
    samples_over: int
    warnings: tuple[str, ...] = field(default=())


class InputFile:
    """An audio file to be measured and upscaled; a context manager that can be entered again.

    `tracks` is the bandwidth over time of each channel, once it is measured or fixed; `frames` is how many
    samples the last pass has seen.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.tracks: list[Track] = []
        self.frames = 0
        self._reader: AudioReader | None = None

    def __enter__(self) -> "InputFile":
        self._reader = open_reader(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reader.close()

    @property
    def reader(self) -> AudioReader:
        """What was opened last, perhaps closed since."""
        if self._reader is None:
            raise RuntimeError("InputFile is not open; use it as `with InputFile(path) as file:`")
        return self._reader

    @property
    def info(self) -> AudioInfo:
        """What the header says, also after the end of the context."""
        return self.reader.info

    def blocks(self, watch: Watch | None = None) -> Iterator[Samples]:
        """The samples from the start, a second at a time. Shape: `[channels, time]`."""
        self.frames = 0
        for block in self.reader.blocks(self.info.sample_rate):
            self.frames += block.shape[1]
            if watch is not None:
                watch(block, self.frames / self.info.sample_rate)
            yield block

    def samples(self, watch: Watch | None = None) -> Samples:
        """The whole file, for work that needs it in memory. Shape: `[channels, time]`."""
        return np.concatenate(list(self.blocks(watch)), axis=1)

    def measure(self, watch: Watch | None = None) -> None:
        """The first pass: where the band ends, in `tracks`."""
        self.tracks = measure(self.blocks(watch), self.info.sample_rate, self.info.channels)

    def fix(self, cutoff_hz: float) -> None:
        """Take a cutoff that is known, without a pass.

        Raises:
            AudioError: the cutoff is out of range.
        """
        self.tracks = [fixed_track(cutoff_hz, self.info.sample_rate)] * self.info.channels

    def generate(self, run: Generate, writer: AudioWriter, on_block: Callable[[], None]) -> None:
        """The second pass: what `run` makes of the samples goes to `writer`, block by block."""
        for block in run(self.blocks(), self.info.sample_rate, self.info.channels, self.tracks):
            writer.write(block)
            on_block()

    def writer(
        self,
        target: Path,
        *,
        force: bool = False,
        encoding: str | None = None,
        peak: str = "limit",
        frames: int | None = None,
    ) -> AudioWriter:
        """The writer of the result; without `encoding` as precise as the input where the format can."""
        return AudioWriter(
            target,
            RATE,
            self.info.channels,
            encoding=encoding or choose_encoding(target, self.info),
            force=force,
            tags=self.info.tags,
            peak=peak,
            inputs=[self.path],
            frames=frames,
        )

    def report(self, target: Path, writer: AudioWriter) -> FileReport:
        """What was done, once `writer` is closed."""
        cutoff_hz, full_band, silent = summary_of(self.tracks)
        return FileReport(
            self.path,
            target,
            self.info.sample_rate,
            self.info.channels,
            writer.frames / RATE,
            cutoff_hz,
            full_band,
            silent,
            writer.peak,
            writer.samples_over,
            tuple(self.reader.warnings),
        )


def summary_of(
    tracks: list[Track],
) -> tuple[tuple[float, ...], tuple[bool, ...], tuple[bool, ...]]:
    """`cutoff_hz`, `full_band` and `silent` of a `FileReport`."""
    channels = [[band for _, band in track] for track in tracks]
    return (
        tuple(min(0.0 if band.is_silent else band.cutoff_hz for band in bands) for bands in channels),
        tuple(all(band.is_full_band for band in bands) for bands in channels),
        tuple(all(band.is_silent for band in bands) for bands in channels),
    )
