"""What the trainer needs to know of the fast model: its batches, its loss and its validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hifispeech.audio.crossover import high_gain
from hifispeech.audio.excitation import noise_frames
from hifispeech.datasets.shards import Shards
from hifispeech.models.fast.model import FastModel, power_of
from hifispeech.train.config import FastTrainConfig
from hifispeech.train.losses.frames import Shared, alone, frame_losses, generated_mask
from hifispeech.train.simulate import Batch, Simulator, planes
from hifispeech.train.spectral import istft, stft
from hifispeech.train.task import Parts, Updates, Validation
from hifispeech.train.validate import Scores

VALIDATION_CUTOFFS_HZ = (4000.0, 8000.0, 12000.0)
VALIDATION_SECONDS = 8


@dataclass(frozen=True)
class Held:
    """One validation clip as a complex spectrum `[1, time, bins]`; nothing counts above `top` (bin)."""

    target: Tensor
    top: int
    samples: int


class FastTask:
    """Batches are pure functions of `(seed, index, item)`; see `Shards.draw`."""

    def __init__(self, config: FastTrainConfig, train: Shards, valid: Shards | None) -> None:
        self.config = config
        self.train, self.valid = train, valid
        self.simulator = Simulator(config.simulate, config.model.n_fft, config.model.hop)
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"model": FastModel(config.model)}

    def optimiser(self, name: str) -> torch.optim.Optimizer:
        c = self.config.optimiser
        return torch.optim.AdamW(
            self.networks[name].parameters(), lr=c.learning_rate, betas=c.betas, weight_decay=c.weight_decay
        )

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of one process of `world`: together they are the batch of a single process."""
        c = self.config
        own = c.batch_size // world
        samples = (c.segment_frames - 1) * c.model.hop
        first = index * c.batch_size
        drawn = [self.train.draw(c.seed, first + rank * own + i, samples) for i in range(own)]
        audio = np.stack([audio for audio, _ in drawn])
        rng = np.random.default_rng((c.seed, 7, first))
        bandwidths_hz = np.array([bandwidth for _, bandwidth in drawn])
        return self.simulator(audio, bandwidths_hz, rng, total=c.batch_size, first=rank * own)

    def train_step(self, updates: Updates, batches: Sequence[Batch]) -> Parts:
        return updates.update("model", lambda model, batch: self.loss(model, batch, updates.shared), batches)

    def loss(self, model: nn.Module, batch: Batch, shared: Shared = alone) -> tuple[Tensor, Parts]:
        """Loss of a batch; its last frames are the model's look-ahead."""
        late = self.config.model.look_ahead
        core = self.networks["model"]
        assert isinstance(core, FastModel)
        state = [s.to(batch.spectrum.device) for s in core.initial_state(len(batch.spectrum))]
        part = slice(None, -late or None)
        noise, target, cutoff = batch.noise[:, part], batch.target[:, part], batch.cutoff_bin[:, part]
        generated = model(batch.spectrum, noise, batch.cutoff_bin, *state)[0].float()
        mask = generated_mask(cutoff, batch.bandwidth_bin, target.shape[-1])
        return frame_losses(generated, target, mask, self.config.loss, shared)

    @torch.no_grad()
    def validate(self, model: nn.Module, clips_per_speaker: int = 3) -> Validation | None:
        """LSD (P1) on held-out speakers with brick-wall input, mean over speakers, per cutoff.

        `lsd_high*`, by which the best checkpoint is chosen, counts what was generated and no bin above the
        recording's own band; `p1_*` is the published measure on waveforms with its split.
        """
        if self.valid is None:
            return None
        c = self.config.model
        device = next(model.parameters()).device
        noise = torch.from_numpy(noise_frames()).to(device)
        scores = Scores()
        for speaker in self.valid.speakers:
            for number, i in enumerate(self.valid.by_speaker[speaker][:clips_per_speaker]):
                clip = self.valid.clips[i]
                audio = self.valid.read(clip)[: VALIDATION_SECONDS * c.sample_rate]
                target = stft(torch.from_numpy(audio), c.n_fft, c.hop)[None].to(device)
                top = int(min(clip.usable_hz, 23900.0) / (c.sample_rate / c.n_fft))
                held = Held(target, top, len(audio))
                for cutoff_hz in VALIDATION_CUTOFFS_HZ:
                    value, upscaled = self.score(model, held, cutoff_hz, noise)
                    scores.add(f"lsd_high_{cutoff_hz / 1000:g}k", value)
                    scores.add_p1(audio, upscaled, cutoff_hz)
                    if number == 0:
                        scores.keep(f"{speaker}/{cutoff_hz / 1000:g}k", audio, upscaled)
        score = float(np.mean([scores.mean(f"lsd_high_{f / 1000:g}k") for f in VALIDATION_CUTOFFS_HZ]))
        return scores.validation("lsd_high", score)

    def score(
        self, model: nn.Module, held: Held, cutoff_hz: float, noise: Tensor
    ) -> tuple[float, np.ndarray]:
        """LSD between cutoff and bandwidth of one clip (NaN where there is no such band), and the output."""
        assert isinstance(model, FastModel)
        c, target = self.config.model, held.target
        edge = round(cutoff_hz / (c.sample_rate / c.n_fft))
        kept = target.clone()
        kept[..., edge:] = 0
        ahead = torch.zeros(1, c.look_ahead, 2, c.bins, device=target.device)
        spectrum = torch.cat([planes(kept), ahead], 1)
        cutoff = torch.full(spectrum.shape[:2], float(edge), device=target.device)
        state = [s.to(target.device) for s in model.initial_state(1)]
        late = model(spectrum, noise[None, : target.shape[1]], cutoff, *state)[0]
        gain = torch.from_numpy(high_gain(edge, c.bins).copy()).to(target.device)
        whole = kept + gain * (torch.complex(late[:, :, 0], late[:, :, 1]) - kept)
        upscaled = istft(whole, held.samples, c.n_fft, c.hop)[0].cpu().numpy()
        if held.top <= edge:
            return float("nan"), upscaled
        estimate = power_of(late)[..., edge : held.top].clamp(min=1e-8)
        truth = target.abs().square()[..., edge : held.top].clamp(min=1e-8)
        return float((estimate / truth).log10().square().mean(-1).sqrt().mean()), upscaled

    def card(self) -> dict[str, Any]:
        return {"data": self.train.summary()}
