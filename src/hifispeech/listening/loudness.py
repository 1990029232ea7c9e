"""Loudness after ITU-R BS.1770 (pyloudnorm), for clips of any length, and the gains that match it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

BLOCK_S = 0.4  # the gating block of BS.1770; a shorter clip is one block of its own length
HIGHEST_PEAK = 10 ** (-1 / 20)  # 1 dB is left for the overshoot of converters


def loudness_lufs(audio: np.ndarray, sample_rate: int) -> float:
    """Gated loudness in LUFS; -inf for silence and all that stays below the -70 LUFS gate.

    Shape: `[channels, time]`, at most 5 channels.

    Raises:
        ImportError: without pyloudnorm.
    """
    try:
        from pyloudnorm import Meter
    except ImportError as error:
        raise ImportError('pyloudnorm is not installed; run: pip install "hifispeech[eval]"') from error

    samples = np.asarray(audio, np.float64).T
    block_s = BLOCK_S
    if len(samples) <= BLOCK_S * sample_rate:
        block_s = (len(samples) + 0.5) / sample_rate  # half a sample more, since the meter rounds down
        samples = np.pad(samples, ((0, 1), (0, 0)))
    meter = Meter(sample_rate, block_size=block_s)
    with np.errstate(all="ignore"):
        return float(meter.integrated_loudness(samples))


def matched_gains(
    stimuli: Mapping[str, np.ndarray], sample_rate: int, target_lufs: float
) -> tuple[dict[str, float], float]:
    """The linear gain of each stimulus that makes all equally loud, and the loudness they then have.

    That is `target_lufs`, or less where a stimulus would come above -1 dB full scale: all are turned down
    together then.

    Raises:
        ValueError: naming the stimulus that is silent.
    """
    gains = {}
    for name, audio in stimuli.items():
        found = loudness_lufs(audio, sample_rate)
        if not math.isfinite(found):
            raise ValueError(f"{name} is silent or below -70 LUFS, so its loudness cannot be matched")
        gains[name] = 10 ** ((target_lufs - found) / 20)
    peak = max(gains[name] * float(np.abs(audio).max()) for name, audio in stimuli.items())
    down = min(1.0, HIGHEST_PEAK / peak)
    return {name: gain * down for name, gain in gains.items()}, target_lufs + 20 * math.log10(down)
