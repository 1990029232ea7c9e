"""Adversarial training of the fast model: its frames become a waveform, which the paper's losses judge.

Below the cutoff and above the recording's own band the truth itself stands in the generated waveform, so that
discriminators and losses see nothing but the generated band.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hifispeech.datasets.shards import Shards
from hifispeech.models.fast.model import FastModel
from hifispeech.train.config import FastGanTrainConfig
from hifispeech.train.losses.adversarial import GeneratorLoss, discriminator_loss, frozen, judge
from hifispeech.train.losses.discriminators import Discriminators
from hifispeech.train.losses.frames import frame_losses, generated_mask
from hifispeech.train.simulate import Batch
from hifispeech.train.spectral import istft
from hifispeech.train.task import Parts, Updates
from hifispeech.train.tasks.fast import FastTask

ADVERSARY = "discriminators"


class Made(NamedTuple):
    """Generated and true frames `[batch, time, 2, bins]`, the mask of what counts, and both waveforms
    `[batch, 1, samples]`."""

    frames: Tensor
    target: Tensor
    mask: Tensor
    wave: Tensor
    truth: Tensor


class FastGanTask(FastTask):
    """The fast task with discriminators; isolated steps as for the paper's model."""

    def __init__(self, config: FastGanTrainConfig, train: Shards, valid: Shards | None) -> None:
        super().__init__(config, train, valid)
        self.config: FastGanTrainConfig = config
        self.networks[ADVERSARY] = Discriminators(config.discriminators)
        self.criterion = GeneratorLoss(config.adversarial)

    def train_step(self, updates: Updates, batches: Sequence[Batch]) -> Parts:
        """Discriminators first, on the output as it is; then the generator against the updated ones."""
        self.criterion.to(batches[0].spectrum.device)
        waits = updates.step < updates.frozen_until
        share = len(batches) == 1 and not waits
        with torch.set_grad_enabled(share), updates.autocast():
            made = [self.make(updates.module("model"), batch) for batch in batches]
        objective = self.config.adversarial.objective

        def judged(module: nn.Module, item: Made) -> tuple[Tensor, Parts]:
            real, fake = judge(module, item.truth, item.wave.detach())
            return discriminator_loss(real, fake, objective)

        parts = updates.update(ADVERSARY, judged, made)
        parts["discriminator/loss"] = parts.pop("loss")
        if waits:
            return parts
        adversary = self.networks[ADVERSARY]

        def loss(module: nn.Module, item: tuple[Batch, Made | None]) -> tuple[Tensor, Parts]:
            batch, own = item
            own = self.make(module, batch) if own is None else own
            frames, frame_parts = frame_losses(
                own.frames, own.target, own.mask, self.config.loss, updates.shared
            )
            waves, wave_parts = self.criterion(adversary, own.wave, own.truth)
            return self.config.frame_weight * frames + waves, frame_parts | wave_parts

        items = [(batch, own if share else None) for batch, own in zip(batches, made, strict=True)]
        with frozen(adversary):
            return parts | updates.update("model", loss, items)

    def make(self, model: nn.Module, batch: Batch) -> Made:
        """Run the model and turn a middle part of its frames into waveforms."""
        late, core = self.config.model.look_ahead, self.networks["model"]
        assert isinstance(core, FastModel)
        state = [s.to(batch.spectrum.device) for s in core.initial_state(len(batch.spectrum))]
        own = slice(None, -late or None)
        noise, target, cutoff = batch.noise[:, own], batch.target[:, own], batch.cutoff_bin[:, own]
        frames = model(batch.spectrum, noise, batch.cutoff_bin, *state)[0].float()
        mask = generated_mask(cutoff, batch.bandwidth_bin, target.shape[-1])
        last = frames.shape[1]
        part = slice(max(0, last - self.config.wave_frames), last)
        mixed = torch.where(mask[:, part, None] > 0, frames[:, part], target[:, part])
        return Made(frames, target, mask, self.wave(mixed), self.wave(target[:, part]))

    def wave(self, frames: Tensor) -> Tensor:
        """Waveform of frames, the edges that miss overlapping frames cut. Shape: `[batch, 1, samples]`."""
        c = self.config.model
        spectrum = torch.complex(frames[:, :, 0].contiguous(), frames[:, :, 1].contiguous())
        audio = istft(spectrum, (frames.shape[1] - 1) * c.hop, c.n_fft, c.hop)
        return audio[:, None, c.n_fft // 2 : -c.n_fft // 2]
