"""Raw PCM as it comes through pipes: interleaved samples without a header, cut anywhere."""

import io
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import soundfile

from hifispeech.audio.io.encode import quantise
from hifispeech.errors import AudioError

INPUT_FORMATS = ("s16le", "f32le", "mulaw", "alaw")  # FFmpeg's names; the last two are G.711
OUTPUT_FORMATS = ("s16le", "f32le")
_TYPES = {"s16le": "<i2", "f32le": "<f4", "mulaw": "u1", "alaw": "u1"}
_G711 = {"mulaw": "ULAW", "alaw": "ALAW"}


class PcmDecoder:
    """Turns bytes into blocks; what is no whole frame yet waits for the next bytes.

    Raises:
        AudioError: if the format is none of `INPUT_FORMATS`.
    """

    def __init__(self, sample_format: str, channels: int = 1) -> None:
        if sample_format not in INPUT_FORMATS:
            raise AudioError(f"format={sample_format!r} is unknown; use one of {', '.join(INPUT_FORMATS)}")
        self.format, self.channels = sample_format, channels
        self.dtype = np.dtype(_TYPES[sample_format])
        self.left = b""  # the beginning of a frame

    def push(self, data: bytes) -> npt.NDArray[np.float32]:
        """Shape: `[channels, time]`, whatever is whole."""
        data = self.left + data
        size = len(data) - len(data) % (self.dtype.itemsize * self.channels)
        self.left = data[size:]
        samples = np.frombuffer(data[:size], self.dtype).reshape(-1, self.channels).T
        if self.format in _G711:
            return g711_levels(self.format)[samples]
        block = np.ascontiguousarray(samples, np.float32)
        return block * np.float32(1 / 32768) if self.format == "s16le" else block


@lru_cache(maxsize=2)
def g711_levels(law: str) -> npt.NDArray[np.float32]:
    """The level of each code of "mulaw" or "alaw", from libsndfile. Shape: `[256]`."""
    codes = io.BytesIO(bytes(range(256)))
    levels, _ = soundfile.read(
        codes, dtype="float32", samplerate=8000, channels=1, format="RAW", subtype=_G711[law]
    )
    return np.asarray(levels, np.float32)


def encode(block: npt.NDArray[np.float32], sample_format: str) -> bytes:
    """Interleaved samples of `[channels, time]`; 16-bit ones are rounded, and cut off at full scale."""
    samples = quantise(block, 16) if sample_format == "s16le" else block
    return np.ascontiguousarray(samples.T, _TYPES[sample_format]).tobytes()
