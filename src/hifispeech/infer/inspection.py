"""What is in a file: format, measured bandwidth, clipping, silence. See `inspect`."""

from collections.abc import Callable
from os import PathLike
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hifispeech.infer.file import InputFile

_FULL_SCALE = 32767 / 32768  # the largest positive 16-bit sample


class Inspection(NamedTuple):
    """What `inspect` found in a file."""

    path: str
    container: str
    codec: str
    sample_rate: int
    channels: int
    duration_s: float
    cutoff_hz: float  # where the content ends: the highest edge of all channels; 0 for digital silence
    is_full_band: bool  # nothing is missing: every channel that is not silent reaches up to the top, always
    is_silent: bool  # digital silence from start to end
    peak: float  # largest absolute sample; 1 is full scale
    clipped_samples: int  # samples at or above full scale, all channels together
    channel_cutoffs_hz: tuple[float, ...]
    warnings: tuple[str, ...]  # what was wrong but survivable, such as a truncated end


def inspect(path: str | PathLike[str], *, on_progress: Callable[[float], None] | None = None) -> Inspection:
    """Read a file once, block by block, and say what is in it: format, measured bandwidth, clipping, silence.

    `on_progress(done_s)` is called after each second of audio; what it raises ends the work.

    Raises:
        AudioError: the file is missing, empty, damaged or not audio.
    """
    peak, clipped_samples = 0.0, 0

    def watch(block: npt.NDArray[np.float32], seconds: float) -> None:
        nonlocal peak, clipped_samples
        magnitude = np.abs(block)
        peak = max(peak, float(magnitude.max(initial=0.0)))
        clipped_samples += int((magnitude >= _FULL_SCALE).sum())
        if on_progress is not None:
            on_progress(seconds)

    with InputFile(path) as file:
        file.measure(watch)
    # A channel's bandwidth may change part-way: the highest counts.
    channels = [[band for _, band in track if not band.is_silent] for track in file.tracks]
    cutoffs_hz = tuple(max((float(band.cutoff_hz) for band in bands), default=0.0) for bands in channels)
    sounding = [band for bands in channels for band in bands]
    info = file.info
    return Inspection(
        path=str(path),
        container=info.container,
        codec=info.codec,
        sample_rate=info.sample_rate,
        channels=info.channels,
        duration_s=file.frames / info.sample_rate,
        cutoff_hz=max(cutoffs_hz, default=0.0),
        is_full_band=bool(sounding) and all(band.is_full_band for band in sounding),
        is_silent=not sounding,
        peak=peak,
        clipped_samples=clipped_samples,
        channel_cutoffs_hz=cutoffs_hz,
        warnings=tuple(file.reader.warnings),
    )
