"""Seeded low-rate simulation for training and tests: what a real low-band recording went through.

A `DegradeSpec` says everything that happens to a clip; `apply` carries it out and is a pure function of
its arguments, so a spec written to a log reproduces its clip. The chain is: low-pass filter -> target rate ->
mild noise -> codec round trip -> (optionally) back to another rate. Length and alignment are kept: filters
are zero-phase or have their delay removed, codec delay is measured by cross-correlation and removed.

The filters need SciPy, which comes with `pip install "hifispeech[train]"`; it is imported when first needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import soxr

from hifispeech.audio.degrade.codecs import (
    CODECS,
    codec_probe,
    good_length,
    padded,
    round_trip,
)

FAMILIES = ("butterworth", "chebyshev1", "chebyshev2", "elliptic", "bessel", "fir", "fft", "soxr")
FIR_WINDOWS = ("boxcar", "hann", "hamming", "blackman", "kaiser6", "kaiser10")
COMMON_RATES = (4000, 6000, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100)

# soxr VHQ's own low-pass: frequency as a share of the lower rate's Nyquist, gain in dB (measured; see tests).
_SOXR_EDGE = np.array([0.92, 0.933, 0.943, 0.95, 0.9556, 0.9688, 0.9785, 0.985, 0.9935, 1.0])
_SOXR_DB = np.array([0.0, -0.1, -1.0, -3.0, -6.0, -20.0, -40.0, -60.0, -100.0, -140.0])


@dataclass(frozen=True)
class DegradeSpec:
    """One degradation.

    `cutoff_hz` is the filter's -6 dB point, whatever the family ("soxr" and "fft" with a cutoff at the
    target Nyquist are the plain resamplers). `fir_transition` is the FIR's transition width as a share of the
    cutoff: 0.02 is nearly a brick wall, 0.6 a gentle slope. `noise_db` is the signal-to-noise ratio in dB of
    white noise added at the low rate (None: none). `seed` drives that noise.
    """

    target_rate: int
    cutoff_hz: float
    family: str = "soxr"
    order: int = 8
    ripple_db: float = 0.5
    stop_db: float = 60.0
    fir_window: str = "hamming"
    fir_transition: float = 0.1
    zero_phase: bool = True
    codec: str | None = None
    bit_rate: int = 0
    noise_db: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises: ValueError naming the field, its value and what is allowed."""
        if self.family not in FAMILIES:
            raise ValueError(f"family={self.family!r} is unknown; choose one of {', '.join(FAMILIES)}")
        if self.fir_window not in FIR_WINDOWS:
            raise ValueError(
                f"fir_window={self.fir_window!r} is unknown; choose one of {', '.join(FIR_WINDOWS)}"
            )
        if not 0 < self.cutoff_hz <= self.target_rate / 2:
            raise ValueError(
                f"cutoff_hz={self.cutoff_hz:g} is outside (0, {self.target_rate / 2:g}], half of target_rate"
            )
        if self.codec is not None and self.codec not in CODECS:
            raise ValueError(f"codec={self.codec!r} is unknown; choose one of {', '.join(CODECS)}")
        if self.codec is not None and self.target_rate not in CODECS[self.codec][0]:
            raise ValueError(
                f"target_rate={self.target_rate} does not suit {self.codec}; allowed: {CODECS[self.codec][0]}"
            )


def sample_degradation(
    rng: np.random.Generator,
    *,
    min_rate: int = 2000,
    max_rate: int = 44100,
    families: Sequence[str] = FAMILIES,
    codecs: Sequence[str] = (),
    codec_probability: float = 0.0,
    noise_probability: float = 0.2,
) -> DegradeSpec:
    """Draw a degradation; the same generator state gives the same spec.

    Half of the target rates are common ones, half log-uniform in [min_rate, max_rate]. `codecs` are drawn
    with `codec_probability`; pass `available_codecs()` for all this build can encode.

    Raises: ValueError where the rates are not 2000 <= min_rate <= max_rate <= 44100, or no family is given.
    """
    if not 2000 <= min_rate <= max_rate <= 44100:
        raise ValueError(
            f"rates {min_rate}..{max_rate} are outside 2000..44100; pass min_rate <= max_rate in it"
        )
    if not families:
        raise ValueError(f"families is empty; pass some of {', '.join(FAMILIES)}")
    codec = str(rng.choice(list(codecs))) if codecs and rng.random() < codec_probability else None
    allowed = CODECS[codec][0] if codec else COMMON_RATES
    common = [rate for rate in allowed if min_rate <= rate <= max_rate]
    if codec and not common:
        codec = None
    if common and (codec or rng.random() < 0.5):
        rate = int(rng.choice(common))
    else:
        rate = round(math.exp(rng.uniform(math.log(min_rate), math.log(max_rate))))
    family = str(rng.choice(list(families)))
    share = 1.0 if family == "soxr" else float(rng.uniform(0.8, 1.0))
    bit_rates = CODECS[codec][1] if codec else ()
    return DegradeSpec(
        target_rate=rate,
        cutoff_hz=share * rate / 2,
        family=family,
        order=int(rng.integers(4, 13)),
        ripple_db=float(rng.uniform(0.05, 1.0)),
        stop_db=float(rng.uniform(40.0, 80.0)),
        fir_window=str(rng.choice(FIR_WINDOWS)),
        fir_transition=float(math.exp(rng.uniform(math.log(0.02), math.log(0.6)))),
        zero_phase=bool(rng.random() < 0.5),
        codec=codec,
        bit_rate=int(rng.choice(bit_rates)) if bit_rates else 0,
        noise_db=float(rng.uniform(35.0, 65.0)) if rng.random() < noise_probability else None,
        seed=int(rng.integers(2**31)),
    )


def magnitude_response(
    spec: DegradeSpec, frequencies_hz: np.ndarray, *, sample_rate: int = 48000, rate_out: int | None = None
) -> np.ndarray:
    """Linear gain of filter and resampling at `frequencies_hz` (any shape; same shape float64 back).

    `sample_rate` is that of the audio the filter runs on; `rate_out` as in `apply` adds the roll-off of the
    resampling to that rate. Noise and codec are not in it.

    Raises: ValueError for a frequency below 0.
    """
    freqs = np.asarray(frequencies_hz, dtype=np.float64)
    if freqs.size and freqs.min() < 0:
        raise ValueError(f"frequencies_hz holds {freqs.min():g}; pass values from 0 up")
    nyquist = min(spec.target_rate, sample_rate) / 2
    gain = np.where(freqs <= nyquist, 1.0, 0.0)
    if spec.family == "soxr":
        if spec.target_rate != sample_rate:
            gain = gain * _soxr_gain(freqs / nyquist)
        if spec.cutoff_hz < 0.98 * spec.target_rate / 2:
            gain = gain * _soxr_gain(freqs * 0.95 / spec.cutoff_hz) ** 2
    elif spec.family == "fft":
        gain = gain * (freqs <= spec.cutoff_hz)
    elif spec.cutoff_hz < 0.49 * sample_rate:
        signal = _scipy_signal()
        coefficients = _design(spec, sample_rate)
        omega = np.minimum(freqs, sample_rate / 2).ravel() * (2 * math.pi / sample_rate)
        response = signal.freqz if spec.family == "fir" else signal.sosfreqz
        gain = gain * np.abs(response(coefficients, worN=omega)[1]).reshape(freqs.shape)
    if rate_out is not None and rate_out != spec.target_rate:
        gain = gain * _soxr_gain(freqs / (min(rate_out, spec.target_rate) / 2))
    return gain


def effective_cutoff(spec: DegradeSpec, *, sample_rate: int = 48000, rate_out: int | None = None) -> float:
    """Frequency in Hz at which the whole chain, codec included, has lost 6 dB."""
    top = min(spec.target_rate, sample_rate) / 2
    freqs = np.linspace(0.0, top, 4097)
    lost = np.flatnonzero(
        magnitude_response(spec, freqs, sample_rate=sample_rate, rate_out=rate_out) < 0.5012
    )
    edge = float(freqs[lost[0]]) if lost.size else top
    return min(edge, codec_probe(spec.codec, spec.target_rate, spec.bit_rate)[1]) if spec.codec else edge


def apply(
    audio: np.ndarray, sample_rate: int, spec: DegradeSpec, *, rate_out: int | None = None
) -> tuple[np.ndarray, int, float]:
    """Degrade `audio` ([time] or [channels, time], nominal +-1).

    Returns `(degraded, rate, effective_cutoff_hz)`: float32 of the same layout at `rate`, which is
    `spec.target_rate` or `rate_out` (48000: the band-limited clip at full rate), with
    round(n * rate / sample_rate) samples, aligned with the input. A target rate above `sample_rate` is
    allowed and adds no band.

    Raises: ValueError for another shape; AudioError where this build cannot encode the codec.
    """
    x = np.asarray(audio, dtype=np.float64)
    if x.ndim not in (1, 2):
        raise ValueError(f"audio has shape {x.shape}; pass [time] or [channels, time]")
    length = round(x.shape[-1] * spec.target_rate / sample_rate)
    if x.shape[-1] and length:
        x = _lowpass(np.atleast_2d(x), sample_rate, spec)
        x = _to_rate(x, sample_rate, spec.target_rate, length, brick_wall=spec.family != "soxr")
        if spec.noise_db is not None:
            x = _add_noise(x, spec.noise_db, spec.seed)
        if spec.codec is not None:
            delay = codec_probe(spec.codec, spec.target_rate, spec.bit_rate)[0]
            x = np.stack([round_trip(c, spec.codec, spec.target_rate, spec.bit_rate, delay) for c in x])
        if rate_out is not None:
            length = round(np.shape(audio)[-1] * rate_out / sample_rate)
            x = _to_rate(x, spec.target_rate, rate_out, length, brick_wall=False)
    else:
        length = round(np.shape(audio)[-1] * (rate_out or spec.target_rate) / sample_rate)
        x = np.zeros((np.atleast_2d(x).shape[0], length))
    out = np.ascontiguousarray(x if np.ndim(audio) == 2 else x[0], dtype=np.float32)
    return (
        out,
        rate_out or spec.target_rate,
        effective_cutoff(spec, sample_rate=sample_rate, rate_out=rate_out),
    )


def _scipy_signal() -> ModuleType:
    try:
        import scipy.signal
    except ImportError as error:
        raise ImportError('degradation filters need SciPy; pip install "hifispeech[train]"') from error
    return scipy.signal


def _soxr_gain(share_of_nyquist: np.ndarray) -> np.ndarray:
    return 10 ** (np.interp(share_of_nyquist, _SOXR_EDGE, _SOXR_DB) / 20)


@lru_cache(maxsize=4096)
def _design(spec: DegradeSpec, sample_rate: int) -> np.ndarray:
    """FIR taps [n] or second-order sections [sections, 6], scaled so that -6 dB falls on `spec.cutoff_hz`."""
    signal = _scipy_signal()
    if spec.family == "fir":
        taps = int(3.3 * sample_rate / (spec.fir_transition * spec.cutoff_hz)) | 1
        window: Any = (
            ("kaiser", float(spec.fir_window[6:]))
            if spec.fir_window.startswith("kaiser")
            else spec.fir_window
        )
        return signal.firwin(min(max(taps, 9), 8191), spec.cutoff_hz, window=window, fs=sample_rate)
    target = math.tan(math.pi * spec.cutoff_hz / sample_rate)
    # A low-pass scaled in the analogue domain keeps its shape: one correction puts -6 dB where it is wanted.
    edge = 0.5 * math.atan(target) * 2 / math.pi
    first = _iir(signal, spec, edge)
    grid = np.concatenate([np.linspace(edge * 0.3, edge, 2000), np.linspace(edge, 0.4999, 2000)[1:]])
    gain = np.abs(signal.sosfreqz(first, worN=grid * 2 * math.pi)[1])
    lost = np.flatnonzero(gain < 0.5012)
    found = float(grid[lost[0]]) if lost.size else edge
    corrected = math.atan(target * target / math.tan(math.pi * found)) / math.pi
    return _iir(signal, spec, min(max(corrected, 1e-4), 0.4995))


def _iir(signal: ModuleType, spec: DegradeSpec, edge: float) -> np.ndarray:
    """Second-order sections with the family's own edge at `edge` cycles per sample."""
    kinds = {
        "butterworth": lambda: signal.butter(spec.order, 2 * edge, output="sos"),
        "chebyshev1": lambda: signal.cheby1(spec.order, spec.ripple_db, 2 * edge, output="sos"),
        "chebyshev2": lambda: signal.cheby2(spec.order, spec.stop_db, 2 * edge, output="sos"),
        "elliptic": lambda: signal.ellip(spec.order, spec.ripple_db, spec.stop_db, 2 * edge, output="sos"),
        "bessel": lambda: signal.bessel(spec.order, 2 * edge, norm="mag", output="sos"),
    }
    return kinds[spec.family]()


def _lowpass(x: np.ndarray, sample_rate: int, spec: DegradeSpec) -> np.ndarray:
    """[channels, time] through the spec's filter, aligned with the input."""
    length = x.shape[-1]
    if spec.family == "soxr":
        if spec.cutoff_hz >= 0.98 * spec.target_rate / 2:
            return x
        between = round(2 * spec.cutoff_hz / 0.95)  # there and back: twice -3 dB
        low_length = max(1, round(length * between / sample_rate))
        low = _to_rate(x, sample_rate, between, low_length, brick_wall=False)
        return _to_rate(low, between, sample_rate, length, brick_wall=False)
    if spec.cutoff_hz >= 0.49 * sample_rate:
        return x
    if spec.zero_phase or spec.family in ("fft", "fir"):
        n_fft = good_length(length + sample_rate // 8)
        gain = _zero_phase_gain(spec, sample_rate, n_fft)
        return np.fft.irfft(np.fft.rfft(x, n_fft) * gain, n_fft)[:, :length]
    delay = _filter_delay(spec, sample_rate)
    return _scipy_signal().sosfilt(_design(spec, sample_rate), np.pad(x, ((0, 0), (0, delay))))[:, delay:]


def _zero_phase_gain(spec: DegradeSpec, sample_rate: int, n_fft: int) -> np.ndarray:
    """Gain [n_fft // 2 + 1] of the spec's filter without its phase."""
    freqs = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    if spec.family == "fft":
        return (freqs <= spec.cutoff_hz).astype(np.float64)
    design = _design(spec, sample_rate)
    if spec.family == "fir":  # symmetric taps around sample 0 have a real spectrum
        return np.fft.rfft(np.roll(padded(design, n_fft), -(len(design) // 2))).real
    return np.abs(_scipy_signal().sosfreqz(design, worN=freqs * 2 * math.pi / sample_rate)[1])


@lru_cache(maxsize=4096)
def _filter_delay(spec: DegradeSpec, sample_rate: int) -> int:
    """Delay in samples of the causal filter for material with speech's slope, by cross-correlation."""
    n = 1 << max(12, math.ceil(math.log2(64 * sample_rate / spec.cutoff_hz)))
    impulse = np.zeros(n)
    impulse[0] = 1.0
    response = np.fft.rfft(_scipy_signal().sosfilt(_design(spec, sample_rate), impulse))
    freqs = np.fft.rfftfreq(n, 1 / sample_rate)
    return int(np.argmax(np.fft.irfft(response / (1 + (freqs / (0.25 * spec.cutoff_hz)) ** 2), n)[: n // 2]))


def _to_rate(x: np.ndarray, rate_in: int, rate_out: int, length: int, *, brick_wall: bool) -> np.ndarray:
    """[channels, time] at another rate, `length` samples: soxr VHQ, or a zero-phase FFT brick wall."""
    if rate_in == rate_out:
        return x[:, :length]
    if brick_wall:
        divisor = math.gcd(rate_in, rate_out)
        unit = rate_in // divisor
        periods = -(-(x.shape[-1] + rate_in // 16) // unit)
        n_in, n_out = periods * unit, periods * (rate_out // divisor)
        bins = min(n_in, n_out) // 2 + 1
        spectrum = np.fft.rfft(x, n_in)[:, :bins]
        if n_out % 2 == 0 and n_out < n_in:
            spectrum[:, -1] = 0.0  # the bin at the new Nyquist has no defined phase
        y = np.fft.irfft(spectrum, n_out) * (n_out / n_in)
    else:
        y = soxr.resample(np.ascontiguousarray(x.T), rate_in, rate_out, quality="VHQ").T
    return np.pad(y, ((0, 0), (0, max(0, length - y.shape[-1]))))[:, :length]


def _add_noise(x: np.ndarray, noise_db: float, seed: int) -> np.ndarray:
    """White noise `noise_db` below each channel's RMS; silence stays silent."""
    noise = np.random.default_rng(seed).standard_normal(x.shape)
    return x + noise * (np.sqrt(np.mean(x**2, axis=-1, keepdims=True)) * 10 ** (-noise_db / 20))
