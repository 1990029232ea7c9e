"""Objective measures of speech super-resolution: spectra, waveforms, phases; perceptual ones by name."""

from hifispeech.evaluate.metrics.activity import ActivityLSD, lsd_activity
from hifispeech.evaluate.metrics.catalogue import (
    MEASURES,
    Metric,
    Value,
    all_metrics,
    badness,
    measure,
    metric_of,
    value_of,
)
from hifispeech.evaluate.metrics.cepstrum import mcd
from hifispeech.evaluate.metrics.highband import (
    Contrast,
    FloorError,
    envelope_contrast,
    envelope_error_db,
    floor_error,
    kept_snr,
    lsd_hf,
)
from hifispeech.evaluate.metrics.measures import (
    LSD,
    PhaseDistance,
    Protocol,
    log_sispec,
    lsd,
    mr_stft,
    phase_distance,
    si_sdr,
    silent_frames,
    snr,
    split_bin,
    ssim,
)
from hifispeech.evaluate.metrics.pairs import check_audible, check_pair
from hifispeech.evaluate.metrics.texture import texture

__all__ = [
    "LSD",
    "MEASURES",
    "ActivityLSD",
    "Contrast",
    "FloorError",
    "Metric",
    "PhaseDistance",
    "Protocol",
    "Value",
    "all_metrics",
    "badness",
    "check_audible",
    "check_pair",
    "envelope_contrast",
    "envelope_error_db",
    "floor_error",
    "kept_snr",
    "log_sispec",
    "lsd",
    "lsd_activity",
    "lsd_hf",
    "mcd",
    "measure",
    "metric_of",
    "mr_stft",
    "phase_distance",
    "si_sdr",
    "silent_frames",
    "snr",
    "split_bin",
    "ssim",
    "texture",
    "value_of",
]
