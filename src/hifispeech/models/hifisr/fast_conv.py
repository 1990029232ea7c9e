"""Convolutions with long kernels by short Fourier transforms: the decoder in half the time on a CPU.

A 1-D convolution of width k costs k multiplications per output and channel pair. Cut into tiles of `TILE`
samples and transformed, it costs one complex multiplication per frequency, three real ones by Gauss' trick:
47 for the 26 outputs a tile gives with k = 7, 1.8 each instead of 7. Both transforms are matrix products, so
matrix multiplication does all the work, in float32, exact up to rounding.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hifispeech.models.hifisr.decoder import ResidualBlock
from hifispeech.models.hifisr.model import HiFiSR

TILE = 32
LEAST_KERNEL = 5
LEAST_CHANNELS = 128  # with fewer, the transforms cost more than they save


def transforms(kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices that make a correlation of a tile with a kernel a product per row.

    `output.T @ ((signal @ x) * (weight @ w))` are the outputs of tile x with kernel w. The rows: frequency 0,
    Nyquist, and for each one between the three factors of Gauss.

    Shape: signal `[rows, TILE]`, weight `[rows, kernel]`, output `[rows, TILE - kernel + 1]`, float64.
    """
    n = torch.arange(TILE, dtype=torch.float64)
    angle = 2 * math.pi / TILE * torch.arange(1, TILE // 2, dtype=torch.float64)[:, None] * n
    cosine, sine = angle.cos(), angle.sin()
    zero, nyquist = torch.ones(1, TILE, dtype=torch.float64), ((-1.0) ** n)[None]
    # (a + bi)(c + di) = (p - r) + (p + q)i with p = c(a + b), q = a(d - c), r = b(c + d); the tile's spectrum
    # is a + bi, the kernel's, conjugated for a correlation, c + di.
    signal = torch.cat([zero, nyquist, cosine - sine, cosine, -sine])
    weight = torch.cat([zero, nyquist, cosine, sine - cosine, cosine + sine])[:, :kernel]
    output = torch.cat([zero, nyquist, 2 * (cosine - sine), -2 * sine, -2 * cosine]) / TILE
    return signal, weight, output[:, : TILE - kernel + 1]


class FastConv(nn.Module):
    """Takes the place of a `Conv1d` with stride 1 and "same" padding, for inference on a CPU.

    The transformed weights take about 47 / kernel times the memory. Shape: `[1, channels, time]`, kept.
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        assert conv.bias is not None and conv.stride == (1,) and conv.groups == 1
        self.kernel, self.dilation = conv.kernel_size[0], conv.dilation[0]
        self.hop = TILE - self.kernel + 1
        signal, weight, output = transforms(self.kernel)
        product = torch.einsum("rk,oik->roi", weight, conv.weight.double())
        self.register_buffer("signal", signal.float())
        self.register_buffer("weight", product.float().contiguous())
        self.register_buffer("output", output.float())
        self.register_buffer("bias", conv.bias.detach()[:, None])
        self.signal: Tensor
        self.weight: Tensor
        self.output: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(item)[None] for item in x])

    def one(self, x: Tensor) -> Tensor:
        """Shape: `[channels, time]`, kept."""
        channels, time = x.shape
        step = self.dilation  # every step-th sample is a signal of its own
        tiles = -(-time // (step * self.hop))
        length = step * (tiles * self.hop + self.kernel - 1)
        left = step * (self.kernel // 2)
        padded = F.pad(x, (left, length - time - left))
        cut = padded.as_strided((channels, step, tiles, TILE), (length, 1, step * self.hop, step))
        spectra = (self.signal @ cut.reshape(-1, TILE).T).view(len(self.signal), channels, -1)
        products = torch.bmm(self.weight, spectra)
        made = products.view(len(self.signal), -1).T @ self.output
        phases = made.view(self.weight.shape[1], step, tiles * self.hop)
        return phases.transpose(1, 2).reshape(self.weight.shape[1], -1)[:, :time] + self.bias


def speed_up(model: HiFiSR) -> HiFiSR:
    """Replace the convolutions of the decoder's blocks that gain by it, in place; the model is folded."""
    for block in model.decoder.modules():
        if isinstance(block, ResidualBlock):
            for layers in (block.dilated, block.plain):
                for i, conv in enumerate(layers):
                    assert isinstance(conv, nn.Conv1d)
                    if conv.kernel_size[0] >= LEAST_KERNEL and conv.in_channels >= LEAST_CHANNELS:
                        layers[i] = FastConv(conv)
    return model
