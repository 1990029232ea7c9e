"""Perceptual measures by the packages of the `eval` extra, imported when called: ViSQOL, PESQ, (E)STOI.

Same conventions as `hifispeech.evaluate.metrics`: reference first, `[time]` or `[channels, time]`, mean over
channels. Each of these measures knows one sample rate; signals of another are brought to it by
`hifispeech.audio.resample`.
"""

import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from types import ModuleType

import numpy as np

from hifispeech.audio.resample import resample
from hifispeech.errors import AudioError
from hifispeech.evaluate.metrics.pairs import Array, Float64, check_audible, check_pair

VISQOL_RATE = 48000
SPEECH_RATE = 16000


def visqol(reference: Array, estimate: Array, sample_rate: int = 48000, *, align: bool = True) -> float:
    """ViSQOL in audio mode: predicted mean opinion score, 1 (bad) to about 4.73 (equal), at 48 kHz.

    The measure here that hears the whole band. Trained on codecs and music: it is blind to overall level (it
    matches it first), forgives delays, and may miss artefacts of generators, such as a metallic ring.
    Resampled speech gets about 2.3 to 3.3, often more than a badly filled band. Signals of other rates are
    resampled to 48 kHz. Costs about 0.8 s of CPU per second of audio.

    Args:
        align: let ViSQOL search for delays, as the original does; `False` takes about half the time and gives
            about 0.01 less on aligned pairs.

    Raises:
        AudioError: if the pair cannot be compared, the estimate is silent or the clip too short.
        ImportError: without visqol-python.
    """
    api = _package("visqol").VisqolApi()
    api.create(mode="audio", disable_global_alignment=not align, disable_realignment=not align)

    def score(ref: Float64, est: Float64) -> float:
        return api.measure_from_arrays(ref, est, VISQOL_RATE).moslqo

    return _mean_score("ViSQOL", score, reference, estimate, sample_rate, VISQOL_RATE)


def pesq_wb(reference: Array, estimate: Array, sample_rate: int = 48000) -> float:
    """PESQ, wide band (ITU-T P.862.2): 1.04 to 4.64, at 16 kHz.

    Blind above 7 kHz: input of 16 kHz and more gets nearly full marks whatever is added. For input of 4 and
    8 kHz it judges how well the band up to there came back. Forgives level and delay. Other rates are
    resampled to 16 kHz.

    Raises:
        AudioError: if the pair cannot be compared, the estimate is silent, or PESQ finds no utterance.
        ImportError: without pesq.
    """
    module = _package("pesq")

    def score(ref: Float64, est: Float64) -> float:
        return module.pesq(SPEECH_RATE, ref.astype(np.float32), est.astype(np.float32), "wb")

    return _mean_score("PESQ", score, reference, estimate, sample_rate, SPEECH_RATE)


def stoi(reference: Array, estimate: Array, sample_rate: int = 48000, *, extended: bool = False) -> float:
    """Short-time objective intelligibility, or ESTOI if `extended`: about 0 to 1 (equal).

    Blind above 4.3 kHz (it works at 10 kHz inside): it says whether the kept band is still intelligible,
    nothing about the generated one. Blind to level. Other rates are resampled to 16 kHz first.

    Raises:
        AudioError: if the pair cannot be compared, the estimate is silent, or less than 0.4 s of speech is
        found. ImportError: without pystoi.
    """
    module = _package("pystoi")

    def score(ref: Float64, est: Float64) -> float:
        with warnings.catch_warnings():  # pystoi warns and returns 1e-5 where there is too little speech
            warnings.simplefilter("error", RuntimeWarning)
            return module.stoi(ref, est, SPEECH_RATE, extended=extended)

    return _mean_score("ESTOI" if extended else "STOI", score, reference, estimate, sample_rate, SPEECH_RATE)


def require(names: Iterable[str]) -> None:
    """Import the packages that these measures need.

    Raises:
        ImportError: naming the first that is missing.
    """
    packages = {"visqol": "visqol", "pesq": "pesq", "stoi": "pystoi", "estoi": "pystoi"}
    for name in names:
        if name in packages:
            _package(packages[name])


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f'{name} is not installed; run: pip install "hifispeech[eval]"') from error


def _mean_score(
    metric: str,
    score: Callable[[Float64, Float64], float],
    reference: Array,
    estimate: Array,
    sample_rate: int,
    rate: int,
) -> float:
    """Mean of `score(reference, estimate)` over channels at `rate`; a failure of it is an `AudioError`."""
    ref, est = check_pair(reference, estimate, sample_rate)
    check_audible(est, metric)
    if rate != sample_rate:
        ref, est = (resample(x.astype(np.float32), sample_rate, rate).astype(np.float64) for x in (ref, est))
    try:
        values = [float(score(a, b)) for a, b in zip(ref, est, strict=True)]
    except Exception as error:  # each package raises its own kinds for clips without enough speech
        raise AudioError(
            f"{metric} cannot score {ref.shape[1] / rate:.2f} s of audio ({error}); pass a longer clip"
        ) from error
    if not np.isfinite(values).all():
        raise AudioError(f"{metric} gave {values}; pass a longer clip")
    return float(np.mean(values))
