"""1-d convolutions in the layout that CPUs are fast at; the same weights, the same numbers up to rounding.

oneDNN's kernels want channels innermost, and PyTorch never gives it a 1-d signal so. Its grouped kernels are
slow with a stride: there, the samples a stride skips over become channels of their group (polyphase form),
which leaves a convolution without one. What it gains: `benchmarks/train_step.py`, and layer by layer
`benchmarks/conv_layers.py`. `_is_rearranged` decides where; elsewhere (GPU, export, compilation, wide groups,
few channels in bfloat16) the layers are those of `torch.nn`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPED_BELOW = 32  # input channels of a group
LOW_GROUPS_FROM, LOW_CHANNELS_ABOVE = 16, 16  # in bfloat16

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
        if self.in_channels == 1 or not _is_rearranged(self, input):
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
        if output_size is not None or not _is_rearranged(self, input):
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


def _is_rearranged(layer: nn.Conv1d | nn.ConvTranspose1d, x: Tensor) -> bool:
    """Whether a layer computes with channels innermost: where that is safe, and faster by
    `benchmarks/conv_layers.py`.

    Not safe: oneDNN's bfloat16 kernel for depthwise planes, on processors with AVX512-BF16, never returns for
    16 channels or fewer and 15 taps or more (PyTorch 2.13). No signal ends it, so that no case near it is
    worth a try: in bfloat16, what is grouped always has more channels.
    """
    if is_plain() or x.device.type != "cpu" or x.dim() != 3 or not isinstance(layer.padding[0], int):
        return False
    if layer.groups == 1:  # wide ones lose alone, but plain ones among these slowed `hifisr_small` down
        return True
    if layer.in_channels // layer.groups >= GROUPED_BELOW:
        return False
    if _is_low_precision(x):  # few groups gain nothing there
        return layer.groups >= LOW_GROUPS_FROM and layer.in_channels > LOW_CHANNELS_ABOVE
    return True


def _is_low_precision(x: Tensor) -> bool:
    return x.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled("cpu")


def _geometry(layer: nn.Conv1d | nn.ConvTranspose1d) -> dict[str, Any]:
    """Stride, padding and dilation of a layer on planes of height 1."""
    stride, padding, dilation = layer.stride[0], int(layer.padding[0]), layer.dilation[0]
    return {"stride": (1, stride), "padding": (0, padding), "dilation": (1, dilation), "groups": layer.groups}


def _plane(x: Tensor) -> Tensor:
    """`[a, b, time]` as a plane of height 1, channels innermost."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
