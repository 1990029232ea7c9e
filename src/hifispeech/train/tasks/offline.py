"""How the offline model learns: regression of band powers, then discriminators on their maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hifispeech.audio.bands import first_band
from hifispeech.audio.spectral import N_FFT
from hifispeech.datasets.band_powers import BandPowers
from hifispeech.models.offline.network import OfflineNetwork, whole
from hifispeech.train.config import OfflineAdversarialConfig, OfflineTrainConfig
from hifispeech.train.losses.adversarial import frozen
from hifispeech.train.losses.maps import (
    DiscriminatorOutput,
    MapDiscriminators,
    absolute,
    adversarial_loss,
    audible,
    discriminator_loss,
    distance,
    feature_loss,
    floor_of,
    generated_mask,
    pooled,
    view,
)
from hifispeech.train.simulate_powers import PowerBatch, PowerSimulator
from hifispeech.train.task import Parts, Updates, Validation
from hifispeech.train.validate import Scores

ADVERSARY = "discriminators"
SAMPLE_RATE = 48000
VALIDATION_CUTOFFS_HZ = (1900.0, 3700.0, 7400.0, 11000.0)
VALIDATION_FRAMES = 940


class OfflineTask:
    """Stage (a): regression. Batches are pure functions of `(seed, index, item)`; see `BandPowers.draw`."""

    def __init__(self, config: OfflineTrainConfig, train: BandPowers, valid: BandPowers | None) -> None:
        self.config = config
        self.train, self.valid = train, valid
        self.simulator = PowerSimulator(config.simulate)
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"model": OfflineNetwork(config.model)}

    def optimiser(self, name: str) -> torch.optim.Optimizer:
        c = self.config.optimiser
        return torch.optim.AdamW(
            self.networks[name].parameters(), lr=c.learning_rate, betas=c.betas, weight_decay=c.weight_decay
        )

    def batch(self, index: int, rank: int = 0, world: int = 1) -> PowerBatch:
        """The items of one process of `world`."""
        c = self.config
        own = c.batch_size // world
        first = index * c.batch_size + rank * own
        drawn = [self.train.draw(c.seed, first + i, c.segment_frames) for i in range(own)]
        logs, usable = np.stack([powers for powers, _ in drawn]), np.array([hertz for _, hertz in drawn])
        return self.simulator(logs, usable, np.random.default_rng((c.seed, 7, first)))

    def train_step(self, updates: Updates, batches: Sequence[PowerBatch]) -> Parts:
        return updates.update("model", self.loss, batches)

    def loss(self, model: nn.Module, batch: PowerBatch) -> tuple[Tensor, Parts]:
        """Regression; the noise input is silent."""
        noise = torch.zeros(*batch.seen.shape[:2], self.config.model.noise, device=batch.seen.device)
        speech, floor, _ = model(batch.seen, batch.first_band, noise)
        mask = generated_mask(batch.first_band, batch.usable_hz)
        return self.regression(whole(speech, floor), floor, batch.target, mask)

    def regression(
        self, estimate: Tensor, floor: Tensor, target: Tensor, mask: Tensor
    ) -> tuple[Tensor, Parts]:
        """The distances, and the distance of the floors."""
        c = self.config.loss
        wanted = audible(floor_of(target, mask, c.floor_fraction))
        weight = mask.amax(1, keepdim=True).expand_as(floor)
        floor_error = ((audible(floor) - wanted).abs() * weight).sum() / weight.sum().clamp(min=1.0)
        parts = {"distance": distance(estimate, target, mask), "floor": floor_error}
        total = c.distance * parts["distance"] + c.floor * floor_error
        if c.absolute:
            parts["absolute"] = absolute(estimate, target, mask)
            total = total + c.absolute * parts["absolute"]
        if c.pooled:
            parts["pooled"] = pooled(estimate, target, mask, c.pool_frames, c.pool_bands)
            total = total + c.pooled * parts["pooled"]
        return total, parts

    @torch.no_grad()
    def validate(self, model: nn.Module, clips_per_speaker: int = 3) -> Validation | None:
        """On held-out speakers, per cutoff: distance of the generated band, bias, contrast (its standard
        deviation over time and frequency against the truth's), error of the floor.
        """
        if self.valid is None:
            return None
        scores = Scores()
        shards = self.valid.shards
        generator = torch.Generator().manual_seed(1)
        for speaker in shards.speakers:
            for i in shards.by_speaker[speaker][:clips_per_speaker]:
                start = self.valid.starts[i]
                count = min(VALIDATION_FRAMES, 1 + shards.clips[i].length // 512) // 2 * 2
                logs = torch.from_numpy(self.valid.powers[start : start + count].astype(np.float32))[None]
                usable = torch.tensor([shards.clips[i].usable_hz])
                for hertz in VALIDATION_CUTOFFS_HZ:
                    self.score(model, logs, usable, hertz, generator, scores)
        names = [f"distance_{hertz / 1000:g}k" for hertz in VALIDATION_CUTOFFS_HZ]
        return scores.validation("distance", float(np.mean([scores.mean(name) for name in names])))

    def score(
        self,
        model: nn.Module,
        logs: Tensor,
        usable: Tensor,
        cutoff_hz: float,
        generator: torch.Generator,
        scores: Scores,
    ) -> None:
        """Add the scores of one recording. Shape: logs `[1, time, BANDS]`, usable `[1]` hertz."""
        edge = float(first_band(np.array(cutoff_hz * N_FFT / SAMPLE_RATE)))
        first = torch.full(logs.shape[:2], edge)
        noise = torch.randn(*logs.shape[:2], self.config.model.noise, generator=generator)
        mask = generated_mask(first, usable)
        if mask.sum() == 0:
            return
        device = next(model.parameters()).device
        speech, floor, level = (x.cpu() for x in model(logs.to(device), first.to(device), noise.to(device)))
        estimate = whole(speech, floor)
        name = f"{cutoff_hz / 1000:g}k"
        scores.add(f"distance_{name}", float(distance(estimate, logs, mask)))
        error = (audible(estimate) - audible(logs))[mask > 0]
        scores.add(f"bias_{name}", float(error.mean()))
        loud = (logs[..., 3:36].amax(-1, keepdim=True) > level - 1.0) & (mask > 0)
        if loud.any():
            scores.add(f"bias_speech_{name}", float((audible(estimate) - audible(logs))[loud].mean()))
        scores.add(f"contrast_{name}", _contrast(estimate, mask) / max(_contrast(logs, mask), 1e-3))
        wanted = audible(floor_of(logs, mask, self.config.loss.floor_fraction))
        top = mask.amax(1, keepdim=True).expand_as(floor) > 0
        scores.add(f"floor_{name}", float((audible(floor) - wanted).abs()[top].mean()))

    def card(self) -> dict[str, Any]:
        return {"data": self.train.summary()}


def _contrast(logs: Tensor, mask: Tensor) -> float:
    """Standard deviation of differences between neighbouring cells in time and in frequency."""
    logs = audible(logs)
    deviations = []
    for axis in (1, 2):
        both = mask.narrow(axis, 1, mask.shape[axis] - 1) * mask.narrow(axis, 0, mask.shape[axis] - 1)
        step = logs.diff(dim=axis)
        deviations.append(float((step.square() * both).sum() / both.sum().clamp(min=1)) ** 0.5)
    return float(np.mean(deviations))


@dataclass(frozen=True)
class GeneratedBatch:
    """A batch with what the generator made of it; shapes as in `OfflineNetwork.forward`."""

    batch: PowerBatch
    speech: Tensor
    floor: Tensor
    level: Tensor
    mask: Tensor

    def real_view(self) -> Tensor:
        """The truth as the discriminators see it."""
        b = self.batch
        return view(b.target, b.target, self.level, b.first_band, self.mask)

    def fake_view(self) -> Tensor:
        """The generated envelope as they see it. Its floor is regressed: an adversary would lose it."""
        b = self.batch
        return view(whole(self.speech, self.floor.detach()), b.target, self.level, b.first_band, self.mask)


class OfflineAdversarialTask(OfflineTask):
    """Stage (b): least-squares discriminators on maps; the floor stays with the regression."""

    def __init__(self, config: OfflineAdversarialConfig, train: BandPowers, valid: BandPowers | None) -> None:
        super().__init__(config, train, valid)
        self.adversarial_config = config
        self.networks[ADVERSARY] = MapDiscriminators(config.discriminators)

    def optimiser(self, name: str) -> torch.optim.Optimizer:
        optimiser = super().optimiser(name)
        if name == ADVERSARY:
            for group in optimiser.param_groups:
                group["lr"] *= self.adversarial_config.discriminator_rate
        return optimiser

    def train_step(self, updates: Updates, batches: Sequence[PowerBatch]) -> Parts:
        """Discriminators first, then the generator against the updated ones."""
        waits = updates.step < updates.frozen_until
        with torch.set_grad_enabled(not waits):
            items = [self.generate(updates, batch) for batch in batches]
        real: list[list[DiscriminatorOutput]] = []
        parts = updates.update(ADVERSARY, lambda module, item: self.discriminate(module, item, real), items)
        parts["discriminator/loss"] = parts.pop("loss")
        if waits:
            return parts
        adversary = self.networks[ADVERSARY]
        pairs = list(zip(items, real, strict=True))
        with frozen(adversary):
            return parts | updates.update(
                "model", lambda _, pair: self.generator_loss(adversary, *pair), pairs
            )

    def generate(self, updates: Updates, batch: PowerBatch) -> GeneratedBatch:
        noise = torch.randn(*batch.seen.shape[:2], self.config.model.noise, device=batch.seen.device)
        with updates.autocast():
            speech, floor, level = updates.module("model")(batch.seen, batch.first_band, noise)
        return GeneratedBatch(
            batch, speech, floor, level.detach(), generated_mask(batch.first_band, batch.usable_hz)
        )

    @staticmethod
    def discriminate(
        module: nn.Module, item: GeneratedBatch, kept: list[list[DiscriminatorOutput]]
    ) -> tuple[Tensor, Parts]:
        """The discriminators' loss; what they make of the truth is kept for the generator's step."""
        # In float32: oneDNN's convolutions on so few channels are slower in bf16.
        with torch.autocast(item.speech.device.type, enabled=False):
            real, fake = module(item.real_view()), module(item.fake_view().detach())
        kept.append([DiscriminatorOutput(x.score.detach(), [f.detach() for f in x.features]) for x in real])
        return discriminator_loss(real, fake), {}

    def generator_loss(
        self, adversary: nn.Module, item: GeneratedBatch, real: list[DiscriminatorOutput]
    ) -> tuple[Tensor, Parts]:
        """Regression, adversarial and feature losses."""
        c, batch = self.config.loss, item.batch
        envelope = whole(item.speech, item.floor)
        total, parts = self.regression(envelope, item.floor, batch.target, item.mask)
        with torch.autocast(item.speech.device.type, enabled=False):
            fake = adversary(item.fake_view())
        parts["adversarial"], parts["feature"] = adversarial_loss(fake), feature_loss(real, fake)
        return total + c.adversarial * parts["adversarial"] + c.feature * parts["feature"], parts
