"""The network of the HiFi-SR paper: mel, MossFormer2 encoder, HiFi-GAN decoder with Snake (PyTorch)."""

from hifispeech.models.hifisr.config import (
    HIFISR_CONFIGS,
    DecoderConfig,
    EncoderConfig,
    HiFiSRConfig,
    MelConfig,
    hifisr_paper,
    hifisr_small,
)
from hifispeech.models.hifisr.mel import LogMel, mel_filterbank
from hifispeech.models.hifisr.model import HiFiSR, count_parameters, export_onnx, load_hifisr, save_hifisr

__all__ = [
    "HIFISR_CONFIGS",
    "DecoderConfig",
    "EncoderConfig",
    "HiFiSR",
    "HiFiSRConfig",
    "LogMel",
    "MelConfig",
    "count_parameters",
    "export_onnx",
    "hifisr_paper",
    "hifisr_small",
    "load_hifisr",
    "mel_filterbank",
    "save_hifisr",
]
