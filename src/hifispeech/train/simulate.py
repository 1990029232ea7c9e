"""Recording and low-rate simulation on STFT frames: microphones and noise floors first, then the lost band.

What differs between recordings above 8 kHz is mostly the microphone's tilt and the noise floor, and both must
be read from the low band. So every clip is heard through another (simulated) microphone and over another
floor, input and target alike; only then is the band above the cutoff removed from the input. A share of the
items goes through a real codec instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hifispeech.audio.degrade.codecs import available_codecs
from hifispeech.audio.degrade.filters import DegradeSpec, apply, magnitude_response, sample_degradation
from hifispeech.audio.excitation import noise_frames
from hifispeech.models.fast.model import power_of
from hifispeech.train.spectral import stft


@dataclass(frozen=True)
class SimulateConfig:
    """Probabilities and ranges; levels are log10 of power on the STFT grid (a 16-bit file has about -7)."""

    denoise: float = 0.5
    equalise: float = 0.7
    equalise_db: float = 8.0
    floor: float = 0.65
    floor_low: float = -9.0
    floor_high: float = -5.0
    floor_tilt_db: float = 9.0
    level_low_db: float = -42.0
    level_high_db: float = -18.0
    input_noise: float = 0.3
    switch: float = 0.08
    codec: float = 0.2
    cutoff_low: float = 0.94
    cutoff_high: float = 1.015


class Batch(NamedTuple):
    """Training frames. Shape: spectrum, target and noise `[batch, time, 2, bins]` (real, imaginary),
    cutoff_bin `[batch, time]`, bandwidth_bin `[batch]` (the target says nothing above it)."""

    spectrum: Tensor
    target: Tensor
    noise: Tensor
    cutoff_bin: Tensor
    bandwidth_bin: Tensor


def planes(spectrum: Tensor) -> Tensor:
    """Real and imaginary parts as planes. Shape: complex `[..., bins]` to `[..., 2, bins]`."""
    return torch.stack([spectrum.real, spectrum.imag], dim=-2)


def noise_table(frames: int, bins: int, n_fft: int, hop: int, seed: int) -> Tensor:
    """STFT frames of white noise with unit mean power per bin. Shape: complex `[frames, bins]`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n_fft + hop * (frames - 1), generator=generator)
    window = torch.hann_window(n_fft)
    spectrum = torch.fft.rfft(noise.unfold(0, n_fft, hop) * window) / window.square().sum().sqrt()
    return spectrum[:, :bins].contiguous()


class RowDraws:
    """Random numbers for some rows of a batch.

    They are drawn for the whole batch, and the own rows kept: a process that simulates only its share of a
    batch sees the numbers it would see as part of the whole.
    """

    def __init__(self, rng: np.random.Generator, total: int, rows: slice) -> None:
        self.rng, self.total, self.rows = rng, total, rows

    def uniform(self, low: float = 0.0, high: float = 1.0, *shape: int) -> np.ndarray:
        """Uniform in [low, high). Shape: `[rows, *shape]`."""
        return self.rng.uniform(low, high, (self.total, *shape))[self.rows]

    def normal(self, deviation: float, *shape: int) -> np.ndarray:
        """Gaussian around 0. Shape: `[rows, *shape]`."""
        return self.rng.normal(0, deviation, (self.total, *shape))[self.rows]

    def chance(self, probability: float, *shape: int) -> np.ndarray:
        """True with `probability`. Shape: `[rows, *shape]`."""
        return self.rng.random((self.total, *shape))[self.rows] < probability

    def integers(self, high: int) -> np.ndarray:
        """Integers from 0 to `high - 1`. Shape: `[rows]`."""
        return self.rng.integers(0, high, self.total)[self.rows]

    def signs(self, *shape: int) -> np.ndarray:
        """-1 or 1. Shape: `[rows, *shape]`."""
        return self.rng.choice([-1.0, 1.0], (self.total, *shape))[self.rows]


class Simulator:
    """Turns clean frames into training batches; all randomness comes from the generator that is passed in."""

    def __init__(
        self, config: SimulateConfig, n_fft: int = 2048, hop: int = 512, sample_rate: int = 48000
    ) -> None:
        self.config = config
        self.n_fft, self.hop, self.sample_rate = n_fft, hop, sample_rate
        self.bins = n_fft // 2 + 1
        self.frequencies_hz = np.arange(self.bins) * sample_rate / n_fft
        self.hz_per_bin = sample_rate / n_fft
        self.flat = torch.from_numpy(noise_frames())
        self.white = noise_table(8192, self.bins, n_fft, hop, seed=20501)

    def __call__(
        self,
        audio: np.ndarray,
        bandwidth_hz: np.ndarray,
        rng: np.random.Generator,
        *,
        total: int | None = None,
        first: int = 0,
    ) -> Batch:
        """Simulate items `first`, `first + 1`, ... of a batch of `total` items (default: these are all).

        Shape: audio `[batch, samples]` at 48 kHz, bandwidth_hz `[batch]` (where each recording itself ends).
        """
        draws = RowDraws(rng, total or len(audio), slice(first, first + len(audio)))
        audio = self.level(audio, draws)
        clean = stft(torch.from_numpy(audio), self.n_fft, self.hop)
        time = clean.shape[1]
        target = self.add_floor(self.equalise(self.denoise(clean, draws), draws), draws)
        response, cutoff_bin = self.low_pass(time, draws)
        spectrum = target * response
        quiet = np.where(draws.chance(self.config.input_noise), 10.0 ** draws.uniform(-9.5, -6.5), 0.0)
        spectrum = spectrum + self.noise(time, draws) * _column(quiet**0.5)
        for i, spec, error in self.codecs(draws):
            coded, _, edge_hz = apply(audio[i], self.sample_rate, spec, rate_out=self.sample_rate)
            edge_bin = round(min(edge_hz, 22000.0) * error / self.hz_per_bin)
            target[i], cutoff_bin[i] = clean[i], max(48.0, edge_bin)
            spectrum[i] = stft(torch.from_numpy(coded), self.n_fft, self.hop)
        noise = self.excitation(time, draws)
        top_bin = np.minimum(bandwidth_hz, 23900.0) / self.hz_per_bin
        bandwidth = torch.tensor(top_bin, dtype=torch.float32)
        return Batch(planes(spectrum), planes(target), noise, cutoff_bin, bandwidth)

    def codecs(self, draws: RowDraws) -> Iterator[tuple[int, DegradeSpec, float]]:
        """Own items that go through a codec (telephone, MP3, AAC, Opus), and the error of their edge."""
        own = range(draws.total)[draws.rows]
        for i in np.flatnonzero(draws.rng.random(draws.total) < self.config.codec):
            spec = sample_degradation(
                draws.rng, min_rate=8000, codecs=available_codecs(), codec_probability=1.0
            )
            error = draws.rng.uniform(self.config.cutoff_low, 1.0)
            if i in own:
                yield int(i) - own.start, spec, error

    def noise(self, time: int, draws: RowDraws) -> Tensor:
        """White noise frames from the table, with a random sign. Shape: complex `[batch, time, bins]`."""
        starts = draws.integers(len(self.white) - time)
        frames = torch.stack([self.white[s : s + time] for s in starts])
        return frames * torch.tensor(draws.signs(1, 1), dtype=torch.float32)

    def excitation(self, time: int, draws: RowDraws) -> Tensor:
        """Frames of the noise that the model shapes, from anywhere in its period. Shape: `[batch, time, 2,
        bins]`.
        """
        starts = torch.from_numpy(draws.integers(len(self.flat)))
        return self.flat[(starts[:, None] + torch.arange(time)) % len(self.flat)]

    def level(self, audio: np.ndarray, draws: RowDraws) -> np.ndarray:
        """Scale every item to a random RMS level. Shape: `[batch, samples]` kept."""
        rms = np.sqrt(np.mean(audio.astype(np.float64) ** 2, axis=1, keepdims=True)).clip(1e-6)
        wanted_db = draws.uniform(self.config.level_low_db, self.config.level_high_db, 1)
        return (audio * (10.0 ** (wanted_db / 20) / rms)).astype(np.float32)

    def denoise(self, x: Tensor, draws: RowDraws) -> Tensor:
        """Spectral subtraction of the item's own floor (mean of its quietest frames) on a share of items."""
        chosen = draws.chance(self.config.denoise)
        strength = _column(np.where(chosen, draws.uniform(1.5, 4.0), 0.0))
        power = power_of(planes(x))
        energy = power[..., 8:].sum(-1)
        quiet = energy.topk(min(x.shape[1], max(4, x.shape[1] // 10)), dim=1, largest=False).indices
        floor = torch.gather(power, 1, quiet[..., None].expand(-1, -1, x.shape[2])).mean(1, keepdim=True)
        floor = F.avg_pool1d(floor, 9, 1, 4, count_include_pad=False)
        smooth = (power[:, :, :-2] + power[:, :, 1:-1] + power[:, :, 2:]) / 3.0
        smooth = F.pad(smooth, (1, 1), mode="replicate")
        gain = (1.0 - strength * floor / smooth.clamp(min=1e-20)).clamp(min=1e-4)
        return x * gain.sqrt()

    def equalise(self, x: Tensor, draws: RowDraws) -> Tensor:
        """Random smooth microphone response: a few cosines over log frequency and a tilt above 2 kHz."""
        c = self.config
        octave = np.log2(np.maximum(self.frequencies_hz, 60.0) / 60.0) / np.log2(24000.0 / 60.0)
        order = np.arange(1, 7)[:, None]
        basis = np.cos(np.pi * order * octave) / order**0.7
        gain_db = draws.normal(c.equalise_db * 0.6, len(order)) @ basis
        tilt = np.maximum(np.log2(np.maximum(self.frequencies_hz, 1.0) / 2000.0), 0.0)
        gain_db = gain_db + draws.normal(c.equalise_db * 0.35, 1) * tilt
        gain_db = gain_db * draws.chance(c.equalise, 1)
        return x * torch.tensor(10.0 ** (gain_db / 20), dtype=torch.float32)[:, None, :]

    def add_floor(self, x: Tensor, draws: RowDraws) -> Tensor:
        """A steady noise floor, white or tilted, on a share of items: part of the target too."""
        c = self.config
        level = draws.uniform(c.floor_low, c.floor_high, 1)
        tilt_db = draws.normal(c.floor_tilt_db / 3, 1) * draws.chance(0.5, 1)
        octaves = np.log2(np.maximum(self.frequencies_hz, 100.0) / 4000.0)
        amplitude = 10.0 ** (level / 2 + tilt_db * octaves / 20) * draws.chance(c.floor, 1)
        noise = self.noise(x.shape[1], draws)
        return x + noise * torch.tensor(amplitude, dtype=torch.float32)[:, None, :]

    def low_pass(self, time: int, draws: RowDraws) -> tuple[Tensor, Tensor]:
        """Magnitude responses of random low-pass filters and the edge told to the model (with an error).

        Shape: response `[batch, time, bins]`, cutoff_bin `[batch, time]`. Some items switch filters part-way.
        """
        own = range(draws.total)[draws.rows]
        response = np.empty((len(own), time, self.bins), np.float32)
        cutoff = np.empty((len(own), time))
        for i in range(draws.total):
            cuts = [0, time]
            if draws.rng.random() < self.config.switch:
                cuts = [0, int(draws.rng.integers(time // 4, 3 * time // 4)), time]
            for start, stop in pairwise(cuts):
                spec = sample_degradation(draws.rng, min_rate=3600)
                error = draws.rng.uniform(self.config.cutoff_low, self.config.cutoff_high)
                if i not in own:
                    continue
                gain = magnitude_response(spec, self.frequencies_hz)
                below = np.flatnonzero(gain < 10 ** (-1.5 / 20))
                edge = float(below[below > 3][0]) if np.any(below > 3) else self.bins - 1.0
                response[i - own.start, start:stop] = gain
                cutoff[i - own.start, start:stop] = edge * error
        told = torch.tensor(cutoff, dtype=torch.float32).round()
        return torch.from_numpy(response), told.clamp(min=48.0, max=self.bins - 24.0)


def _column(values: np.ndarray) -> Tensor:
    """One value per item, to be broadcast over frames and bins. Shape: `[batch]` to `[batch, 1, 1]`."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
