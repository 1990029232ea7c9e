"""HiFi-GAN generator with Snake activations: latent frames to waveform."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from hifispeech.models.conv import Conv1d, ConvTranspose1d, is_plain
from hifispeech.models.hifisr.config import DecoderConfig
from hifispeech.models.layers import full_precision


class Snake(nn.Module):
    """x + sin^2(a x) / a, with one learned a per channel. Shape: `[batch, channels, time]`, kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not is_plain():
            return _Snake.apply(x, self.alpha)  # type: ignore[no-any-return]
        return x + _scale(self.alpha) * torch.sin(self.alpha * x).square()


def _scale(alpha: Tensor) -> Tensor:
    return (alpha + 1e-9).reciprocal()


class _Snake(torch.autograd.Function):
    """With its derivatives written out: fewer passes over memory and fewer tensors kept than autograd needs.

    dy/dx = 1 + sin(2 a x) and dy/da = (x sin(2 a x) - sin^2(a x) / a) / a, for 1e-9 << a.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        added = torch.sin(alpha * x).square_().mul_(_scale(alpha))
        ctx.save_for_backward(x, alpha, added)
        return x + added

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        x, alpha, added = ctx.saved_tensors
        slope = torch.sin((2 * alpha) * x)
        to_x = torch.addcmul(gradient, gradient, slope)
        if not ctx.needs_input_grad[1]:
            return to_x, None
        change = slope.mul_(x).sub_(added).mul_(gradient)
        return to_x, _scale(alpha) * change.sum((0, 2), keepdim=True)


def _normed(layer: nn.Module) -> nn.Module:
    """Small random weights, as HiFi-GAN starts, then weight norm."""
    nn.init.normal_(layer.get_parameter("weight"), 0.0, 0.01)
    return weight_norm(layer)


def _same(channels: int, kernel: int, dilation: int = 1) -> nn.Module:
    return _normed(
        Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
    )


class ResidualBlock(nn.Module):
    """For each dilation: Snake, dilated convolution, Snake, convolution, skip. Shape: `[b, c, t]`, kept."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)
        self.plain = nn.ModuleList(_same(channels, kernel) for _ in dilations)
        self.snake_dilated = nn.ModuleList(Snake(channels) for _ in dilations)
        self.snake_plain = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        layers = zip(self.snake_dilated, self.dilated, self.snake_plain, self.plain, strict=True)
        for snake_dilated, dilated, snake_plain, plain in layers:
            x = x + plain(snake_plain(dilated(snake_dilated(x))))
        return x


class Upsample(nn.Module):
    """Snake, transposed convolution, mean of the residual blocks. `[b, c, t]` to `[b, c / 2, t * rate]`."""

    def __init__(self, channels: int, rate: int, kernel: int, config: DecoderConfig) -> None:
        super().__init__()
        self.snake = Snake(channels)
        self.conv = _normed(
            ConvTranspose1d(channels, channels // 2, kernel, stride=rate, padding=(kernel - rate) // 2)
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(channels // 2, block_kernel, config.block_dilations)
            for block_kernel in config.block_kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.snake(x))
        total = self.blocks[0](x)
        for block in self.blocks[1:]:
            total = total + block(x)
        return total / len(self.blocks)


class Decoder(nn.Module):
    """Latent to waveform in -1..1. Shape: `[batch, latent, frames]` to `[batch, 1, frames * hop]`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        pad = config.kernel // 2
        self.enter = weight_norm(Conv1d(config.latent, config.width, config.kernel, padding=pad))
        stages = zip(config.rates, config.rate_kernels, strict=True)
        self.stages = nn.ModuleList(
            Upsample(config.width // 2**i, rate, kernel, config) for i, (rate, kernel) in enumerate(stages)
        )
        last = config.width // 2 ** len(config.rates)
        self.snake = Snake(last)
        self.leave = _normed(Conv1d(last, 1, config.kernel, padding=pad))

    def forward(self, latent: Tensor) -> Tensor:
        x = self.enter(latent)
        for stage in self.stages:
            x = stage(x)
        # A bfloat16 sample has 8 bits, a noise floor of -50 dB: the last layer is cheap and stays float32.
        with full_precision(x.device):
            return torch.tanh(self.leave(self.snake(x.float())))
