"""MossFormer2 encoder: gated single-head attention (FLASH family) and gated FSMN blocks.

Inside the blocks tensors are `[batch, frames, channels]`, so that every projection is one matrix product; the
encoder itself keeps the package's `[batch, channels, frames]` at its borders.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hifispeech.models.conv import Conv1d
from hifispeech.models.hifisr.config import EncoderConfig


class ScaleNorm(nn.Module):
    """Divide each frame by its root mean square, times one learned gain. Shape: `[..., channels]`, kept."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        # vector_norm, not sqrt of a mean: its gradient at an all-zero frame is 0, not NaN.
        rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        return x / rms.clamp_min(self.eps) * self.gain


class ConvProjection(nn.Module):
    """Norm, linear, SiLU, depthwise convolution with a skip. Shape: `[b, t, c_in]` to `[b, t, c_out]`."""

    def __init__(self, norm: nn.Module, c_in: int, c_out: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = norm
        self.linear = nn.Linear(c_in, c_out)
        self.conv = Conv1d(c_out, c_out, kernel, padding=kernel // 2, groups=c_out, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.linear(self.norm(x)))
        x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(x)


class Rotary(nn.Module):
    """Rotary position: turns neighbouring channel pairs by an angle that grows with the frame number."""

    def __init__(self, channels: int, base: float = 10000.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", base ** (-torch.arange(0, channels, 2) / channels))
        self.frequencies: Tensor

    def angles(self, frames: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each `[frames, 1, channels / 2]` (the middle axis meets the four heads)."""
        time = torch.arange(frames, device=self.frequencies.device, dtype=self.frequencies.dtype)
        angle = (time[:, None] * self.frequencies)[:, None]
        return angle.cos(), angle.sin()

    @staticmethod
    def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Turn the first channels of `x`, `[batch, frames, heads, channels]`; the rest passes through."""
        turned = 2 * cosine.shape[-1]
        first, second = x[..., 0:turned:2], x[..., 1:turned:2]
        pairs = torch.stack((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
        return torch.cat((pairs.flatten(-2).to(x.dtype), x[..., turned:]), dim=-1)


class GatedAttention(nn.Module):
    """Quadratic attention within groups plus linear attention over everything, gating a value by itself.

    One shared query/key projection is scaled and shifted into four: quadratic and linear queries and keys.
    Squared ReLU replaces the softmax, so `scaled_dot_product_attention` does not apply; all groups go through
    one batched matrix product, and v and u (side by side in `hidden`) share it. Shape: `[batch, frames,
    width]`, kept.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.group = config.group
        kernel, dropout, width = config.kernel, config.dropout, config.width
        self.to_hidden = ConvProjection(ScaleNorm(), width, config.hidden, kernel, dropout)
        self.to_qk = ConvProjection(ScaleNorm(), width, config.query_key, kernel, dropout)
        self.to_out = ConvProjection(ScaleNorm(), config.hidden // 2, width, kernel, dropout)
        self.head_scale = nn.Parameter(torch.randn(4, config.query_key) * 0.02)
        self.head_shift = nn.Parameter(torch.zeros(4, config.query_key))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        late, kept = x.chunk(2, dim=-1)
        shifted = torch.cat(
            (F.pad(late[:, :-1], (0, 0, 1, 0)), kept), dim=-1
        )  # half the channels see one frame back
        hidden = self.to_hidden(shifted)
        heads = self.to_qk(shifted).unsqueeze(-2) * self.head_scale + self.head_shift
        attended = self._attend(Rotary.rotate(heads, cosine, sine), hidden)
        value, gate = hidden.chunk(2, dim=-1)
        value_seen, gate_seen = attended.chunk(2, dim=-1)
        return x + self.to_out(gate_seen * value * torch.sigmoid(value_seen * gate))

    def _attend(self, heads: Tensor, hidden: Tensor) -> Tensor:
        """`heads` `[b, t, 4, qk]` and `hidden` `[b, t, h]` to `[b, t, h]`."""
        batch, frames, channels = hidden.shape
        local_q, global_q, local_k, global_k = heads.unbind(dim=-2)
        summary = global_k.transpose(1, 2) @ hidden / frames
        # The last group is filled up with zeros: a zero key scores relu(0)^2 = 0, so no mask is needed.
        fill = (0, 0, 0, -frames % self.group)
        q, k, v = (
            F.pad(part, fill).reshape(batch, -1, self.group, part.shape[-1])
            for part in (local_q, local_k, hidden)
        )
        scores = self.dropout(F.relu(q @ k.transpose(-1, -2) / self.group).square())
        local = (scores @ v).reshape(batch, -1, channels)[:, :frames]
        return local + global_q @ summary


class Memory(nn.Module):
    """FSMN: a deep projection plus its weighted neighbours, added to the input. Shape: `[b, t, c]`, kept."""

    def __init__(self, width: int, order: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.project = nn.Linear(width, width, bias=False)
        self.conv = Conv1d(width, width, 2 * order - 1, padding=order - 1, groups=width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        state = self.project(F.relu(self.linear(x)))
        return x + state + self.conv(state.transpose(1, 2)).transpose(1, 2)


class GatedFSMN(nn.Module):
    """Bottleneck around a memory gated by a second projection. Shape: `[batch, frames, width]`, kept."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        inner = config.fsmn_width
        self.enter = nn.Linear(config.width, inner)
        self.activation = nn.PReLU()
        self.norm_in = nn.LayerNorm(inner)
        self.to_u = ConvProjection(nn.LayerNorm(inner), inner, inner, config.kernel, config.dropout)
        self.to_v = ConvProjection(nn.LayerNorm(inner), inner, inner, config.kernel, config.dropout)
        self.memory = Memory(inner, config.fsmn_order)
        self.norm_out = nn.LayerNorm(inner)
        self.leave = nn.Linear(inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_in(self.activation(self.enter(x)))
        y = y + self.to_v(y) * self.memory(self.to_u(y))
        return x + self.leave(self.norm_out(y))


class SinusoidalPosition(nn.Module):
    """Sines then cosines of the frame number, scaled by one learned gain. `[1, channels, frames]`."""

    def __init__(self, channels: int, base: float = 10000.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("frequencies", base ** (-torch.arange(0, channels, 2) / channels))
        self.frequencies: Tensor

    def forward(self, frames: int) -> Tensor:
        time = torch.arange(frames, device=self.frequencies.device, dtype=self.frequencies.dtype)
        angle = self.frequencies[:, None] * time
        return torch.cat((angle.sin(), angle.cos()))[None] * self.scale


class Encoder(nn.Module):
    """Log-mel to a latent >= 0. Shape: `[batch, mels, frames]` to `[batch, latent, frames]`.

    Two normalisations run over all frames, so the output depends on the whole window it is given.
    """

    def __init__(self, mels: int, latent: int, config: EncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_in = nn.GroupNorm(1, mels, eps=1e-8)
        self.enter = nn.Conv1d(mels, width, 1, bias=False)
        self.position = SinusoidalPosition(width)
        self.rotary = Rotary(config.rotary)
        self.attention = nn.ModuleList(GatedAttention(config) for _ in range(config.depth))
        self.fsmn = nn.ModuleList(GatedFSMN(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.norm_out = nn.GroupNorm(1, width, eps=1e-8)
        self.activation = nn.PReLU()
        self.mix = nn.Conv1d(width, width, 1)
        self.signal = nn.Conv1d(width, width, 1)
        self.gate = nn.Conv1d(width, width, 1)
        self.leave = nn.Conv1d(width, latent, 1, bias=False)

    def forward(self, mel: Tensor) -> Tensor:
        frames = mel.shape[-1]
        start = self.enter(self.norm_in(mel)) + self.position(frames)
        cosine, sine = self.rotary.angles(frames)
        x = start.transpose(1, 2)
        for attention, fsmn in zip(self.attention, self.fsmn, strict=True):
            x = fsmn(attention(x, cosine, sine))
        x = self.norm_out(self.norm(x).transpose(1, 2)) + start
        x = self.mix(self.activation(x))
        x = torch.tanh(self.signal(x)) * torch.sigmoid(self.gate(x))
        return F.relu(self.leave(x))
