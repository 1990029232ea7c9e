"""Delay and gain of another system's output, from the band it was given: `align`.

Outputs come shifted (codec and frame delays), scaled (peak normalisation) or cut to whole frames. The band
below the input's Nyquist frequency should be the same in output and truth, so cross-correlating it tells the
delay to the sample, the gain, and whether the two are recordings of the same thing at all.
"""

from dataclasses import dataclass

import numpy as np

from hifispeech.errors import AudioError
from hifispeech.evaluate.metrics.pairs import Array, Float64

MAX_DELAY_S = 0.5
MIN_CORRELATION = 0.3  # wrong pairs of RAVDESS clips stay below 0.2
MIN_OVERLAP = 0.9  # of the reference that an output must cover


@dataclass(frozen=True)
class Alignment:
    """How an output lies to the reference.

    `delay_samples` is by how much it is late (negative: early), `gain` by how much it is louder (negative:
    inverted polarity), `correlation` that of the low bands after both are undone, -1..1.
    """

    delay_samples: int
    gain: float
    correlation: float


def align(
    reference: Array, estimate: Array, sample_rate: int, cutoff_hz: float, max_delay_s: float = MAX_DELAY_S
) -> Alignment:
    """Delay and gain of `estimate` against `reference`, by cross-correlation of what is below `cutoff_hz`.

    Shape: both `[time]` or `[channels, time]` with equal channel counts; lengths may differ. One delay and
    one gain for all channels.

    Raises:
        AudioError: different channel counts, nothing below the cutoff, or a correlation under 0.3: these are
            not two versions of one recording.
    """
    ref, est = (np.atleast_2d(np.asarray(x, np.float64)) for x in (reference, estimate))
    if ref.shape[0] != est.shape[0]:
        raise AudioError(
            f"reference has {ref.shape[0]} channels and estimate {est.shape[0]}; pass equal channel counts"
        )
    reach = round(max_delay_s * sample_rate)
    size = 1 << (max(ref.shape[1], est.shape[1]) + reach - 1).bit_length()
    spectra = [_low_band(x, size, sample_rate, cutoff_hz) for x in (ref, est)]
    energies = [_energy(spectrum, size) for spectrum in spectra]
    if min(energies) <= 0:
        raise AudioError(f"nothing below {cutoff_hz:g} Hz to align by; the reference or output is silent")
    products = np.fft.irfft(np.conj(spectra[0]) * spectra[1], size).sum(axis=0)
    lags = np.concatenate([np.arange(reach + 1), np.arange(-reach, 0)])
    best = int(lags[np.argmax(np.abs(products[lags]))])
    correlation = float(products[best] / np.sqrt(energies[0] * energies[1]))
    if abs(correlation) < MIN_CORRELATION:
        raise AudioError(
            f"output and reference do not belong together: their bands below {cutoff_hz:g} Hz correlate by "
            f"{abs(correlation):.2f} at best, {MIN_CORRELATION} is needed; check the file names"
        )
    return Alignment(best, float(products[best] / energies[0]), correlation)


def undo(reference: Array, estimate: Array, alignment: Alignment) -> tuple[Float64, Float64]:
    """The part that both have, delay and gain of the estimate undone: two `[channels, time]` of one length.

    Raises:
        AudioError: the output covers less than nine tenths of the reference.
    """
    ref, est = (np.atleast_2d(np.asarray(x, np.float64)) for x in (reference, estimate))
    start = max(0, -alignment.delay_samples)
    stop = min(ref.shape[1], est.shape[1] - alignment.delay_samples)
    if stop - start < MIN_OVERLAP * ref.shape[1]:
        raise AudioError(
            f"output covers {max(0, stop - start)} of {ref.shape[1]} samples; at least "
            f"{MIN_OVERLAP:.0%} must be there; make the output again"
        )
    shifted = est[:, start + alignment.delay_samples : stop + alignment.delay_samples]
    return ref[:, start:stop], shifted / alignment.gain


def _low_band(signal: Float64, size: int, sample_rate: int, cutoff_hz: float) -> np.ndarray:
    """Spectrum `[channels, size // 2 + 1]` up to the cutoff, less a tenth that filters slope in."""
    spectrum = np.fft.rfft(signal, size)
    spectrum[:, int(0.9 * cutoff_hz / sample_rate * size) :] = 0
    spectrum[:, : max(1, int(20 / sample_rate * size))] = 0  # offsets and rumble say nothing about time
    return spectrum


def _energy(spectrum: np.ndarray, size: int) -> float:
    return float(2 * np.square(np.abs(spectrum)).sum() / size)
