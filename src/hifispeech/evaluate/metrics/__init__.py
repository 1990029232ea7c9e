"""Objective measures of speech super-resolution: spectra, waveforms, phases; perceptual ones by name."""

from hifispeech.evaluate.metrics.measures import (
    LSD,
    MEASURES,
    PhaseDistance,
    Protocol,
    log_sispec,
    lsd,
    measure,
    mr_stft,
    phase_distance,
    si_sdr,
    snr,
    split_bin,
    ssim,
)
from hifispeech.evaluate.metrics.pairs import check_audible, check_pair

__all__ = [
    "LSD",
    "MEASURES",
    "PhaseDistance",
    "Protocol",
    "check_audible",
    "check_pair",
    "log_sispec",
    "lsd",
    "measure",
    "mr_stft",
    "phase_distance",
    "si_sdr",
    "snr",
    "split_bin",
    "ssim",
]
