"""What is in a file: format, measured bandwidth, clipping, silence. See `inspect`."""

from collections.abc import Callable
from os import PathLike
from typing import NamedTuple

import numpy as np

from hifispeech.audio.bandwidth.meter import BandwidthMeter
from hifispeech.audio.io.reader import open_reader

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
    peak, clipped, frames = 0.0, 0, 0
    with open_reader(path) as reader:
        info = reader.info
        meters = [BandwidthMeter(info.sample_rate) for _ in range(info.channels)]
        for block in reader.blocks(info.sample_rate):
            magnitude = np.abs(block)
            peak = max(peak, float(magnitude.max(initial=0.0)))
            clipped += int((magnitude >= _FULL_SCALE).sum())
            frames += block.shape[1]
            for meter, channel in zip(meters, block, strict=True):
                meter.push(channel)
            if on_progress is not None:
                on_progress(frames / info.sample_rate)
    bands = [meter.result() for meter in meters]
    sounding = [
        band for meter in meters for _, band in meter.track() if not band.is_silent
    ]  # a channel's bandwidth may change part-way
    cutoffs_hz = tuple(0.0 if band.is_silent else float(band.cutoff_hz) for band in bands)
    return Inspection(
        path=str(path),
        container=info.container,
        codec=info.codec,
        sample_rate=info.sample_rate,
        channels=info.channels,
        duration_s=frames / info.sample_rate,
        cutoff_hz=max(cutoffs_hz, default=0.0),
        is_full_band=bool(sounding) and all(band.is_full_band for band in sounding),
        is_silent=not sounding,
        peak=peak,
        clipped_samples=clipped,
        channel_cutoffs_hz=cutoffs_hz,
        warnings=tuple(reader.warnings),
    )
