"""Torch twin of `hifispeech.audio.spectral` (tested equal)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def stft(audio: Tensor, n_fft: int = 2048, hop: int = 512, pad_mode: str = "reflect") -> Tensor:
    """Centred Hann STFT. Shape: `[..., time]` to complex `[..., 1 + time // hop, n_fft // 2 + 1]`."""
    window = torch.hann_window(n_fft, periodic=True, dtype=audio.dtype, device=audio.device)
    flat = audio.reshape(-1, audio.shape[-1])
    if pad_mode == "reflect" and audio.shape[-1] <= n_fft // 2:
        flat = F.pad(flat, (0, n_fft // 2 + 1 - audio.shape[-1]))
    padded = F.pad(flat[:, None], (n_fft // 2, n_fft // 2), mode=pad_mode)[:, 0]
    count = 1 + audio.shape[-1] // hop
    spectrum = torch.fft.rfft(padded.unfold(-1, n_fft, hop)[:, :count] * window)
    return spectrum.reshape(*audio.shape[:-1], count, n_fft // 2 + 1)


def istft(spectrum: Tensor, length: int, n_fft: int = 2048, hop: int = 512) -> Tensor:
    """Inverse by weighted overlap-add. Shape: complex `[..., frames, bins]` to `[..., length]`."""
    real = torch.float32 if spectrum.dtype == torch.complex64 else torch.float64
    window = torch.hann_window(n_fft, periodic=True, dtype=real, device=spectrum.device)
    flat = spectrum.reshape(-1, *spectrum.shape[-2:])
    blocks = torch.fft.irfft(flat, n=n_fft) * window
    total = (flat.shape[1] - 1) * hop + n_fft
    weights = (window * window)[None, :, None].expand(1, -1, flat.shape[1])
    size, stride = (1, total), (1, hop)
    signal = F.fold(blocks.transpose(1, 2), size, (1, n_fft), stride=stride)[:, 0, 0]
    weight = F.fold(weights, size, (1, n_fft), stride=stride)[0, 0, 0].clamp(min=1e-8)
    start = n_fft // 2
    trimmed = signal[:, start : start + length] / weight[start : start + length]
    return trimmed.reshape(*spectrum.shape[:-2], length)
