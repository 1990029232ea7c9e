"""The decoder in about half the time on a CPU, in float32, exact up to rounding.

A 1-D convolution of width k costs k multiplications per output and channel pair. Cut into short
tiles and Fourier transformed, it costs one complex multiplication per frequency, three real ones by Gauss'
trick: 47 for the 26 outputs that a tile of 32 gives with k = 7, 1.8 each instead of 7. Signals lie here as
`[time, channels]`, so that tiles, dilated ones too, and both transforms are matrix products on views: nothing
is copied or reordered; so is the transposed convolution. Long signals are taken in pieces that stay in the
cache, through the activation, the transforms and the skip connection at once.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hifispeech.models.hifisr.decoder import Decoder, ResidualBlock, Snake, Upsample
from hifispeech.models.hifisr.model import HiFiSR

# Tile length per kernel width: longer tiles multiply less and transform more.
TILE, TILE_OF_NARROW, NARROW = 32, 16, 4
DIRECT_CHANNELS = 128  # up to these a narrow kernel is as fast without transforms
PIECE = 1 << 18  # values worked on at a time; wide layers, whose weights are large, pay with more
WIDE, WIDE_PIECE = 256, 1 << 20


def transforms(kernel: int, tile: int = TILE) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices that make a correlation of a tile with a kernel a product per row.

    `output.T @ ((signal @ x) * (weight @ w))` are the outputs of tile x with kernel w. The rows: frequency 0,
    Nyquist, and for each one between the three factors of Gauss.

    Shape: signal `[rows, tile]`, weight `[rows, kernel]`, output `[rows, tile - kernel + 1]`, float64.
    """
    n = torch.arange(tile, dtype=torch.float64)
    angle = 2 * math.pi / tile * torch.arange(1, tile // 2, dtype=torch.float64)[:, None] * n
    cosine, sine = angle.cos(), angle.sin()
    zero, nyquist = torch.ones(1, tile, dtype=torch.float64), ((-1.0) ** n)[None]
    # (a + bi)(c + di) = (p - r) + (p + q)i with p = c(a + b), q = a(d - c), r = b(c + d); the tile's spectrum
    # is a + bi, the kernel's, conjugated for a correlation, c + di.
    signal = torch.cat([zero, nyquist, cosine - sine, cosine, -sine])
    weight = torch.cat([zero, nyquist, cosine, sine - cosine, cosine + sine])[:, :kernel]
    output = torch.cat([zero, nyquist, 2 * (cosine - sine), -2 * sine, -2 * cosine]) / tile
    return signal, weight, output[:, : tile - kernel + 1]


class FastSnake(nn.Module):
    """`Snake` on `[time, channels]`, without temporary tensors."""

    def __init__(self, snake: Snake) -> None:
        super().__init__()
        self.register_buffer("alpha", snake.alpha.detach()[0, :, 0].clone())
        self.register_buffer("inverse", (snake.alpha.detach()[0, :, 0] + 1e-9).reciprocal())
        self.alpha: Tensor
        self.inverse: Tensor

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Shape: `[time, channels]`, kept; written to `out` where given."""
        y = torch.mul(x, self.alpha, out=out)
        y.sin_()
        y.mul_(y)
        return torch.addcmul(x, y, self.inverse, out=y)


class FastConv(nn.Module):
    """`Snake`, then a `Conv1d` with stride 1 and "same" padding, for inference on a CPU.

    The transformed weights take about 47 / kernel times the memory. Shape: `[time, channels]`, kept.
    """

    def __init__(self, snake: Snake, conv: nn.Conv1d) -> None:
        super().__init__()
        assert conv.bias is not None and conv.stride == (1,) and conv.groups == 1
        self.kernel, self.dilation = conv.kernel_size[0], conv.dilation[0]
        self.channels = conv.in_channels
        self.direct = self.kernel <= NARROW and self.channels <= DIRECT_CHANNELS
        self.tile = TILE_OF_NARROW if self.kernel <= NARROW else TILE
        self.hop = 1 if self.direct else self.tile - self.kernel + 1
        piece = PIECE if self.channels < WIDE else WIDE_PIECE
        self.tiles = max(1, piece // (self.channels * self.dilation * self.hop))  # of a phase in a piece
        self.snake = FastSnake(snake)
        self.register_buffer("bias", conv.bias.detach())
        self.bias: Tensor
        self.weight: Tensor
        if self.direct:
            weight = conv.weight.detach()[:, :, None].contiguous(memory_format=torch.channels_last)
            self.register_buffer("weight", weight)
            return
        signal, weight, output = transforms(self.kernel, self.tile)
        product = torch.einsum("rk,oik->rio", weight, conv.weight.detach().double())
        self.register_buffer("signal", signal.float())
        self.register_buffer("weight", product.float().contiguous())
        self.register_buffer("output", output.float().T.contiguous())
        self.signal: Tensor
        self.output: Tensor

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Shape: `[time, channels]`, kept; `skip`, of the same shape, is added."""
        time, channels = x.shape
        step = self.dilation  # every step-th sample is a signal of its own
        tiles = min(self.tiles, -(-time // (step * self.hop)))
        whole, reach = step * tiles * self.hop, step * (self.kernel // 2)
        made = torch.empty_like(x)
        active = x.new_empty(whole + 2 * reach, channels)
        for start in range(0, time, whole):
            first, last = max(0, start - reach), min(time, start + whole + reach)
            before, filled = first - (start - reach), last - first
            active[:before] = 0
            active[before + filled :] = 0
            self.snake(x[first:last], out=active[before : before + filled])
            end = min(time, start + whole)
            self.convolve(active, None if skip is None else skip[start:end], made[start:end])
        return made

    def convolve(self, active: Tensor, skip: Tensor | None, out: Tensor) -> None:
        """One piece. Shape: active `[tiles * hop * dilation + reach before and after, channels]`; `out` as
        many of the first of them, without reach, as it has room for; `skip` as `out`.
        """
        if self.direct:
            image = active.T[None, :, None]  # channels last: what the fastest direct kernel takes as it is
            made = F.conv2d(image, self.weight, self.bias, dilation=(1, self.dilation))[0, :, 0].T
        else:
            products = self.products(active)
            count = products.shape[1]
            spread, columns = self.output.expand(count, -1, -1), products.transpose(0, 1)
            if self.dilation == 1 and skip is not None and len(out) == count * self.hop:
                shape = (count, self.hop, self.channels)
                torch.baddbmm(skip.view(shape), spread, columns, out=out.view(shape))
                return
            phases = torch.bmm(spread, columns).view(self.dilation, -1, self.channels)
            made = phases.transpose(0, 1).reshape(-1, self.channels) if len(phases) > 1 else phases[0]
        if skip is None:
            out.copy_(made[: len(out)])
        else:
            torch.add(made[: len(out)], skip, out=out)

    def products(self, active: Tensor) -> Tensor:
        """What the last transform makes outputs of. Shape: as for `convolve` to `[rows, tiles, channels]`."""
        step, rows, channels = self.dilation, len(self.signal), self.channels
        tiles = (len(active) // step - self.kernel + 1) // self.hop
        spectra = active.new_empty(step * tiles, rows, channels)
        strides = (self.hop * step * channels, step * channels, 1)
        for phase in range(step):
            cut = active.as_strided((tiles, self.tile, channels), strides, phase * channels)
            own = spectra[phase * tiles : (phase + 1) * tiles]
            torch.bmm(self.signal.expand(tiles, -1, -1), cut, out=own)
        products = torch.bmm(spectra.transpose(0, 1), self.weight)
        products[0] += self.bias * self.tile  # frequency 0: the same in all samples
        return products


class FastBlock(nn.Module):
    """`ResidualBlock` on `[time, channels]`."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        pairs = ((block.snake_dilated, block.dilated), (block.snake_plain, block.plain))
        self.dilated, self.plain = (
            nn.ModuleList(_fast_conv(*both) for both in zip(snakes, convs, strict=True))
            for snakes, convs in pairs
        )

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            x = plain(dilated(x), skip=x)
        return x


def _fast_conv(snake: nn.Module, conv: nn.Module) -> FastConv:
    assert isinstance(snake, Snake) and isinstance(conv, nn.Conv1d)
    return FastConv(snake, conv)


class FastUpsample(nn.Module):
    """`Upsample` on `[time, channels]`: the transposed convolution is one product per tap.

    Input frame t adds to the outputs from t * rate - padding on, `kernel` of them: `kernel / rate` times
    `rate` neighbours, which lie side by side in memory.
    """

    def __init__(self, stage: Upsample) -> None:
        super().__init__()
        conv = stage.conv
        assert isinstance(conv, nn.ConvTranspose1d) and conv.bias is not None
        self.rate, self.padding = conv.stride[0], int(conv.padding[0])
        self.snake = FastSnake(stage.snake)
        self.blocks = nn.ModuleList(FastBlock(b) for b in stage.blocks if isinstance(b, ResidualBlock))
        weight = conv.weight.detach()  # [in, out, kernel]
        weight = F.pad(weight, (0, -weight.shape[2] % self.rate)).unflatten(2, (-1, self.rate))
        taps = weight.permute(2, 0, 3, 1).flatten(2).contiguous()  # [taps, in, rate * out]
        self.register_buffer("taps", taps)
        self.register_buffer("bias", conv.bias.detach())
        self.taps: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = self.upsampled(self.snake(x))
        total = self.blocks[0](x)
        for block in self.blocks[1:]:
            total += block(x)
        return total.div_(len(self.blocks))

    def upsampled(self, x: Tensor) -> Tensor:
        """Shape: `[time, channels]` to `[time * rate, channels / 2]`."""
        time, count = len(x), len(self.taps)
        outputs = self.bias.repeat(self.rate).expand(time + count - 1, -1).contiguous()
        for delay, tap in enumerate(self.taps):
            outputs[delay : delay + time].addmm_(x, tap)
        samples = outputs.view(-1, len(self.bias))
        return samples[self.padding : self.padding + time * self.rate]


class FastDecoder(nn.Module):
    """`Decoder`, folded, for inference on a CPU. Shape: `[b, latent, frames]` to `[b, 1, frames * hop]`."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.enter, self.leave = decoder.enter, decoder.leave
        self.stages = nn.ModuleList(FastUpsample(s) for s in decoder.stages if isinstance(s, Upsample))
        self.snake = FastSnake(decoder.snake)

    def forward(self, latent: Tensor) -> Tensor:
        return torch.stack([self.one(item) for item in latent])

    def one(self, latent: Tensor) -> Tensor:
        """Shape: `[latent, frames]` to `[1, frames * hop]`."""
        x = self.enter(latent).T.contiguous()
        for stage in self.stages:
            x = stage(x)
        return torch.tanh(self.leave(self.snake(x).T))


def speed_up(model: HiFiSR) -> HiFiSR:
    """Replace the decoder, in place; the model is folded."""
    assert isinstance(model.decoder, Decoder)
    model.decoder = FastDecoder(model.decoder)  # type: ignore[assignment]
    return model
