"""Prepared recordings as band powers: computed once, so that training needs neither STFT nor waveform.

`powers.f16` holds the log10 band powers of all clips one after the other, `[frames, BANDS]`, 94 frames a
second (78 MB an hour); the clips are those of `clips.json`, in its order.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hifispeech.audio.bands import BANDS, LOG_SILENCE, recording_band_powers
from hifispeech.audio.spectral import HOP
from hifispeech.datasets.shards import Shards, read_clips
from hifispeech.files import atomic_file

POWERS_FILE = "powers.f16"
MAX_SPEAKER_FRAMES = 94 * 1200  # a speaker with more than 20 minutes is drawn no more often


def frames_of(samples: int) -> int:
    """Number of centred frames of a clip."""
    return 1 + samples // HOP


def cache_band_powers(folder: Path, on_clip: Callable[[int, int], None] | None = None) -> Path:
    """Write `powers.f16` beside the prepared audio in `folder`, unless it is there and complete.

    Raises:
        ValueError: if the folder holds no prepared data set.
    """
    clips = read_clips(folder)
    path = folder / POWERS_FILE
    frames = sum(frames_of(clip.length) for clip in clips)
    if path.exists() and path.stat().st_size == 2 * BANDS * frames:
        return path
    shards = Shards(folder, clips[0].split)
    with atomic_file(path) as file:
        for i, clip in enumerate(clips):
            powers = np.maximum(recording_band_powers(shards.read(clip)), LOG_SILENCE)
            file.write(powers.astype("<f2").tobytes())
            if on_clip:
                on_clip(i + 1, len(clips))
    return path


class BandPowers:
    """The band powers of one split of a prepared data set, read-only and shared between processes.

    Args:
        min_bandwidth_hz: clips whose band ends below are left out.
        source_fractions: of how many of all draws a source gets at most, by (part of) its name.
        full_band_weight: how much more often speakers recorded to 20 kHz and above are drawn.

    Raises:
        ValueError: as `Shards`.
    """

    def __init__(
        self,
        folder: Path | str,
        split: str,
        min_bandwidth_hz: float = 0.0,
        *,
        source_fractions: Mapping[str, float] | None = None,
        full_band_weight: float = 1.0,
    ) -> None:
        folder = Path(folder)
        self.shards = Shards(folder, split, min_bandwidth_hz)
        self.powers = np.memmap(cache_band_powers(folder), dtype="<f2", mode="r").reshape(-1, BANDS)
        starts, position = {}, 0
        for clip in read_clips(folder):
            starts[clip.offset] = position
            position += frames_of(clip.length)
        self.starts = [starts[clip.offset] for clip in self.shards.clips]
        self.weights = self._weights(source_fractions or {}, full_band_weight)

    def _weights(self, source_fractions: Mapping[str, float], full_band_weight: float) -> np.ndarray:
        """Probability of each speaker: the square root of its duration, then the two preferences."""
        shards = self.shards
        weights = np.zeros(len(shards.speakers))
        share_of: dict[str, list[int]] = {name: [] for name in source_fractions}
        for i, speaker in enumerate(shards.speakers):
            clips = [shards.clips[k] for k in shards.by_speaker[speaker]]
            frames = sum(frames_of(clip.length) for clip in clips)
            weights[i] = min(frames, MAX_SPEAKER_FRAMES) ** 0.5
            if np.median([clip.usable_hz for clip in clips]) >= 19000.0:
                weights[i] *= full_band_weight
            for name in source_fractions:
                if name in clips[0].source:
                    share_of[name].append(i)
        for name, fraction in source_fractions.items():
            own, rest = weights[share_of[name]].sum(), np.delete(weights, share_of[name]).sum()
            if rest and own > fraction / (1 - fraction) * rest:
                weights[share_of[name]] *= fraction / (1 - fraction) * rest / own
        return weights / weights.sum()

    def draw(self, seed: int, index: int, frames: int) -> tuple[np.ndarray, float]:
        """A random segment of one speaker and the lowest bandwidth (hertz) in it: pure in `(seed, index)`.

        Short clips of the same speaker are joined: they share microphone and room. Shape: `[frames, BANDS]`.
        """
        shards = self.shards
        rng = np.random.default_rng((seed, index))
        own = shards.by_speaker[shards.speakers[rng.choice(len(shards.speakers), p=self.weights)]]
        out, bandwidth_hz, filled = np.empty((frames, BANDS), np.float32), 1e9, 0
        while filled < frames:
            number = own[rng.integers(len(own))]
            length = frames_of(shards.clips[number].length)
            take = min(length, frames - filled)
            first = self.starts[number] + int(rng.integers(length - take + 1))
            out[filled : filled + take] = self.powers[first : first + take]
            bandwidth_hz = min(bandwidth_hz, shards.clips[number].usable_hz)
            filled += take
        return out, bandwidth_hz

    def summary(self) -> list[dict[str, Any]]:
        """What a model card says of the data; see `Shards.summary`."""
        return self.shards.summary()
