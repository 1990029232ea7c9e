"""Every metric by name: what it gives, which direction is better, what it hears and what it cannot hear."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hifispeech.evaluate.metrics import highband
from hifispeech.evaluate.metrics.activity import lsd_activity
from hifispeech.evaluate.metrics.cepstrum import mcd
from hifispeech.evaluate.metrics.measures import (
    Protocol,
    log_sispec,
    lsd,
    mr_stft,
    phase_distance,
    si_sdr,
    snr,
    ssim,
)
from hifispeech.evaluate.metrics.nisqa import USUAL_PLACE, VARIABLE, find_weights, nisqa
from hifispeech.evaluate.metrics.pairs import Array, Float64, check_pair
from hifispeech.evaluate.metrics.texture import texture

Best = Literal["low", "high", "one", "zero"]


@dataclass(frozen=True)
class Pair:
    """Two signals `[channels, time]` that can be compared, and what else a metric may need."""

    reference: Float64
    estimate: Float64
    sample_rate: int
    sample_rate_in: int | None = None
    nisqa_weights: Path | None = None

    @property
    def input_rate(self) -> int:
        """Raises: ValueError if the rate of the input is not known."""
        if self.sample_rate_in is None:
            raise ValueError("this metric judges the generated band; pass sample_rate_in, the input's rate")
        return self.sample_rate_in


@dataclass(frozen=True)
class Value:
    """A number in the tables: its title, and whether the lowest, the highest, 1 or 0 is best."""

    title: str
    best: Best = "low"
    decimals: int = 3


@dataclass(frozen=True)
class Metric:
    """A metric of the command line: the values it may give by name, what it hears, what it cannot hear."""

    compute: Callable[[Pair], Mapping[str, float | None]]
    values: Mapping[str, Value]
    hears: str
    deaf_to: str
    rate: str = "48 kHz"


def measure(
    reference: Array,
    estimate: Array,
    names: Sequence[str] = ("lsd", "lsd_p2", "si_sdr"),
    *,
    sample_rate: int = 48000,
    estimate_rate: int | None = None,
    sample_rate_in: int | None = None,
    nisqa_weights: Path | None = None,
) -> dict[str, float]:
    """Several measures of one pair by name: the keys of `MEASURES`; one measure may give several values.

    A value that is not defined for the pair, such as the LSD of quiet frames where there are none, is left
    out. `lsd` gives `lsd`, and `lsd_low` and `lsd_high` when `sample_rate_in` is passed; `phase` gives three.

    Args:
        nisqa_weights: the checkpoint for `nisqa`; see `hifispeech.evaluate.metrics.nisqa.find_weights`.

    Raises:
        AudioError: if the pair cannot be compared, also for `estimate_rate` other than `sample_rate`.
        ValueError: for an unknown name, or if a measure of the generated band has no `sample_rate_in`.
        ImportError: if a perceptual measure's package is not installed.
        ModelError: for `nisqa` without its weights.
    """
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise ValueError(f"unknown measure {unknown[0]!r}; choose from {', '.join(MEASURES)}")
    ref, est = check_pair(reference, estimate, sample_rate, estimate_rate)
    pair = Pair(ref, est, sample_rate, sample_rate_in, nisqa_weights)
    values: dict[str, float] = {}
    for name in names:
        found = MEASURES[name].compute(pair)
        values |= {key: value for key, value in found.items() if value is not None}
    return values


def metric_of(value: str) -> str:
    """The metric a value comes from, such as `lsd_p2` of `lsd_p2_high`; itself if it is unknown."""
    return next((name for name, metric in MEASURES.items() if value in metric.values), value)


def value_of(name: str) -> Value:
    """Title and direction of a value; of one that is unknown, its name, and lower is better."""
    return MEASURES[metric].values[name] if (metric := metric_of(name)) in MEASURES else Value(name)


def badness(name: str, number: float) -> float:
    """The number turned so that less is better."""
    best = value_of(name).best
    if best == "one":
        return abs(math.log(max(number, 1e-9)))
    return {"low": number, "high": -number, "zero": abs(number)}[best]


def all_metrics(nisqa_weights: Path | None = None) -> tuple[str, ...]:
    """All names; `nisqa` only if its weights are named or lie in their usual place.

    Raises:
        ModelError: weights that are named and not there.
    """
    if nisqa_weights is None and not (os.environ.get(VARIABLE) or USUAL_PLACE.expanduser().is_file()):
        return tuple(name for name in MEASURES if name != "nisqa")
    find_weights(nisqa_weights)
    return tuple(MEASURES)


def _lsd_metric(protocol: Protocol, prefix: str, hears: str) -> Metric:
    def compute(pair: Pair) -> dict[str, float | None]:
        result = lsd(
            pair.reference, pair.estimate, protocol, pair.sample_rate_in, sample_rate=pair.sample_rate
        )
        return {prefix: result.lsd, f"{prefix}_low": result.low, f"{prefix}_high": result.high}

    short = protocol.upper()
    values = {
        prefix: Value(f"LSD (protocol {short})"),
        f"{prefix}_low": Value(f"LSD below the input's Nyquist frequency ({short})"),
        f"{prefix}_high": Value(f"LSD above the input's Nyquist frequency ({short})"),
    }
    deaf_to = "phase; whether structure sounds right: mirrored spectra score too well"
    return Metric(compute, values, hears, deaf_to)


def _single(name: str, function: Callable[..., float], value: Value, hears: str, deaf_to: str) -> Metric:
    """A metric of one value that needs the pair alone."""
    return Metric(
        lambda pair: {name: function(pair.reference, pair.estimate, sample_rate=pair.sample_rate)},
        {name: value},
        hears,
        deaf_to,
    )


def _lsd_hf(pair: Pair) -> dict[str, float]:
    found = highband.lsd_hf(pair.reference, pair.estimate, pair.input_rate, sample_rate=pair.sample_rate)
    return {f"lsd_hf_{n_fft}": value for n_fft, value in found.items()}


def _lsd_activity(pair: Pair) -> dict[str, float | None]:
    found = lsd_activity(pair.reference, pair.estimate, pair.input_rate, sample_rate=pair.sample_rate)
    return {"lsd_quiet": found.quiet, "lsd_active": found.active}


def _contrast(pair: Pair) -> dict[str, float | None]:
    found = highband.envelope_contrast(
        pair.reference, pair.estimate, pair.input_rate, sample_rate=pair.sample_rate
    )
    return {"contrast_time": found.time, "contrast_frequency": found.frequency}


def _floor(pair: Pair) -> dict[str, float]:
    found = highband.floor_error(pair.reference, pair.estimate, pair.input_rate, sample_rate=pair.sample_rate)
    return {"floor_error": found.error_db, "floor_bias": found.bias_db}


def _above(
    name: str, function: Callable[..., float | None], value: Value, hears: str, deaf_to: str
) -> Metric:
    """A metric of one value that needs the input's rate."""

    def compute(pair: Pair) -> dict[str, float | None]:
        found = function(pair.reference, pair.estimate, pair.input_rate, sample_rate=pair.sample_rate)
        return {name: found}

    return Metric(compute, {name: value}, hears, deaf_to)


def _phase(pair: Pair) -> dict[str, float]:
    result = phase_distance(
        pair.reference,
        pair.estimate,
        sample_rate=pair.sample_rate,
        sample_rate_in=pair.sample_rate_in,
    )
    return {"phase_ip": result.phase, "phase_gd": result.group_delay, "phase_iaf": result.frequency}


def _perceptual(
    name: str, function: str, title: str, hears: str, deaf_to: str, rate: str, **options: bool
) -> Metric:
    def compute(pair: Pair) -> dict[str, float]:
        from hifispeech.evaluate.metrics import perceptual  # its packages are extras

        score = getattr(perceptual, function)
        return {name: score(pair.reference, pair.estimate, pair.sample_rate, **options)}

    return Metric(compute, {name: Value(title, "high")}, hears, deaf_to, rate)


_INTELLIGIBILITY = ("intelligibility", "everything above 4.3 kHz; level", "brought to 16 kHz")

MEASURES: dict[str, Metric] = {
    "lsd": _lsd_metric("p1", "lsd", "log-spectral distance, protocol P1 (NU-Wave, AP-BWE, UDM+)"),
    "lsd_p2": _lsd_metric(
        "p2",
        "lsd_p2",
        "log-spectral distance, protocol P2 (ssr_eval: NVSR, AudioSR, HiFi-SR), without digital silence",
    ),
    "lsd_hf": Metric(
        _lsd_hf,
        {
            f"lsd_hf_{n}": Value(f"LSD above the input's Nyquist frequency, {n} points")
            for n in highband.RESOLUTIONS
        },
        "LSD of the generated band at four frame sizes",
        "phase; whether structure sounds right. Noise made even for one size wins there only",
    ),
    "lsd_activity": Metric(
        _lsd_activity,
        {
            "lsd_quiet": Value("LSD above the input's Nyquist frequency, quiet frames"),
            "lsd_active": Value("LSD above the input's Nyquist frequency, active frames"),
        },
        "LSD of the generated band in pauses and in speech apart",
        "what LSD cannot hear; the boundary frames of words may fall to either side",
    ),
    "envelope": _above(
        "envelope",
        highband.envelope_error_db,
        Value("Envelope error in dB (third octaves x 20 ms above the input's band)", decimals=2),
        "level of the generated band, third octave by third octave",
        "pitch, texture, phase: all that is inside 1/3 octave x 20 ms",
    ),
    "contrast": Metric(
        _contrast,
        {
            "contrast_time": Value("Envelope contrast over time (generated / true)", "one"),
            "contrast_frequency": Value("Envelope contrast over frequency (generated / true)", "one"),
        },
        "grey, over-smooth (below 1) or exaggerated (above 1) envelopes",
        "where the variation is: another sentence's envelope scores well; level",
    ),
    "floor": Metric(
        _floor,
        {
            "floor_error": Value(
                "Noise floor error in dB (third octaves above the input's band)", decimals=2
            ),
            "floor_bias": Value("Noise floor in dB, generated minus true", "zero", 2),
        },
        "hiss in the pauses: too loud, too quiet, another colour",
        "everything outside the quietest tenth of the frames",
    ),
    "texture": _above(
        "texture",
        texture,
        Value("Texture distance (modulation spectra above the input's band)"),
        "a lattice, a buzz, too even a noise, a comb of wrong harmonics",
        "level, envelope, phase, and where in the clip a texture is",
    ),
    "mcd": _single(
        "mcd",
        mcd,
        Value("Mel-cepstral distortion in dB", decimals=2),
        "spectral shape, as speech synthesis measures it",
        "level, pitch, fine structure, phase; dull above 3 kHz, where half of its bands are",
    ),
    "kept_snr": _above(
        "kept_snr",
        highband.kept_snr,
        Value("SNR of the kept band in dB", "high", 2),
        "damage to the band that was there",
        "everything generated",
    ),
    "si_sdr": _single(
        "si_sdr",
        si_sdr,
        Value("SI-SDR in dB", "high", 2),
        "waveform with free gain",
        "nearly all of the high band, which has little energy; gain",
    ),
    "snr": _single(
        "snr",
        snr,
        Value("SNR in dB", "high", 2),
        "waveform",
        "nearly all of the high band, which has little energy",
    ),
    "log_sispec": _single(
        "log_sispec",
        log_sispec,
        Value("log-SISPEC in dB", "high", 2),
        "scale-invariant ratio of log-spectrograms",
        "phase",
    ),
    "ssim": _single(
        "ssim",
        ssim,
        Value("SSIM of spectrograms", "high"),
        "structural similarity of spectrogram pictures",
        "phase; what is 80 dB down",
    ),
    "mr_stft": _single(
        "mr_stft",
        mr_stft,
        Value("Multi-resolution STFT distance"),
        "multi-resolution STFT distance",
        "phase; half of it hears the loud low band only",
    ),
    "phase": Metric(
        _phase,
        {
            "phase_ip": Value("Instantaneous phase distance above the input's band"),
            "phase_gd": Value("Group delay distance above the input's band"),
            "phase_iaf": Value("Instantaneous angular frequency distance above the input's band"),
        },
        "instantaneous phase, group delay, angular frequency above the band",
        "magnitude: silent bins count like others",
    ),
    "nisqa": Metric(
        lambda pair: nisqa(pair.reference, pair.estimate, pair.sample_rate, weights=pair.nisqa_weights),
        {
            "nisqa": Value("NISQA (no reference, 48 kHz)", "high"),
            "nisqa_noisiness": Value("NISQA noisiness (5: none)", "high"),
            "nisqa_discontinuity": Value("NISQA discontinuity (5: none)", "high"),
            "nisqa_coloration": Value("NISQA coloration (5: none)", "high"),
            "nisqa_loudness": Value("NISQA loudness (5: optimal)", "high"),
        },
        "predicted opinion score without reference, and why: noise, breaks, colour, loudness",
        "whether voice and words are the same; the top octave, nearly, as it was trained on telephony",
    ),
    "visqol": _perceptual(
        "visqol",
        "visqol",
        "ViSQOL (audio mode, 48 kHz)",
        "predicted opinion score, audio mode; 0.8 s of CPU a second",
        "level, delay; artefacts of generators, as it was trained on codecs and music",
        "48 kHz",
    ),
    "pesq": _perceptual(
        "pesq",
        "pesq_wb",
        "PESQ-WB (blind above 7 kHz)",
        "PESQ-WB",
        "everything above 7 kHz; level, delay",
        "brought to 16 kHz",
    ),
    "stoi": _perceptual("stoi", "stoi", "STOI (blind above 4.3 kHz)", *_INTELLIGIBILITY),
    "estoi": _perceptual("estoi", "stoi", "ESTOI (blind above 4.3 kHz)", *_INTELLIGIBILITY, extended=True),
}
