"""Reading prepared training data: one memory-mapped 16-bit file and a JSON list of the clips in it.

Every draw is a pure function of `(seed, index)`: a resumed or distributed run sees the clips it should.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

AUDIO_FILE = "audio.i16"
CLIPS_FILE = "clips.json"
SAMPLE_RATE = 48000


@dataclass(frozen=True)
class Clip:
    """One recording inside the shard: offset and length in samples at 48 kHz, bandwidth in hertz."""

    offset: int
    length: int
    split: str
    source: str
    speaker: str
    licence: str
    bandwidth_hz: float
    lossless: bool

    @property
    def usable_hz(self) -> float:
        """Up to where the recording may serve as a target: its edge less the slope of its filter.

        From 23 kHz on it is whole. Otherwise 19.3 kHz at most, as converters and encoders of 44.1 kHz sound
        cut at 20 kHz; 15.4 kHz where it is lossy: encoders drop the band above 16 kHz from frame to frame.
        """
        if self.lossless and self.bandwidth_hz >= 23000.0:
            return SAMPLE_RATE / 2
        return min(0.95 * self.bandwidth_hz, 19300.0 if self.lossless else 15400.0)


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a prepared data set.

    Raises:
        ValueError: if the folder holds no list of clips, or a damaged one.
    """
    try:
        return [Clip(**row) for row in json.loads((folder / CLIPS_FILE).read_text(encoding="utf-8"))]
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no {CLIPS_FILE}; make one with `hifispeech prepare`") from error
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / CLIPS_FILE} is damaged ({error}); prepare the data again") from error


class Shards:
    """A prepared data set on disk (see `datasets.prepare`), read-only and shared between processes.

    Args:
        split: "train" or "valid", or another name in the data set.
        min_bandwidth_hz: clips whose band ends below are left out.

    Raises:
        ValueError: if the folder holds no prepared data set, no such clip, or less audio than its list says.
    """

    def __init__(self, folder: Path | str, split: str, min_bandwidth_hz: float = 0.0) -> None:
        folder = Path(folder)
        rows = read_clips(folder)
        self.clips = [clip for clip in rows if clip.split == split and clip.bandwidth_hz >= min_bandwidth_hz]
        if not self.clips:
            splits = ", ".join(sorted({clip.split for clip in rows})) or "none"
            limit = f" with bandwidth_hz >= {min_bandwidth_hz:g}" if min_bandwidth_hz else ""
            raise ValueError(f"{folder} has no clip in split={split!r}{limit}; its splits: {splits}")
        self.audio = np.memmap(folder / AUDIO_FILE, dtype="<i2", mode="r")
        if max(clip.offset + clip.length for clip in self.clips) > len(self.audio):
            raise ValueError(f"{folder / AUDIO_FILE} is shorter than {CLIPS_FILE} says; prepare it again")
        self.by_speaker: dict[str, list[int]] = {}
        for i, clip in enumerate(self.clips):
            self.by_speaker.setdefault(clip.speaker, []).append(i)
        self.speakers = sorted(self.by_speaker)
        samples = [sum(self.clips[i].length for i in self.by_speaker[s]) for s in self.speakers]
        minutes = np.array(samples, float)
        self.weights = np.sqrt(minutes) / np.sqrt(minutes).sum()

    def summary(self) -> list[dict[str, Any]]:
        """What a model card says of the data: per source its licence, number of speakers and hours."""
        sources: dict[tuple[str, str], list[Clip]] = {}
        for clip in self.clips:
            sources.setdefault((clip.source, clip.licence), []).append(clip)
        return [
            {
                "source": source,
                "licence": licence,
                "speakers": len({clip.speaker for clip in clips}),
                "hours": round(sum(clip.length for clip in clips) / SAMPLE_RATE / 3600, 4),
            }
            for (source, licence), clips in sorted(sources.items())
        ]

    def read(self, clip: Clip) -> np.ndarray:
        """The samples of one clip, float32 `[time]`, nominal +-1."""
        return self.audio[clip.offset : clip.offset + clip.length].astype(np.float32) / 32768.0

    def draw(self, seed: int, index: int, samples: int) -> tuple[np.ndarray, float]:
        """A random segment of `samples` samples of one speaker, and the lowest bandwidth (hertz) in it.

        Speakers are drawn by the square root of their duration. Short clips of the same speaker are joined:
        they share microphone and room, which is what long context has to learn.
        """
        rng = np.random.default_rng((seed, index))
        own = self.by_speaker[self.speakers[rng.choice(len(self.speakers), p=self.weights)]]
        parts: list[np.ndarray] = []
        bandwidth_hz, missing = float(SAMPLE_RATE), samples
        while missing > 0:
            clip = self.clips[own[rng.integers(len(own))]]
            length = min(clip.length, missing)
            start = clip.offset + int(rng.integers(clip.length - length + 1))
            parts.append(self.audio[start : start + length].astype(np.float32) / 32768.0)
            bandwidth_hz = min(bandwidth_hz, clip.usable_hz)
            missing -= length
        return np.concatenate(parts), bandwidth_hz
