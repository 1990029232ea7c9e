"""Log-mel front end: the Slaney filter bank and the module that feeds the encoder."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hifispeech.models.hifisr.config import MelConfig
from hifispeech.models.layers import full_precision

# Slaney's scale (Auditory Toolbox): linear to 1 kHz at 3 mel per 200 Hz, then 27 mel for each factor of 6.4.
_HZ_PER_MEL = 200 / 3
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def hz_to_mel(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Slaney mel of a frequency in Hz."""
    hz = np.asarray(hz, dtype=np.float64)
    above = _KNEE_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz / _HZ_PER_MEL, above)


def mel_to_hz(mel: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Frequency in Hz of a Slaney mel."""
    mel = np.asarray(mel, dtype=np.float64)
    above = _KNEE_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _KNEE_MEL) - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, above)


@lru_cache(maxsize=32)
def mel_filterbank(
    sample_rate: int, n_fft: int, n_mels: int, f_min_hz: float, f_max_hz: float
) -> npt.NDArray[np.float32]:
    """Triangular filters of equal area, `[n_mels, n_fft // 2 + 1]` (read-only: it is shared).

    >>> mel_filterbank(48000, 1024, 80, 0.0, 8000.0).shape
    (80, 513)
    """
    bins_hz = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    edges_hz = mel_to_hz(np.linspace(hz_to_mel(f_min_hz), hz_to_mel(f_max_hz), n_mels + 2))
    left, centre, right = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (bins_hz - left) / (centre - left)
    falling = (right - bins_hz) / (right - centre)
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)
    filters = filters.astype(np.float32)
    filters.setflags(write=False)
    return filters


class LogMel(nn.Module):
    """Waveform to natural-log mel magnitudes.

    Shape: `[batch, 1, time]` to `[batch, n_mels, time // hop]` for whole hops. Needs more than
    (n_fft - hop) / 2 samples, the reach of the reflect padding. Always float32, under autocast too: the log
    of a bfloat16 magnitude loses the quiet frames.
    """

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        bank = mel_filterbank(
            config.sample_rate, config.n_fft, config.n_mels, config.f_min_hz, config.f_max_hz
        )
        self.register_buffer("filters", torch.tensor(bank), persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.filters: Tensor
        self.window: Tensor

    def forward(self, audio: Tensor) -> Tensor:
        c = self.config
        with full_precision(audio.device):
            side = (c.n_fft - c.hop) // 2
            padded = F.pad(audio.float(), (side, side), mode="reflect").squeeze(1)
            spectrum = torch.stft(
                padded, c.n_fft, c.hop, window=self.window, center=False, onesided=True, return_complex=True
            )
            parts = torch.view_as_real(spectrum)
            magnitude = parts.square().sum(-1).add(c.power_floor).sqrt()
            return (self.filters @ magnitude).clamp_min(c.mel_floor).log()
