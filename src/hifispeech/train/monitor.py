"""What a run reports: a line of JSON per report, TensorBoard curves, audio and spectrogram pictures."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from hifispeech.audio.spectral import stft

LOG_FILE = "log.jsonl"
TENSORBOARD = "tensorboard"
RATE = 48000
RANGE_DB = 90.0
# Dark to bright through purple and orange, equally spaced: brightness rises with level throughout.
_COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)]) / 255.0


class Monitor:
    """Writes to a run's folder; with `folder` None, and on all processes but the first, it does nothing.

    Args:
        listener: called with (step, values) at every report, for a display.
    """

    def __init__(self, folder: Path | None, listener: Any = None) -> None:
        self.listener = listener
        self.log = self.board = None
        if folder is not None:
            from torch.utils.tensorboard.writer import SummaryWriter  # a second to import

            folder.mkdir(parents=True, exist_ok=True)
            self.log = (folder / LOG_FILE).open("a", encoding="utf-8")
            self.board = SummaryWriter(str(folder / TENSORBOARD))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Report values of one step."""
        if self.listener:
            self.listener(step, values)
        if self.log is not None and self.board is not None:
            plain = {key: float(f"{value:.6g}") for key, value in values.items() if math.isfinite(value)}
            self.log.write(json.dumps({"step": step, **plain}) + "\n")
            self.log.flush()
            for key, value in plain.items():
                self.board.add_scalar(key if "/" in key else f"train/{key}", value, step)

    def clips(self, step: int, clips: dict[str, np.ndarray]) -> None:
        """Audio `[time]` at 48 kHz by name, to listen to and as spectrograms."""
        if self.board is None:
            return
        for name, audio in clips.items():
            self.board.add_audio(name, np.clip(audio, -1.0, 1.0)[None], step, sample_rate=RATE)
            self.board.add_image(name, spectrogram_picture(audio), step, dataformats="HWC")
        self.board.flush()

    def close(self) -> None:
        """Finish the files."""
        if self.log is not None and self.board is not None:
            self.log.close()
            self.board.close()


def spectrogram_picture(audio: np.ndarray) -> np.ndarray:
    """Level in dB as colours, low frequencies at the bottom. Shape: `[time]` to `[height, frames, 3]`."""
    power = np.abs(stft(audio.astype(np.float32))) ** 2
    level_db = 10 * np.log10(np.maximum(power, 1e-12)).T[::-1][::2]
    share = np.clip((level_db - level_db.max()) / RANGE_DB + 1.0, 0.0, 1.0)
    places = np.linspace(0.0, 1.0, len(_COLOURS))
    return np.stack([np.interp(share, places, _COLOURS[:, c]) for c in range(3)], axis=-1)
