"""The paper's three discriminators on 48 kHz waveforms: multi-period, multi-scale and multi-band.

All return the same type, `Judgement`, so that losses need not know which one spoke. `Discriminators` holds
those the config switches on.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from hifispeech.models.conv import Conv1d
from hifispeech.models.layers import full_precision
from hifispeech.train.spectral import stft

SLOPE = 0.1


class Judgement(NamedTuple):
    """Per sub-discriminator: its logits `[batch, n]` (high: real) and the activations of its layers."""

    logits: tuple[Tensor, ...]
    features: tuple[tuple[Tensor, ...], ...]


@dataclass(frozen=True)
class MPDConfig:
    """Multi-period: the waveform folded by each period, then strided convolutions along time."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    kernel: int = 5
    stride: int = 3


@dataclass(frozen=True)
class MSDConfig:
    """Multi-scale: grouped strided convolutions on the waveform and on averages of it."""

    scales: int = 3
    channels: tuple[int, ...] = (128, 128, 256, 512, 1024, 1024, 1024)
    kernels: tuple[int, ...] = (15, 41, 41, 41, 41, 41, 5)
    strides: tuple[int, ...] = (1, 2, 2, 4, 4, 1, 1)
    groups: tuple[int, ...] = (1, 4, 16, 16, 16, 16, 1)

    def __post_init__(self) -> None:
        if len({len(self.channels), len(self.kernels), len(self.strides), len(self.groups)}) != 1:
            raise ValueError("channels, kernels, strides and groups must have one entry per layer each")


@dataclass(frozen=True)
class MBDConfig:
    """Multi-band, multi-resolution: 2-d convolutions on each band of the complex STFT.

    `edges` are shares of the band from 0 Hz to Nyquist; the hop is a quarter of the window.
    """

    windows: tuple[int, ...] = (2048, 1024, 512)
    edges: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    channels: int = 32
    peak: float = 0.8


@dataclass(frozen=True)
class DiscriminatorsConfig:
    """Which discriminators take part; null switches one off."""

    mpd: MPDConfig | None = field(default_factory=MPDConfig)
    msd: MSDConfig | None = field(default_factory=MSDConfig)
    mbd: MBDConfig | None = field(default_factory=MBDConfig)


def small_discriminators() -> DiscriminatorsConfig:
    """The same structures at a quarter of the width, for CPUs and tests (about 4.6 M parameters)."""
    return DiscriminatorsConfig(
        mpd=MPDConfig(channels=(8, 32, 128, 256, 256)),
        msd=MSDConfig(channels=(32, 32, 64, 128, 256, 256, 256)),
        mbd=MBDConfig(channels=8),
    )


def _run(layers: nn.ModuleList, last: nn.Module, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Leaky ReLU after each layer but the last; every activation is a feature."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    x = last(x)
    return x, (*features, x)


class PeriodDiscriminator(nn.Module):
    """One period. Shape: `[batch, 1, time]`.

    Samples of one phase lie in one row, and rows never mix, so each phase is a batch item of a 1-d
    convolution: the same numbers as HiFi-GAN's (k, 1) kernels, in a layout convolution libraries are fast at.
    """

    def __init__(self, period: int, config: MPDConfig) -> None:
        super().__init__()
        self.period = period
        widths = (1, *config.channels)
        last = len(config.channels) - 1
        self.layers = nn.ModuleList(
            weight_norm(
                Conv1d(
                    a, b, config.kernel, stride=1 if i == last else config.stride, padding=config.kernel // 2
                )
            )
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.last = weight_norm(Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, audio: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        batch = audio.shape[0]
        folded = F.pad(audio, (0, -audio.shape[-1] % self.period), mode="reflect")
        phases = folded.reshape(batch, -1, self.period).transpose(1, 2).reshape(batch * self.period, 1, -1)
        logits, features = _run(self.layers, self.last, phases)
        # Back to one row per batch item, so that a batch of real and generated audio can be split again.
        return logits.reshape(batch, -1), tuple(f.reshape(batch, -1, *f.shape[1:]) for f in features)


class MultiPeriodDiscriminator(nn.Module):
    """One `PeriodDiscriminator` per period. Shape: `[batch, 1, time]` to a `Judgement`."""

    def __init__(self, config: MPDConfig) -> None:
        super().__init__()
        self.parts = nn.ModuleList(PeriodDiscriminator(period, config) for period in config.periods)

    def forward(self, audio: Tensor) -> Judgement:
        return _judgement([part(audio) for part in self.parts])


class ScaleDiscriminator(nn.Module):
    """One scale of the waveform. Shape: `[batch, 1, time]`."""

    def __init__(self, config: MSDConfig, spectral: bool) -> None:
        super().__init__()
        normed = spectral_norm if spectral else weight_norm
        widths = (1, *config.channels)
        sizes = zip(widths[:-1], widths[1:], config.kernels, config.strides, config.groups, strict=True)
        self.layers = nn.ModuleList(
            normed(Conv1d(a, b, k, stride=s, groups=g, padding=k // 2)) for a, b, k, s, g in sizes
        )
        self.last = normed(Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, audio: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        logits, features = _run(self.layers, self.last, audio)
        return logits.flatten(1), features


class MultiScaleDiscriminator(nn.Module):
    """First scale: spectral norm; the others: averaged audio. `[batch, 1, time]` to a `Judgement`."""

    def __init__(self, config: MSDConfig) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ScaleDiscriminator(config, spectral=i == 0) for i in range(config.scales))

    def forward(self, audio: Tensor) -> Judgement:
        results = []
        for i, part in enumerate(self.parts):
            if i > 0:
                audio = F.avg_pool1d(audio, 4, stride=2, padding=2)
            results.append(part(audio))
        return _judgement(results)


class BandDiscriminator(nn.Module):
    """One STFT resolution: a stack of convolutions per band, one joint output. Shape: `[batch, 1, time]`."""

    def __init__(self, window: int, config: MBDConfig) -> None:
        super().__init__()
        self.window, self.peak = window, config.peak
        bins = window // 2 + 1
        edges = [int(edge * bins) for edge in config.edges]
        self.bands = list(pairwise(edges))
        self.stacks = nn.ModuleList(self._stack(config.channels) for _ in self.bands)
        self.last = weight_norm(nn.Conv2d(config.channels, 1, 3, padding=1))

    @staticmethod
    def _stack(channels: int) -> nn.ModuleList:
        """Kernels are (time, frequency); three layers halve the frequency axis."""
        first = nn.Conv2d(2, channels, (3, 9), padding=(1, 4))
        halving = [nn.Conv2d(channels, channels, (3, 9), stride=(1, 2), padding=(1, 4)) for _ in range(3)]
        final = nn.Conv2d(channels, channels, 3, padding=1)
        return nn.ModuleList(weight_norm(layer) for layer in (first, *halving, final))

    def spectrum(self, audio: Tensor) -> Tensor:
        """Complex STFT of the levelled audio as two planes, `[batch, 2, frames, bins]`, always float32.

        The mean is removed and the peak set to a fixed level: the verdict must not depend on loudness or DC.
        """
        with full_precision(audio.device):
            x = audio.float().squeeze(1)
            x = x - x.mean(-1, keepdim=True)
            x = x * (self.peak / (x.abs().amax(-1, keepdim=True) + 1e-9))
            return torch.view_as_real(stft(x, self.window, self.window // 4)).permute(0, 3, 1, 2)

    def forward(self, audio: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        planes = self.spectrum(audio)
        outputs, features = [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            x = planes[..., low:high]
            for i, layer in enumerate(stack.children()):
                x = F.leaky_relu(layer(x), SLOPE)
                if (
                    i > 0
                ):  # the first layer is nearly the spectrum itself; the release does not match it either
                    features.append(x)
            outputs.append(x)
        logits = self.last(torch.cat(outputs, dim=-1))
        return logits.flatten(1), (*features, logits)


class MultiBandDiscriminator(nn.Module):
    """One `BandDiscriminator` per STFT window. Shape: `[batch, 1, time]` to a `Judgement`."""

    def __init__(self, config: MBDConfig) -> None:
        super().__init__()
        self.parts = nn.ModuleList(BandDiscriminator(window, config) for window in config.windows)

    def forward(self, audio: Tensor) -> Judgement:
        return _judgement([part(audio) for part in self.parts])


class Discriminators(nn.Module):
    """All discriminators of a config. Shape: `[batch, 1, time]` to `{"mpd": Judgement, ...}`.

    Raises:
        ValueError: if the config switches every one off.
    """

    def __init__(self, config: DiscriminatorsConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or DiscriminatorsConfig()
        parts: dict[str, nn.Module] = {}
        if c.mpd is not None:
            parts["mpd"] = MultiPeriodDiscriminator(c.mpd)
        if c.msd is not None:
            parts["msd"] = MultiScaleDiscriminator(c.msd)
        if c.mbd is not None:
            parts["mbd"] = MultiBandDiscriminator(c.mbd)
        if not parts:
            raise ValueError("mpd, msd and mbd are all null; keep one, or train without an adversarial loss")
        self.parts = nn.ModuleDict(parts)

    def forward(self, audio: Tensor) -> dict[str, Judgement]:
        return {name: part(audio) for name, part in self.parts.items()}


def _judgement(results: list[tuple[Tensor, tuple[Tensor, ...]]]) -> Judgement:
    return Judgement(tuple(logits for logits, _ in results), tuple(features for _, features in results))
