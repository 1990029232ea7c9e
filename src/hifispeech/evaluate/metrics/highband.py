"""Measures of the band that was generated: everything above the Nyquist frequency of the low-rate input.

As in `measures`: reference first, estimate second, `[time]` or `[channels, time]`, float64, mean over the
channels. All take `sample_rate_in`, the rate of the input, as what they judge begins at half of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hifispeech.audio.spectral import HOP, N_FFT, stft
from hifispeech.errors import AudioError
from hifispeech.evaluate.metrics.measures import P1_FLOOR, split_bin
from hifispeech.evaluate.metrics.pairs import Array, Float64, check_pair

RESOLUTIONS = (512, 1024, 2048, 4096)
ENVELOPE_FRAME_MS = 20.0  # frames of the third-octave envelope; they overlap by three quarters
CELL_BINS = 12  # of a 2048-point frame: 281 Hz at 48 kHz; a frame is 10.7 ms
QUIETEST = 0.1  # fraction of the frames that hold the noise floor
KEPT = 0.9  # of the input's Nyquist frequency: resamplers may begin to fall above


@dataclass(frozen=True)
class Contrast:
    """Standard deviation of the estimate's log cell powers over that of the reference's; 1 is right.

    `None` where the reference does not vary.
    """

    time: float | None
    frequency: float | None


@dataclass(frozen=True)
class FloorError:
    """Noise floor of the estimate minus that of the reference in dB: mean absolute and mean."""

    error_db: float
    bias_db: float


def lsd_hf(
    reference: Array, estimate: Array, sample_rate_in: int, *, sample_rate: int = 48000
) -> dict[int, float]:
    """Log-spectral distance above the input's Nyquist frequency at 512, 1024, 2048 and 4096 points.

    Protocol P1 at each: hop n/4, powers clamped at 1e-8. Noise that was made even for one frame size wins
    there and loses at the others: compare the four. Ten times the amplitude is a distance of 2.

    Blind to: phase, and to whether the structure sounds right, as every LSD. Any rate, frames in samples.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
        ValueError: for a split outside the band.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    return {
        n_fft: float(
            np.mean([_lsd_above(a, b, n_fft, sample_rate_in, sample_rate) for a, b in _pairs(ref, est)])
        )
        for n_fft in RESOLUTIONS
    }


def envelope_error_db(
    reference: Array, estimate: Array, sample_rate_in: int, *, sample_rate: int = 48000
) -> float:
    """Difference of the high-band envelopes in dB: root mean square over third octaves, mean over frames.

    Powers of 20 ms Hann frames (hop 5 ms) averaged over bands of 1/3 octave from the input's Nyquist
    frequency up and over 20 ms, clamped at a mean bin power of 1e-8. Ten times the amplitude is 20 dB.

    Blind to: everything inside a cell, so to pitch, texture and phase. Any rate, frames in milliseconds.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
        ValueError: for a split outside the band.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    errors = []
    for pair in _pairs(ref, est):
        a, b = (_log_envelope(x, sample_rate_in, sample_rate) for x in pair)
        errors.append(10 * np.sqrt(np.square(b - a).mean(axis=-1)).mean())
    return float(np.mean(errors))


def envelope_contrast(
    reference: Array, estimate: Array, sample_rate_in: int, *, sample_rate: int = 48000
) -> Contrast:
    """How much the generated envelope varies, as a multiple of how much the true one does: 1 is right.

    Log powers of cells of 12 bins of the 2048-point frame (280 Hz x 10 ms at 48 kHz) above the input's
    Nyquist frequency, clamped at 1e-8. `time`: standard deviation over the frames, mean over the bands;
    `frequency`: over the bands, mean over the frames. Grey, over-smooth envelopes are below 1.

    Blind to: where the variation is: the envelope of another sentence scores well. Overall level. Any rate,
    frames in samples.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
        ValueError: for a split outside the band.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    spreads = np.array(
        [
            [
                (x.std(axis=0).mean(), x.std(axis=1).mean())
                for x in (_cells(s, sample_rate_in, sample_rate) for s in p)
            ]
            for p in _pairs(ref, est)
        ]
    )  # [channels, 2 signals, 2 axes]
    true, made = spreads.mean(axis=0)
    time, frequency = (float(m / t) if t > 0 else None for m, t in zip(made, true, strict=True))
    return Contrast(time, frequency)


def floor_error(
    reference: Array, estimate: Array, sample_rate_in: int, *, sample_rate: int = 48000
) -> FloorError:
    """Noise floor of the generated band against the true one, in dB per third octave.

    The tenth of the frames where the reference is quietest (whole band; frames of digital silence are left
    out): mean power per third octave above the input's Nyquist frequency, clamped at a mean bin power of
    1e-8. `error_db` is the mean of the absolute differences, `bias_db` that of the signed ones: below 0, the
    pauses of the estimate are too quiet.

    Blind to: everything outside pauses; in a recording without pauses it measures its quietest speech. Any
    rate, frames in milliseconds.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
        ValueError: for a split outside the band.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    differences = []
    for a, b in _pairs(ref, est):
        true, made = (_frame_powers(x, sample_rate) for x in (a, b))
        level = true.sum(axis=-1)
        audible = np.flatnonzero(level > 0)
        count = max(1, round(QUIETEST * audible.size))
        quiet = audible[np.argsort(level[audible], kind="stable")[:count]]
        bands = third_octaves(true.shape[-1], sample_rate_in, sample_rate)
        true, made = (
            np.log10(np.maximum(_band_means(x[quiet].mean(axis=0), bands), P1_FLOOR)) for x in (true, made)
        )
        differences.append(10 * (made - true))
    all_bands = np.array(differences)
    return FloorError(float(np.abs(all_bands).mean()), float(all_bands.mean()))


def kept_snr(reference: Array, estimate: Array, sample_rate_in: int, *, sample_rate: int = 48000) -> float:
    """Signal-to-noise ratio in dB of the band that was there: up to 0.9 of the input's Nyquist frequency.

    From one Fourier transform of the whole clip; infinity where that band is untouched. 16-bit outputs end
    at about the level over -98 dB.

    Blind to: everything generated. Punishes delay, gain and phase changes. Any rate.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`) or the kept band of the truth is empty.
        ValueError: for a split outside the band.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    bins = ref.shape[1] // 2 + 1
    end = max(1, int(KEPT * split_bin(bins, sample_rate_in, sample_rate))) if bins > 1 else 1
    ratios = []
    for a, b in _pairs(ref, est):
        true = np.fft.rfft(a)[:end]
        power, noise = _energy(true), _energy(np.fft.rfft(b)[:end] - true)
        if power == 0:
            raise AudioError("the reference has no energy in the kept band; leave the clip out")
        ratios.append(10 * np.log10(power / noise) if noise > 0 else np.inf)
    return float(np.mean(ratios))


def third_octaves(bins: int, sample_rate_in: int, sample_rate: int) -> tuple[int, ...]:
    """First bins of the third octaves from the input's Nyquist frequency up, and the end.

    A band has one bin at least; a last band narrower than half its width belongs to the one below.
    """
    split = split_bin(bins, sample_rate_in, sample_rate)
    count = max(1, round(3 * np.log2(bins / split)))
    edges = split * 2 ** (np.arange(count) / 3)
    return (*sorted({min(bins - 1, round(edge)) for edge in edges}), bins)


def _pairs(ref: Float64, est: Float64) -> Iterator[tuple[Float64, Float64]]:
    """Channel by channel: spectra of all at once would hold the memory of all."""
    return zip(ref, est, strict=True)


def _lsd_above(ref: Float64, est: Float64, n_fft: int, rate_in: int, rate: int) -> float:
    split = split_bin(n_fft // 2 + 1, rate_in, rate)
    a, b = (_log_power(x, n_fft, n_fft // 4)[:, split:] for x in (ref, est))
    return float(np.sqrt(np.square(b - a).mean(axis=-1)).mean())


def _log_power(signal: Float64, n_fft: int, hop: int) -> Float64:
    """Clamped log10 power `[frames, bins]` of `[time]`."""
    return np.log10(np.maximum(_power(signal, n_fft, hop), P1_FLOOR))


def _power(signal: Float64, n_fft: int, hop: int) -> Float64:
    spectrum = stft(signal, n_fft, hop)
    return np.asarray(spectrum.real**2 + spectrum.imag**2, np.float64)


def _frame_powers(signal: Float64, rate: int) -> Float64:
    """Powers of 20 ms frames, hop 5 ms. Shape: `[time]` to `[frames, bins]`."""
    hop = max(1, round(rate * ENVELOPE_FRAME_MS / 4000))
    return _power(signal, 4 * hop, hop)


def _log_envelope(signal: Float64, rate_in: int, rate: int) -> Float64:
    """Log10 of the mean bin power of third octaves, over 20 ms. Shape: `[time]` to `[frames, bands]`."""
    power = _frame_powers(signal, rate)
    means = _band_means(power, third_octaves(power.shape[-1], rate_in, rate))
    width = min(4, len(means))
    smooth = np.lib.stride_tricks.sliding_window_view(means, width, axis=0).mean(axis=-1)
    return np.log10(np.maximum(smooth, P1_FLOOR))


def _cells(signal: Float64, rate_in: int, rate: int) -> Float64:
    """Log10 of the mean bin power of cells. Shape: `[time]` to `[frames, cells]`."""
    power = _power(signal, N_FFT, HOP)
    bins = power.shape[-1]
    starts = range(split_bin(bins, rate_in, rate), bins, CELL_BINS)
    whole = [start for start in starts if start + CELL_BINS <= bins] or [starts[0]]
    means = _band_means(power, (*whole, min(bins, whole[-1] + CELL_BINS)))
    return np.log10(np.maximum(means, P1_FLOOR))


def _band_means(power: Float64, edges: tuple[int, ...]) -> Float64:
    """Means over bands of the last axis. Shape: `[..., bins]` to `[..., bands]`."""
    return np.add.reduceat(power[..., : edges[-1]], edges[:-1], axis=-1) / np.diff(edges)


def _energy(spectrum: npt.NDArray[np.complex128]) -> float:
    return float(np.square(np.abs(spectrum)).sum())
