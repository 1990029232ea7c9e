"""A network of Vocos' shape, for speed only: random weights, 8 ConvNeXt blocks, inverse-STFT head.

100 mel bands in, n_fft 2048 and hop 512 at 48 kHz out: log-magnitude and phase of 1025 bins, as real and
imaginary parts. 13.5 M parameters are those of its 24 kHz original with n_fft 1024; the head of 2050 outputs
brings it to 14.06 M.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MELS, CHANNELS, HIDDEN, BLOCKS, KERNEL, BINS = 100, 512, 1536, 8, 7, 1025


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a perceptron per frame. Shape: `[batch, channels, time]` kept."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(CHANNELS, CHANNELS, KERNEL, padding=KERNEL // 2, groups=CHANNELS)
        self.norm = nn.LayerNorm(CHANNELS, eps=1e-6)
        self.expand = nn.Linear(CHANNELS, HIDDEN)
        self.project = nn.Linear(HIDDEN, CHANNELS)
        self.scale = nn.Parameter(torch.full((CHANNELS,), 1 / BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).transpose(1, 2))
        y = self.project(F.gelu(self.expand(y))) * self.scale
        return x + y.transpose(1, 2)


class VocosShaped(nn.Module):
    """Shape: mel `[batch, 100, time]` to spectrum `[batch, 2, 1025, time]` (real, imaginary)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(MELS, CHANNELS, KERNEL, padding=KERNEL // 2)
        self.first_norm = nn.LayerNorm(CHANNELS, eps=1e-6)
        self.blocks = nn.Sequential(*(ConvNeXtBlock() for _ in range(BLOCKS)))
        self.last_norm = nn.LayerNorm(CHANNELS, eps=1e-6)
        self.head = nn.Linear(CHANNELS, 2 * BINS)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.first_norm(self.embed(mel).transpose(1, 2)).transpose(1, 2)
        x = self.last_norm(self.blocks(x).transpose(1, 2))
        log_magnitude, phase = self.head(x).transpose(1, 2).chunk(2, dim=1)
        magnitude = torch.exp(log_magnitude).clamp(max=100.0)
        return torch.stack([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=1)


def export(path: Path, seed: int) -> int:
    """Write the network as ONNX with a free number of frames; returns its number of parameters."""
    torch.manual_seed(seed)
    model = VocosShaped().eval()
    frames = torch.export.Dim("frames", min=2, max=1 << 20)
    torch.onnx.export(
        model,
        (torch.zeros(1, MELS, 94),),
        str(path),
        input_names=["mel"],
        output_names=["spectrum"],
        dynamic_shapes=({2: frames},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return sum(p.numel() for p in model.parameters())
