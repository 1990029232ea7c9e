"""Other microphones, rooms, floors, pauses and lost bands, simulated on band powers.

Input and target are heard through the same simulated microphone and over the same floor, so that the network
must read both from the low band. Only then is the input narrowed; telephone filters and coding noise are
heard in the input alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hifispeech.audio.bands import BANDS, CENTRES_HZ, LOG_SILENCE, WIDTHS, first_band
from hifispeech.audio.spectral import N_FFT

SAMPLE_RATE = 48000
TABLE_FRAMES = 4096


@dataclass(frozen=True, kw_only=True)
class PowerSimulationConfig:
    """Probabilities and ranges; levels are log10 of power on the STFT grid (a 16-bit file has about -7)."""

    level_low: float = -3.0
    level_high: float = 0.7
    denoise: float = 0.35
    equalise: float = 0.7
    equalise_db: float = 3.0
    tilt_db: float = 1.5
    floor: float = 0.65
    floor_low: float = -8.5
    floor_high: float = -3.5
    pause: float = 0.2
    digital_pause: float = 0.3
    soft_talker: float = 0.12
    soft_talker_db: tuple[float, float] = (12.0, 38.0)
    input_noise: float = 0.25
    coding_noise: float = 0.25
    telephone: float = 0.2
    cutoff_low_hz: float = 1500.0
    cutoff_high_hz: float = 16500.0
    switch: float = 0.06


class PowerBatch(NamedTuple):
    """Shape: seen and target (log10 powers) `[batch, time, BANDS]`, first_band `[batch, time]` (the first
    unknown band), usable_hz `[batch]` (the target says nothing above)."""

    seen: Tensor
    target: Tensor
    first_band: Tensor
    usable_hz: Tensor


class PowerSimulator:
    """Turns recorded band powers into training batches; all randomness comes from the generator passed in."""

    def __init__(self, config: PowerSimulationConfig) -> None:
        self.config = config
        centres = np.maximum(CENTRES_HZ, 60.0)
        octave = np.log2(centres / 60.0) / np.log2(400.0)
        order = np.arange(1, 7)[:, None]
        self.curves = np.cos(np.pi * order * octave) / order**0.7
        self.treble = np.maximum(np.log2(centres / 2000.0), 0.0)
        self.octaves = np.log2(np.maximum(CENTRES_HZ, 100.0) / 4000.0)
        # White noise in bands: a mean over half as many independent bins as there are (Hann window).
        shape = np.maximum(WIDTHS / 1.6, 1.0)
        scatter = np.random.default_rng(20501).gamma(shape, 1 / shape, (TABLE_FRAMES, BANDS))
        self.scatter = torch.from_numpy(scatter.astype(np.float32))

    def __call__(self, logs: np.ndarray, usable_hz: np.ndarray, rng: np.random.Generator) -> PowerBatch:
        """Shape: logs `[batch, time, BANDS]`, usable_hz `[batch]`."""
        c, (count, time, _) = self.config, logs.shape
        power = torch.pow(10.0, torch.from_numpy(logs))
        wanted = _column(10 ** rng.uniform(c.level_low, c.level_high, count))
        power = self.denoise(self.levelled(power) * wanted, rng)
        power = power * torch.tensor(10 ** (self.equaliser_db(count, rng) / 10), dtype=torch.float32)[:, None]
        usable = torch.tensor(usable_hz, dtype=torch.float32)
        power, usable = self.soft_talkers(power, usable, rng)
        power, dead = self.pauses(power, rng)
        power = power + self.floor(count, time, rng) * wanted * (1 - dead)
        seen = self.input_only(power, wanted, rng)
        target, seen = (torch.log10(p.clamp(min=10.0**LOG_SILENCE)) for p in (power, seen))
        return PowerBatch(seen, target, self.cutoffs(count, time, rng), usable)

    @staticmethod
    def levelled(power: Tensor) -> Tensor:
        """Every item at a mean power of one below 7 kHz."""
        return power / power[:, :, 3:60].mean((1, 2), keepdim=True).clamp(min=1e-9)

    def denoise(self, power: Tensor, rng: np.random.Generator) -> Tensor:
        """Take the recording's own floor (its quietest twelfth) away from some items."""
        count, time, _ = power.shape
        strength = (rng.random(count) < self.config.denoise) * rng.uniform(1.0, 2.5, count)
        quiet = power[:, :, 3:].sum(-1).topk(max(4, time // 12), dim=1, largest=False).indices
        floor = torch.gather(power, 1, quiet[..., None].expand(-1, -1, BANDS)).mean(1, keepdim=True)
        return torch.maximum(power - _column(strength) * floor, power * 1e-4)

    def equaliser_db(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Smooth random responses, and a tilt above 2 kHz. Shape: `[count, BANDS]`."""
        c = self.config
        gains = rng.normal(0, c.equalise_db, (count, 6)) @ self.curves
        gains += rng.normal(0, c.tilt_db, (count, 1)) * self.treble
        return gains * (rng.random((count, 1)) < c.equalise)

    def soft_talkers(self, power: Tensor, usable: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A stretch of some items is another talker (the next item), softer."""
        c, (count, time, _) = self.config, power.shape
        low, high = c.soft_talker_db
        out, out_usable = power.clone(), usable.clone()
        for i in np.flatnonzero(rng.random(count) < c.soft_talker):
            first, end = self.stretch(time, rng)
            other = (i + 1) % count
            gain = 10 ** (-rng.uniform(low, high) / 10)
            scale = float(power[i].mean() / power[other].mean().clamp(min=1e-12)) * gain
            out[i, first:end] = power[other, first:end] * scale
            out_usable[i] = torch.minimum(usable[i], usable[other])
        return out, out_usable

    def pauses(self, power: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A long pause in some items; in some of these it is digital silence, without any floor.

        Shape: power kept, and 1 where nothing must be added `[batch, time, 1]`.
        """
        c, (count, time, _) = self.config, power.shape
        out, dead = power.clone(), torch.zeros(count, time, 1)
        for i in np.flatnonzero(rng.random(count) < c.pause):
            first, end = self.stretch(time, rng)
            out[i, first:end] = 0.0
            dead[i, first:end] = float(rng.random() < c.digital_pause)
        return out, dead

    @staticmethod
    def stretch(time: int, rng: np.random.Generator) -> tuple[int, int]:
        """A tenth to three quarters of the time, anywhere."""
        length = int(time * rng.uniform(0.1, 0.75))
        first = int(rng.integers(time - length + 1))
        return first, first + length

    def floor(self, count: int, time: int, rng: np.random.Generator) -> Tensor:
        """Coloured noise. Shape: `[count, time, BANDS]`, relative to the speech's mean power."""
        c = self.config
        slope = rng.normal(0, 0.25, (count, 1)) * (rng.random((count, 1)) < 0.6)
        slope = slope - 0.15 * (rng.random((count, 1)) < 0.3)
        # The noise of converters rises at the top.
        shelf = np.abs(rng.normal(0, 0.8, (count, 1))) * (rng.random((count, 1)) < 0.35)
        shelf = shelf * np.clip((CENTRES_HZ - rng.uniform(8000, 16000, (count, 1))) / 6000, 0, 1)
        level = 10 ** (rng.uniform(c.floor_low, c.floor_high, (count, 1)) + slope * self.octaves + shelf)
        level = level * (rng.random((count, 1)) < c.floor)
        return torch.tensor(level, dtype=torch.float32)[:, None] * self.noise(count, time, rng)

    def noise(self, count: int, time: int, rng: np.random.Generator) -> Tensor:
        """Band powers of white noise around 1. Shape: `[count, time, BANDS]`."""
        starts = rng.integers(0, TABLE_FRAMES - time, count)
        return torch.stack([self.scatter[s : s + time] for s in starts])

    def input_only(self, power: Tensor, wanted: Tensor, rng: np.random.Generator) -> Tensor:
        """Background noise, noise of a coder that follows the signal, telephone high-pass."""
        c, (count, time, _) = self.config, power.shape
        background = (rng.random(count) < c.input_noise) * 10 ** rng.uniform(-7.0, -3.5, count)
        coding = (rng.random(count) < c.coding_noise) * 10 ** rng.uniform(-4.3, -2.8, count)
        widths = torch.tensor(WIDTHS[:44], dtype=torch.float32)
        frame = (power[:, :, :44] * widths).sum(-1, keepdim=True) / widths.sum()
        noise = self.noise(count, time, rng)
        seen = power + noise * (_column(background) * wanted + _column(coding) * frame)
        corner = rng.uniform(150.0, 350.0, (count, 1))
        order = rng.uniform(4.0, 10.0, (count, 1)) * (rng.random((count, 1)) < c.telephone)
        response = 1 / (1 + (corner / np.maximum(CENTRES_HZ, 20.0)) ** order)
        response = np.where(order > 0, response, 1.0)
        return seen * torch.tensor(response, dtype=torch.float32)[:, None]

    def cutoffs(self, count: int, time: int, rng: np.random.Generator) -> Tensor:
        """First unknown band of each frame: uniform in octaves, in some items another from some time on."""
        c = self.config
        low, high = np.log(c.cutoff_low_hz), np.log(c.cutoff_high_hz)
        hertz = np.exp(rng.uniform(low, high, (count, 2)))
        bands = first_band(hertz * N_FFT / SAMPLE_RATE)
        change = np.where(rng.random(count) < c.switch, rng.integers(0, time, count), time)
        later = np.arange(time) >= change[:, None]
        return torch.from_numpy(np.where(later, bands[:, 1:], bands[:, :1]).astype(np.float32))


def _column(values: np.ndarray) -> Tensor:
    """Shape: `[batch]` to `[batch, 1, 1]`."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
