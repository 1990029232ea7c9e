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
from typing import TYPE_CHECKING, Any

from hifispeech.version import __version__
from hifispeech.weights.packaged import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    import numpy as np

    from hifispeech.audio.bandwidth.meter import Bandwidth, detect_bandwidth
    from hifispeech.audio.io.reader import read
    from hifispeech.audio.io.writer import write
    from hifispeech.errors import AudioError, HifispeechError, ModelError
    from hifispeech.infer.file import FileReport
    from hifispeech.infer.inspection import Inspection, inspect
    from hifispeech.infer.upscaler import Upscaler

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
    "Bandwidth": "hifispeech.audio.bandwidth.meter",
    "detect_bandwidth": "hifispeech.audio.bandwidth.meter",
    "read": "hifispeech.audio.io.reader",
    "write": "hifispeech.audio.io.writer",
    "Inspection": "hifispeech.infer.inspection",
    "inspect": "hifispeech.infer.inspection",
    "FileReport": "hifispeech.infer.file",
    "Upscaler": "hifispeech.infer.upscaler",
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


def upscale(
    audio: np.ndarray,
    sample_rate: int,
    *,
    cutoff_hz: float | None = None,
    model: str = DEFAULT,
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
    model: str = DEFAULT,
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


@lru_cache(maxsize=1)
def _upscaler(model: str, device: str) -> Upscaler:
    """The model used last stays loaded, so that calls in a loop do not read it again."""
    from hifispeech.infer.upscaler import Upscaler

    return Upscaler(model, device)
