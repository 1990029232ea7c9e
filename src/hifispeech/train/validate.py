"""Collecting validation scores: LSD by protocol P1 with its low and high band, and clips to listen to."""

import math

import numpy as np

from hifispeech.evaluate.metrics import lsd
from hifispeech.train.task import Validation

CLIPS_KEPT = 6


class Scores:
    """Means of values by name; those that are not numbers (nothing to measure) are left out."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.clips: dict[str, np.ndarray] = {}

    def add(self, name: str, value: float) -> None:
        """One more value of `name`."""
        if not math.isnan(value):
            self.values.setdefault(name, []).append(value)

    def add_p1(self, reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> None:
        """P1 of a clip upscaled from `cutoff_hz`; silence is left out. Shape: `[time]` both."""
        if not reference.any():
            return
        result = lsd(reference, estimate, "p1", round(2 * cutoff_hz))
        assert result.low is not None and result.high is not None
        name = f"p1_{2 * cutoff_hz / 1000:g}k"
        self.add(name, result.lsd)
        self.add(f"{name}_low", result.low)
        self.add(f"{name}_high", result.high)

    def keep(self, name: str, reference: np.ndarray, estimate: np.ndarray) -> None:
        """Keep a clip and its reference for TensorBoard, the first few."""
        if len(self.clips) < 2 * CLIPS_KEPT:
            self.clips |= {f"{name}/output": estimate, f"{name}/reference": reference}

    def mean(self, name: str) -> float:
        """Mean of a name's values, NaN without any."""
        values = self.values.get(name)
        return float(np.mean(values)) if values else math.nan

    def validation(self, name: str, score: float) -> Validation:
        """All means, with the deciding `score` under `name`."""
        means = {key: self.mean(key) for key in self.values}
        return Validation({**means, name: score}, score, self.clips)
