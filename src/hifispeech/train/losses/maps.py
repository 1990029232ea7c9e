"""Losses on maps of log10 band powers: distances, and least-squares discriminators.

A map is `[batch, time, BANDS]`: 115 x 94 numbers a second, four times fewer than samples, so discriminators
on maps are cheap enough for a CPU. They judge contrast and structure of the envelope, which a regression
smooths away; the distances hold level and floor, which discriminators hardly hear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from hifispeech.audio.bands import BANDS, CENTRES_HZ, WIDTHS

AUDIBLE = -8.0  # log10 power at which the published distance (P1) stops looking
RAYLEIGH = 0.31  # square of 0.557: what noise with exactly the right envelope still differs by


@dataclass(frozen=True, kw_only=True)
class MapLossConfig:
    """Weights of the losses; the adversarial ones count in the second stage only."""

    distance: float = 1.0
    absolute: float = 0.5
    pooled: float = 0.0
    floor: float = 0.3
    adversarial: float = 1.0
    feature: float = 2.0
    pool_frames: int = 6
    pool_bands: int = 4
    floor_fraction: float = 0.1


@dataclass(frozen=True, kw_only=True)
class MapDiscriminatorConfig:
    """One window shape: channels, kernel and strides (time, bands) of its layers."""

    channels: tuple[int, ...]
    kernel: tuple[int, int]
    strides: tuple[tuple[int, int], ...]


WIDE_IN_BANDS = MapDiscriminatorConfig(
    channels=(24, 48, 64, 64), kernel=(3, 5), strides=((1, 2), (2, 2), (2, 2), (1, 1))
)
WIDE_IN_TIME = MapDiscriminatorConfig(
    channels=(24, 48, 64, 64), kernel=(5, 3), strides=((2, 1), (2, 2), (2, 2), (1, 1))
)
FINE = MapDiscriminatorConfig(
    channels=(16, 24, 32, 32), kernel=(3, 3), strides=((1, 1), (1, 2), (2, 1), (1, 1))
)


def generated_mask(first_band: Tensor, usable_hz: Tensor) -> Tensor:
    """1 where the model generates and the recording has signal.

    Shape: `[batch, time]` and `[batch]` to `[batch, time, BANDS]`.
    """
    index = torch.arange(BANDS, device=first_band.device)
    centre = torch.tensor(CENTRES_HZ, dtype=torch.float32, device=first_band.device)
    return ((index >= first_band[..., None]) & (centre <= usable_hz[:, None, None])).float()


def audible(logs: Tensor) -> Tensor:
    """Clamped where no ruler looks any more, so that silent recordings teach no nonsense."""
    return logs.clamp(min=AUDIBLE)


def distance(estimate: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Log-spectral distance as it will be measured on noise of this envelope: mean over frames of the root of
    the mean square over bins.
    """
    width = torch.tensor(WIDTHS, dtype=torch.float32, device=mask.device) * mask
    error = (audible(estimate) - audible(target)).square()
    frame = torch.sqrt((error * width).sum(-1) / width.sum(-1).clamp(min=1.0) + RAYLEIGH)
    counts = (mask.sum(-1) >= 4).float()
    return (frame * counts).sum() / counts.sum().clamp(min=1.0)


def absolute(estimate: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of the log powers."""
    return ((audible(estimate) - audible(target)).abs() * mask).sum() / mask.sum().clamp(min=1.0)


def pooled(estimate: Tensor, target: Tensor, mask: Tensor, frames: int, bands: int) -> Tensor:
    """Log ratio of powers pooled over cells: holds the levels without asking for the median of each."""
    whole = F.avg_pool2d(mask[:, None], (frames, bands)) > 0.9
    a, b = (
        torch.log10(
            F.avg_pool2d(torch.pow(10.0, x.clamp(-9.0, 3.0))[:, None] * mask[:, None], (frames, bands)) + 1e-9
        )
        for x in (estimate, target)
    )
    return ((a - b).abs() * whole).sum() / whole.sum().clamp(min=1)


def floor_of(target: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """The stationary floor of a recording: mean power of its quietest frames, digital silence left out.

    Shape: `[batch, time, BANDS]` to `[batch, 1, BANDS]`.
    """
    energy = (torch.pow(10.0, target)).mean(-1)
    energy = torch.where(target.amax(-1) > -9.5, energy, torch.full_like(energy, 1e9))
    quiet = energy.topk(max(4, int(fraction * target.shape[1])), dim=1, largest=False).indices
    rows = torch.gather(target, 1, quiet[..., None].expand(-1, -1, target.shape[2]))
    return torch.log10(torch.pow(10.0, rows).mean(1, keepdim=True).clamp(min=1e-10))


class DiscriminatorOutput(NamedTuple):
    """Scores of one discriminator, and the features of its layers."""

    score: Tensor
    features: list[Tensor]


class MapDiscriminator(nn.Module):
    """Convolutions on a map. Shape: `[batch, 3, time, BANDS]` to scores and features."""

    def __init__(self, config: MapDiscriminatorConfig) -> None:
        super().__init__()
        pad = (config.kernel[0] // 2, config.kernel[1] // 2)
        sizes = zip((3, *config.channels), config.channels, config.strides, strict=False)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(i, o, config.kernel, stride, pad)) for i, o, stride in sizes
        )
        self.score = weight_norm(nn.Conv2d(config.channels[-1], 1, 3, 1, 1))

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return DiscriminatorOutput(self.score(x), features)


class MapDiscriminators(nn.Module):
    """Several window shapes: wide in frequency, wide in time, fine in both."""

    def __init__(self, configs: Sequence[MapDiscriminatorConfig]) -> None:
        super().__init__()
        self.members = nn.ModuleList(MapDiscriminator(config) for config in configs)

    def forward(self, x: Tensor) -> list[DiscriminatorOutput]:
        x = x.contiguous(memory_format=torch.channels_last)
        return [member(x) for member in self.members]


def view(estimate: Tensor, target: Tensor, level: Tensor, first_band: Tensor, mask: Tensor) -> Tensor:
    """What discriminators see: the known band, the generated one, nothing where the recording has nothing;
    the mask of the generated band and the height as channels.

    Shape: maps `[batch, time, BANDS]` to `[batch, 3, time, BANDS]`.
    """
    index = torch.arange(BANDS, device=mask.device)
    known = (index < first_band[..., None]).float()
    seen = (target * known + estimate * (1 - known) - level).clamp(-8.0, 4.0) * (known + mask) * 0.5
    return torch.stack([seen, mask, (index / BANDS).expand_as(seen)], 1)


def discriminator_loss(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Least squares (LSGAN), summed over discriminators."""
    terms = [
        (r.score.float() - 1).square().mean() + f.score.float().square().mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).sum()


def adversarial_loss(fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Least squares for the generator, summed over discriminators."""
    return torch.stack([(f.score.float() - 1).square().mean() for f in fake]).sum()


def feature_loss(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Relative distance of the features, the mean over layers, summed over discriminators."""
    terms = []
    for r, f in zip(real, fake, strict=True):
        layers = [
            (a.detach() - b).abs().mean() / a.detach().abs().mean().clamp(min=1e-4)
            for a, b in zip(r.features, f.features, strict=True)
        ]
        terms.append(torch.stack(layers).mean())
    return torch.stack(terms).sum()
