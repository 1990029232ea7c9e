"""Speech super-resolution: narrow-band speech in, full-band 48 kHz speech out.

>>> import hifispeech, numpy
>>> silence = numpy.zeros((2, 8000), numpy.float32)  # [channels, time]: one second of stereo at 8 kHz
>>> hifispeech.upscale(silence, 8000).shape
(2, 48000)

Arrays are float32 `[channels, time]`, nominal range -1 to 1; a `[time]` array gives a `[time]` array back.
Importing this package is cheap: each name below is loaded when it is first used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    import numpy as np

    from hifispeech.audio.bandwidth import Bandwidth, detect_bandwidth
    from hifispeech.audio.io import read, write
    from hifispeech.errors import AudioError, HifispeechError, ModelError
    from hifispeech.infer.upsampler import FileReport, Upscaler

__version__ = "0.1.0"

__all__ = [
    "AudioError",
    "Bandwidth",
    "FileReport",
    "HifispeechError",
    "Inspection",
    "ModelError",
    "Upscaler",
    "__version__",
    "detect_bandwidth",
    "inspect",
    "read",
    "upscale",
    "upscale_file",
    "write",
]

_HOME_OF = {
    "AudioError": "hifispeech.errors",
    "HifispeechError": "hifispeech.errors",
    "ModelError": "hifispeech.errors",
    "Bandwidth": "hifispeech.audio.bandwidth",
    "detect_bandwidth": "hifispeech.audio.bandwidth",
    "read": "hifispeech.audio.io",
    "write": "hifispeech.audio.io",
    "FileReport": "hifispeech.infer.upsampler",
    "Upscaler": "hifispeech.infer.upsampler",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}"
        )
    import importlib

    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


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


def upscale(
    audio: np.ndarray,
    sample_rate: int,
    *,
    cutoff_hz: float | None = None,
    model: str = "fast",
    device: str = "auto",
) -> np.ndarray:
    """Bring speech to full-band 48 kHz.

    Args:
        audio: `[channels, time]` or `[time]`, nominal range -1 to 1, any length and level.
        sample_rate: of `audio`, in Hz.
        cutoff_hz: where the content of `audio` ends; measured from the signal when None.
        model: name of a packaged model, or a path to one.
        device: "auto" (a GPU where ONNX Runtime has one, else the CPU), "cpu" or "cuda".

    Returns:
        float32 audio at 48 kHz in the shape given, `round(time * 48000 / sample_rate)` samples long. The band
        that was there is kept; audio that is full-band already is only resampled, and silence stays silent.

    Raises:
        AudioError: the audio holds NaN or infinity, has a wrong shape, or the rate or cutoff is not usable.
        ModelError: the model is missing or damaged, or the device is not there.
    """
    return _upscaler(model, device).process(audio, sample_rate, cutoff_hz=cutoff_hz)


def upscale_file(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    force: bool = False,
    encoding: str | None = None,
    cutoff_hz: float | None = None,
    peak: str = "limit",
    model: str = "fast",
    device: str = "auto",
    on_progress: Callable[[float, float | None], None] | None = None,
) -> FileReport:
    """Bring a file of any length to full-band 48 kHz, block by block; see `Upscaler.process_file`.

    Raises:
        AudioError: the source cannot be read or the target not be written; no partial target is left.
        ModelError: the model is missing or damaged, or the device is not there.
    """
    return _upscaler(model, device).process_file(
        source,
        target,
        force=force,
        encoding=encoding,
        cutoff_hz=cutoff_hz,
        peak=peak,
        on_progress=on_progress,
    )


def inspect(path: str | PathLike[str], *, on_progress: Callable[[float], None] | None = None) -> Inspection:
    """Read a file once, block by block, and say what is in it: format, measured bandwidth, clipping, silence.

    `on_progress(done_s)` is called after each second of audio; what it raises ends the work.

    Raises:
        AudioError: the file is missing, empty, damaged or not audio.
    """
    import numpy as np

    from hifispeech.audio.bandwidth import BandwidthMeter
    from hifispeech.audio.io import open_reader

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


_FULL_SCALE = 32767 / 32768  # the largest positive 16-bit sample


@lru_cache(maxsize=1)
def _upscaler(model: str, device: str) -> Upscaler:
    """The model used last stays loaded, so that calls in a loop do not read it again."""
    from hifispeech.infer.upsampler import Upscaler

    return Upscaler(model, device)
