"""Causal building blocks whose whole memory is an explicit tensor, so that any partition in time gives the
same numbers.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def decay_of(time_constant_frames: float) -> float:
    """One-pole decay per frame whose impulse response falls to 1/e after `time_constant_frames` frames."""
    return float(torch.exp(torch.tensor(-1.0 / time_constant_frames, dtype=torch.float64)))


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast inside: log-spectra and running averages do not survive bfloat16. Nothing to do in an
    exported graph.
    """
    if torch.compiler.is_exporting() or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


EXPORT_FRAMES = 128  # longest chunk of an exported graph


class Averager(NamedTuple):
    """Recursive averages `y[t] = a y[t-1] + (1 - a) x[t]` of a chunk of frames as one matrix product.

    The lower-triangular Toeplitz matrix of the impulse response replaces the recursion: it trains and exports
    as plain matrix products, and the state keeps it exact over any chunk length.

    Shape: kernel `[groups, time, time]`, carry `[groups, time, 1]` (how the state before the chunk decays).
    """

    kernel: Tensor
    carry: Tensor

    @classmethod
    def make(cls, log_decay: Tensor, time: int) -> "Averager":
        """Shape: log_decay `[groups]`, the natural logarithm of the decay `a` per frame.

        An exported graph holds the matrix for `EXPORT_FRAMES` frames and cuts it to the chunk.
        """
        if torch.compiler.is_exporting():
            whole = cls.compute(log_decay, EXPORT_FRAMES)
            return cls(whole.kernel[:, :time, :time], whole.carry[:, :time])
        return cls.compute(log_decay, time)

    @classmethod
    def compute(cls, log_decay: Tensor, time: int) -> "Averager":
        index = torch.arange(time, device=log_decay.device, dtype=log_decay.dtype)
        lag = index[:, None] - index[None, :]
        kernel = torch.exp(log_decay[:, None, None] * lag.clamp(min=0.0)) * (lag >= 0).to(log_decay.dtype)
        kernel = kernel * (1.0 - torch.exp(log_decay))[:, None, None]
        return cls(kernel, torch.exp(log_decay[:, None] * (index + 1.0))[:, :, None])

    def __call__(self, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: values `[batch, time, groups, width]`, state `[batch, groups, width]`; the averages and
        the new state in these shapes.
        """
        with full_precision(values.device):
            driven = torch.matmul(self.kernel, values.transpose(1, 2))
        averages = (driven + self.carry * state[:, :, None, :]).transpose(1, 2)
        return averages, averages[:, -1]


@torch.library.custom_op("hifispeech::repeat_band", mutates_args=())
def repeat_band(values: Tensor, first: Tensor, period: Tensor, count: int) -> Tensor:
    """`count` bins made of the bins from `first` on, repeated with `period`; the same for all frames.

    An operator of our own, since an exported graph shall copy whole runs: its form there is in
    `train/export.py`. Shape: values `[..., bins]`, first and period `[1]` to `[..., count]`.
    """
    index = first + torch.arange(count, device=values.device, dtype=first.dtype) % period
    return values[..., index.long()]


@repeat_band.register_fake
def _(values: Tensor, first: Tensor, period: Tensor, count: int) -> Tensor:
    return values.new_empty((*values.shape[:-1], count))


class ConvBlock(nn.Module):
    """ConvNeXt block with a causal depthwise convolution over time (left context `kernel - 1` frames)."""

    def __init__(self, channels: int, kernel: int, expansion: int, layer_scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, channels * expansion)
        self.contract = nn.Linear(channels * expansion, channels)
        self.scale = nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: x `[batch, time, channels]`, state `[batch, kernel - 1, channels]`; returns both updated."""
        extended = torch.cat([state, x], dim=1)
        y = self.depthwise(extended.transpose(1, 2)).transpose(1, 2)
        y = self.contract(F.gelu(self.expand(self.norm(y)), approximate="tanh"))
        return x + self.scale * y, extended[:, x.shape[1] :]


class MemoryBlock(nn.Module):
    """Long context: groups of channels are averaged over fixed time constants and mixed back through a gate.

    It stands where the paper's encoder has gated attention and a recurrent memory (FSMN): a linear recurrence
    sees seconds of causal context for the price of two small matrix products.
    """

    def __init__(self, channels: int, groups: int, layer_scale: float) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"channels={channels} is not a multiple of the {groups} time constants")
        self.groups = groups
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, x: Tensor, average: Averager, state: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: x `[batch, time, channels]`, state `[batch, groups, channels // groups]`; both updated."""
        value, gate = self.project(self.norm(x)).chunk(2, dim=-1)
        grouped = value.unflatten(-1, (self.groups, value.shape[-1] // self.groups))
        averages, state = average(grouped.float(), state)
        y = self.out(averages.flatten(-2).to(value.dtype) * F.silu(gate))
        return x + self.scale * y, state
