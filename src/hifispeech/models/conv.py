"""1-d convolutions in the layout that CPUs are fast at; the same weights, the same numbers up to rounding.

oneDNN's kernels want channels innermost, and PyTorch never gives it a 1-d signal so. Its grouped kernels are
slow with a stride: there, the samples a stride skips over become channels of their group (polyphase form),
which leaves a convolution without one. What it gains: `benchmarks/train_step.py`.
Elsewhere (GPU, export, compilation) the layers are those of `torch.nn`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_rearrange: ContextVar[bool] = ContextVar("_rearrange", default=True)


@contextmanager
def plain_layers() -> Iterator[None]:
    """Inside, the layers compute as those of `torch.nn`: to compare with."""
    token = _rearrange.set(False)
    try:
        yield
    finally:
        _rearrange.reset(token)


class Conv1d(nn.Conv1d):
    """As `nn.Conv1d` (zero padding in samples). Shape: `[batch, in, time]` to `[batch, out, time']`.

    On a CPU the output may lie in memory as `[batch, time', out]`; elementwise operators keep it so.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not _is_rearranged(input) or self.in_channels == 1 or not isinstance(self.padding[0], int):
            return super().forward(input)
        if self.groups > 1 and self.stride[0] > 1 and self.dilation[0] == 1:
            return self._polyphase(input)
        return F.conv2d(_plane(input), _plane(self.weight), self.bias, **_geometry(self)).squeeze(2)

    def _polyphase(self, x: Tensor) -> Tensor:
        """Sample `stride * i + phase` of a channel becomes sample `i` of one of `stride` channels."""
        stride, pad = self.stride[0], int(self.padding[0])
        taps = -(-self.kernel_size[0] // stride)
        count = (x.shape[-1] + 2 * pad - self.kernel_size[0]) // stride + 1
        rows = count + taps - 1
        x = F.pad(x, (pad, rows * stride - x.shape[-1] - pad)).unflatten(-1, (rows, stride))
        weight = F.pad(self.weight, (0, taps * stride - self.kernel_size[0])).unflatten(-1, (taps, stride))
        signal, kernel = (value.transpose(2, 3).flatten(1, 2) for value in (x, weight))
        return F.conv1d(signal, kernel, self.bias, groups=self.groups)


class ConvTranspose1d(nn.ConvTranspose1d):
    """As `nn.ConvTranspose1d`, memory as `Conv1d`. Shape: `[batch, in, time]` to `[batch, out, time']`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not _is_rearranged(input) or output_size is not None or not isinstance(self.padding[0], int):
            return super().forward(input, output_size)
        return F.conv_transpose2d(
            _plane(input),
            _plane(self.weight),
            self.bias,
            output_padding=(0, self.output_padding[0]),
            **_geometry(self),
        ).squeeze(2)


def is_plain() -> bool:
    """Whether a layer has to compute as `torch.nn` would: inside `plain_layers`, export or compilation."""
    return torch.compiler.is_compiling() or not _rearrange.get()


def _is_rearranged(x: Tensor) -> bool:
    return not is_plain() and x.device.type == "cpu" and x.dim() == 3


def _geometry(layer: nn.Conv1d | nn.ConvTranspose1d) -> dict[str, Any]:
    """Stride, padding and dilation of a layer on planes of height 1."""
    stride, padding, dilation = layer.stride[0], int(layer.padding[0]), layer.dilation[0]
    return {"stride": (1, stride), "padding": (0, padding), "dilation": (1, dilation), "groups": layer.groups}


def _plane(x: Tensor) -> Tensor:
    """`[a, b, time]` as a plane of height 1, channels innermost."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
