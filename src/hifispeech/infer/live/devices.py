"""Microphone and loudspeaker through `sounddevice` (extra `live`), as sources and sinks of blocks."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from hifispeech.errors import HifispeechError
from hifispeech.infer.edges import RATE

log = logging.getLogger(__name__)

BLOCK_S = 0.01  # what is asked of the microphone at a time
PLAY_LATENCY_S = 0.05  # generated frames come every 10.7 ms: the device must not run dry between them

Block = npt.NDArray[np.float32]


class Microphone:
    """Blocks `[channels, time]` of the default input device, until `stop`.

    Raises:
        ImportError: without `sounddevice` or its PortAudio library.
        HifispeechError: if there is no such device, or it fails.
    """

    def __init__(self, sample_rate: int, channels: int = 1) -> None:
        self._frames = max(1, round(BLOCK_S * sample_rate))
        self._is_stopped = False
        with _explained("microphone") as sounddevice:
            self._device: Any = sounddevice.InputStream(
                samplerate=sample_rate, channels=channels, dtype="float32", latency="low"
            )
            self._device.start()

    def __iter__(self) -> Iterator[Block]:
        while not self._is_stopped:
            with _explained("microphone"):
                samples, is_late = self._device.read(self._frames)
            if is_late:
                log.warning(
                    "the microphone was read too late, some of its sound is lost; close other programs"
                )
            yield np.ascontiguousarray(samples.T, np.float32)

    def stop(self) -> None:
        """Let the blocks end after the one that is on its way."""
        self._is_stopped = True

    def close(self) -> None:
        """Give the device back."""
        self._device.close()


class Speaker:
    """Plays blocks `[channels, time]` at 48 kHz on the default output device.

    Raises:
        ImportError: without `sounddevice` or its PortAudio library.
        HifispeechError: if there is no such device, or it fails.
    """

    def __init__(self, channels: int = 1) -> None:
        with _explained("loudspeaker") as sounddevice:
            self._device: Any = sounddevice.OutputStream(
                samplerate=RATE, channels=channels, dtype="float32", latency=PLAY_LATENCY_S
            )
            self._device.start()

    def write(self, block: Block) -> None:
        """Hand over to the device; waits while its buffer is full."""
        if block.shape[1]:
            with _explained("loudspeaker"):
                self._device.write(np.ascontiguousarray(block.T))

    def close(self) -> None:
        """Wait until everything is heard, and give the device back."""
        self._device.stop()
        self._device.close()


@contextmanager
def _explained(device: str) -> Iterator[Any]:
    """The module `sounddevice`; what goes wrong with a device becomes an error that says what to do."""
    try:
        sounddevice: Any = importlib.import_module("sounddevice")
    except ModuleNotFoundError as error:
        raise ImportError(
            f'the {device} needs sounddevice; install it with: pip install "hifispeech[live]"'
        ) from error
    except OSError as error:  # its wheels for Linux leave the library to the system
        raise ImportError(
            f"the {device} needs the PortAudio library; install it (Debian: apt install libportaudio2)"
        ) from error
    try:
        yield sounddevice
    except sounddevice.PortAudioError as error:
        raise HifispeechError(
            f"the {device} cannot be used ({error}); see `python -m sounddevice` for the devices there are"
        ) from error
