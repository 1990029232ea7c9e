"""Adversarial training of the paper's model: isolated steps of discriminators and generator."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hifispeech.audio.degrade.filters import DegradeSpec, apply, sample_degradation
from hifispeech.audio.spectral import HOP, N_FFT
from hifispeech.datasets.shards import SAMPLE_RATE, Shards
from hifispeech.infer.windows import added_band, level_gain, whole
from hifispeech.models.hifisr import HiFiSR
from hifispeech.train.config import HiFiSRTrainConfig
from hifispeech.train.losses.adversarial import GeneratorLoss, discriminator_loss, frozen, judge
from hifispeech.train.losses.discriminators import Discriminators
from hifispeech.train.task import Parts, Updates, Validation
from hifispeech.train.validate import Scores

VALIDATION_RATES = (8000, 16000, 24000)
VALIDATION_SECONDS = 4
ADVERSARY = "discriminators"


class WaveBatch(NamedTuple):
    """Low-rate audio brought back to 48 kHz and the truth. Shape: `[batch, 1, time]` both."""

    low: Tensor
    target: Tensor


class HiFiSRTask:
    """Batches are pure functions of `(seed, index, item)`; see `Shards.draw`."""

    def __init__(self, config: HiFiSRTrainConfig, train: Shards, valid: Shards | None) -> None:
        self.config = config
        self.train, self.valid = train, valid
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"model": HiFiSR(config.model)}
        if config.loss.adversarial or config.loss.feature:
            self.networks[ADVERSARY] = Discriminators(config.discriminators)
        self.criterion = GeneratorLoss(config.loss)

    def optimiser(self, name: str) -> torch.optim.Optimizer:
        """AdamW; the encoder has a rate of its own."""
        c = self.config.optimiser
        network = self.networks[name]
        encoder = set(network.encoder.parameters()) if isinstance(network, HiFiSR) else set()
        groups = [
            {"params": [p for p in network.parameters() if p not in encoder], "lr": c.learning_rate},
            {"params": [p for p in network.parameters() if p in encoder], "lr": c.encoder_learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, betas=c.betas, weight_decay=c.weight_decay)

    def batch(self, index: int, rank: int = 0, world: int = 1) -> WaveBatch:
        """The share of one process of `world`: together they are the batch of a single process."""
        own = self.config.batch_size // world
        first = index * self.config.batch_size + rank * own
        pairs = [self.pair(first + i) for i in range(own)]
        low, target = (np.stack(column)[:, None] for column in zip(*pairs, strict=True))
        return WaveBatch(torch.from_numpy(low), torch.from_numpy(target))

    def pair(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Input and target of one training item, at the level of `level_gain`. Shape: `[segment_samples]`."""
        c = self.config
        target, _ = self.train.draw(c.seed, item, c.segment_samples)
        rng = np.random.default_rng((c.seed, 11, item))
        spec = sample_degradation(
            rng,
            min_rate=c.low_rate.min_rate,
            max_rate=c.low_rate.max_rate,
            noise_probability=c.low_rate.noise_probability,
        )
        low, _, _ = apply(target, SAMPLE_RATE, spec, rate_out=SAMPLE_RATE)
        gain = level_gain(low)  # as at inference
        return low * gain, target * gain

    def train_step(self, updates: Updates, batches: Sequence[WaveBatch]) -> Parts:
        """Discriminators first, on the output as it is; then the generator against the updated ones."""
        self.criterion.to(batches[0].low.device)
        adversary = self.networks.get(ADVERSARY)
        if updates.step < self.config.adversarial_from:
            adversary = None
        if adversary is None:
            return self._generator_step(updates, batches, None, [None] * len(batches))
        waits = updates.step < updates.frozen_until
        # One forward pass for both steps; not when accumulating, where the graphs would add up.
        share = len(batches) == 1 and not waits
        made = [self._predict(updates, batch, gradients=share) for batch in batches]
        parts = self._discriminator_step(updates, batches, made)
        if waits:
            return parts
        return parts | self._generator_step(
            updates, batches, adversary, made if share else [None] * len(batches)
        )

    def _predict(self, updates: Updates, batch: WaveBatch, gradients: bool) -> Tensor:
        with torch.set_grad_enabled(gradients), updates.autocast():
            return updates.module("model")(batch.low)

    def _discriminator_step(
        self, updates: Updates, batches: Sequence[WaveBatch], made: Sequence[Tensor]
    ) -> Parts:
        def loss(module: nn.Module, item: tuple[WaveBatch, Tensor]) -> tuple[Tensor, Parts]:
            batch, predicted = item
            real, fake = judge(module, batch.target, predicted.detach().float())
            return discriminator_loss(real, fake, self.config.loss.objective)

        parts = updates.update(ADVERSARY, loss, list(zip(batches, made, strict=True)))
        parts["discriminator/loss"] = parts.pop("loss")
        return parts

    def _generator_step(
        self,
        updates: Updates,
        batches: Sequence[WaveBatch],
        adversary: nn.Module | None,
        made: Sequence[Tensor | None],
    ) -> Parts:
        def loss(module: nn.Module, item: tuple[WaveBatch, Tensor | None]) -> tuple[Tensor, Parts]:
            batch, predicted = item
            predicted = module(batch.low) if predicted is None else predicted
            return self.criterion(adversary, predicted.float(), batch.target)

        items = list(zip(batches, made, strict=True))
        if adversary is None:
            return updates.update("model", loss, items)
        with frozen(adversary):
            return updates.update("model", loss, items)

    @torch.no_grad()
    def validate(self, model: nn.Module, clips_per_speaker: int = 2) -> Validation | None:
        """LSD (P1) on held-out speakers per input rate, the low band kept as at inference."""
        if self.valid is None:
            return None
        scores = Scores()
        for speaker in self.valid.speakers:
            for number, i in enumerate(self.valid.by_speaker[speaker][:clips_per_speaker]):
                audio = self.valid.read(self.valid.clips[i])[: VALIDATION_SECONDS * SAMPLE_RATE]
                for rate in VALIDATION_RATES:
                    upscaled = self.upscale(model, audio, rate)
                    scores.add_p1(audio, upscaled, rate / 2)
                    if number == 0:
                        scores.keep(f"{speaker}/{rate / 1000:g}k", audio, upscaled)
        score = float(np.mean([scores.mean(f"p1_{rate / 1000:g}k") for rate in VALIDATION_RATES]))
        return scores.validation("lsd", score)

    @staticmethod
    def upscale(model: nn.Module, audio: np.ndarray, rate: int) -> np.ndarray:
        """Bring `audio` down to `rate` and upscale it again. Shape: `[time]` to `[time]`."""
        spec = DegradeSpec(target_rate=rate, cutoff_hz=rate / 2)
        low, _, _ = apply(audio, SAMPLE_RATE, spec, rate_out=SAMPLE_RATE)
        device = next(model.parameters()).device

        def run(window: np.ndarray) -> np.ndarray:
            return model(torch.from_numpy(window)[None, None].to(device))[0, 0].float().cpu().numpy()

        edge = int(0.94 * rate / 2 / SAMPLE_RATE * N_FFT)
        return low + added_band(run, low, np.full(1 + whole(len(low)) // HOP, edge))

    def card(self) -> dict[str, Any]:
        return {"data": self.train.summary()}
