"""Objective measures of speech super-resolution: spectra, waveforms and phases against the true recording.

Every function takes the reference first and the estimate second, `[time]` or `[channels, time]`, of one
length and one sample rate, computes in float64 and gives the mean over the channels. Pairs that cannot be
compared (other lengths, other rates, a silent reference, NaN) raise `AudioError`, a `ValueError`; nothing is
cut, resampled or aligned in secret. Spectra hold about 50 times the samples' memory: score clips, not hours.

What judges the generated band alone is in `highband`, `activity` and `texture`, the perceptual measures
(ViSQOL, PESQ, STOI) in `perceptual`; `hifispeech.evaluate.metrics.measure` calls them all by name.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hifispeech.audio.spectral import HOP, N_FFT, stft
from hifispeech.errors import AudioError
from hifispeech.evaluate.metrics.pairs import Array, Float64, check_audible, check_pair

Protocol = Literal["p1", "p2"]

P1_FLOOR = 1e-8  # power under which protocol 1 sees nothing
P2_TINY = 1e-12
MR_RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
MR_FLOOR = 1e-4  # magnitude; the square root of P1_FLOOR
SSIM_WINDOW = 7
SSIM_TINY = 1e-300  # power; keeps the logarithm finite


@dataclass(frozen=True)
class LSD:
    """Log-spectral distance in decades of power: whole band, below and above the split (or `None`)."""

    lsd: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PhaseDistance:
    """Anti-wrapped phase differences in radians, each between 0 (equal) and pi."""

    phase: float
    group_delay: float
    frequency: float


def lsd(
    reference: Array,
    estimate: Array,
    protocol: Protocol = "p1",
    sample_rate_in: int | None = None,
    *,
    sample_rate: int = 48000,
) -> LSD:
    """Log-spectral distance: root mean square over frequency of the log-power difference, mean over frames.

    Protocol `"p1"` (NU-Wave, AP-BWE, UDM+): n_fft 2048, hop 512, powers clamped at 1e-8, whatever the rate.
    Protocol `"p2"` (ssr_eval: NVSR, AudioSR, HiFi-SR): n_fft int(2048 rate / 44100), hop rate / 100, nothing
    clamped, so an estimate without high band costs what its rounding noise decides; it is not symmetric where
    spectra vanish. Frames whose reference is digital silence are left out of it (see `silent_frames`): there
    is nothing to compare with, and each would add 6 and more. Frames are centred with reflected edges and
    periodic Hann windows in both protocols. Ten times the amplitude is a distance of 2.

    Blind to: phase, and to whether the estimated structure sounds right: an image of the low band mirrored
    upwards scores better than it sounds. Quiet bins count as much as loud ones. Read it with ViSQOL and the
    split.

    Args:
        sample_rate_in: rate of the low-band input in hertz; splits the bins at `split_bin` into `low` (what
            should have been kept) and `high` (what was generated).
        sample_rate: rate of both signals in hertz; used as it is, nothing is resampled.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
        ValueError: for an unknown protocol or a split outside the band.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    if protocol == "p1":
        n_fft = N_FFT
        difference = np.log10(_power(est, n_fft, HOP, P1_FLOOR)) - np.log10(_power(ref, n_fft, HOP, P1_FLOOR))
        audible = np.ones(difference.shape[:-1], bool)
    elif protocol == "p2":
        n_fft, hop = _p2_frame(sample_rate)
        power = _power(ref, n_fft, hop)
        audible = power.max(axis=-1) > 0
        ratio = power / (_magnitude(est, n_fft, hop) + P2_TINY) ** 2
        difference = np.log10(ratio + P2_TINY)
    else:
        raise ValueError(f'protocol={protocol!r}; pass "p1" or "p2"')
    squared = np.square(difference)
    whole = _rms_over_bins(squared, audible)
    if sample_rate_in is None:
        return LSD(whole)
    split = split_bin(squared.shape[-1], sample_rate_in, sample_rate)
    low, high = (_rms_over_bins(part, audible) for part in (squared[..., :split], squared[..., split:]))
    return LSD(whole, low, high)


def silent_frames(reference: Array, *, sample_rate: int = 48000) -> tuple[int, int]:
    """How many frames of protocol 2 are digital silence, and how many there are, in all channels.

    Shape: `[time]` or `[channels, time]`.
    """
    power = _power(np.atleast_2d(np.asarray(reference, np.float64)), *_p2_frame(sample_rate))
    return int(np.count_nonzero(power.max(axis=-1) == 0)), power.shape[0] * power.shape[1]


def split_bin(bins: int, sample_rate_in: int, sample_rate: int = 48000) -> int:
    """First bin above the input's band: int(bins * sample_rate_in / sample_rate), for 1025 bins as published.

    Raises:
        ValueError: if it leaves no bin below or none above.
    """
    split = int(bins * sample_rate_in / sample_rate)
    if not 0 < split < bins:
        raise ValueError(
            f"sample_rate_in={sample_rate_in} splits nothing off {sample_rate} Hz; pass a rate below it"
        )
    return split


def si_sdr(reference: Array, estimate: Array, *, sample_rate: int = 48000) -> float:
    """Scale-invariant signal-to-distortion ratio in dB; infinity where the estimate is a scaled reference.

    Blind to gain and, because the high band of speech has little energy, nearly blind to what
    super-resolution adds; it is a check on timing and on the kept band. Punishes any delay or phase change.
    No mean is removed; any rate.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`) or the estimate is silent.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    check_audible(est, "SI-SDR")
    scale = (ref * est).sum(-1, keepdims=True) / np.square(ref).sum(-1, keepdims=True)
    return _mean_ratio_db(scale * ref, est - scale * ref)


def snr(reference: Array, estimate: Array, *, sample_rate: int = 48000) -> float:
    """Signal-to-noise ratio in dB, the noise being the difference; infinity for equal signals.

    Blind as SI-SDR is, except that a wrong gain counts. A silent estimate gives 0. Any rate, as it is.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    return _mean_ratio_db(ref, est - ref)


def log_sispec(reference: Array, estimate: Array, *, sample_rate: int = 48000) -> float:
    """Scale-invariant spectrogram ratio in dB of log-magnitudes (the log-SISPEC of ssr_eval).

    Protocol 2 frames. The log-magnitude image of the estimate is compared with the best multiple of the
    reference's, as SI-SDR does with waveforms. Blind to phase; scaling a logarithm is not a gain, so the
    number moves with the level of both signals: compare systems on the same files only. Any rate; the frames
    scale with it.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    n_fft, hop = _p2_frame(sample_rate)
    log_ref, log_est = (np.log10(_magnitude(x, n_fft, hop) + P2_TINY) for x in (ref, est))
    axes = (-2, -1)
    norm = np.square(log_ref).sum(axes, keepdims=True)
    target = (log_ref * log_est).sum(axes, keepdims=True) / (norm + P2_TINY) * log_ref
    noise = np.square(log_est - target).sum(axes)
    return float(np.mean(10 * np.log10(np.square(target).sum(axes) / (noise + P2_TINY) + P2_TINY)))


def ssim(reference: Array, estimate: Array, *, sample_rate: int = 48000, range_db: float = 80.0) -> float:
    """Structural similarity of the two spectrogram pictures, at most 1 (equal).

    Protocol 1 spectrograms in dB, `range_db` down from the reference's loudest bin, clipped and scaled to
    0..1; uniform 7x7 windows, constants 0.01 and 0.03, mean over the picture. Other papers take linear
    magnitudes, where the high band does not show: the numbers are not theirs. Blind to phase and to anything
    below the range. Any rate, 2048-point frames.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`) or has fewer than 7 frames.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    power_ref, power_est = (_power(x, N_FFT, HOP, SSIM_TINY) for x in (ref, est))
    if power_ref.shape[-2] < SSIM_WINDOW:
        raise AudioError(
            f"{ref.shape[1]} samples are too few for SSIM; pass at least {(SSIM_WINDOW - 1) * HOP}"
        )
    peak = power_ref.max(axis=(-2, -1), keepdims=True)
    a, b = (np.clip(10 * np.log10(p / peak) / range_db + 1, 0, 1) for p in (power_ref, power_est))
    mean_a, mean_b = _box_mean(a), _box_mean(b)
    unbiased = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    var_a = unbiased * (_box_mean(a * a) - mean_a**2)
    var_b = unbiased * (_box_mean(b * b) - mean_b**2)
    covariance = unbiased * (_box_mean(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float(np.mean(likeness / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))


def mr_stft(reference: Array, estimate: Array, *, sample_rate: int = 48000) -> float:
    """Multi-resolution STFT distance: spectral convergence plus mean log-magnitude difference.

    Mean over frames of 512, 1024 and 2048 samples with a quarter as hop; magnitudes clamped at 1e-4; 0 for
    equal signals; natural logarithm. Blind to phase; the convergence part sees the loud low band only. Not
    symmetric. Any rate, frames in samples.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    total = 0.0
    for n_fft, hop in MR_RESOLUTIONS:
        a, b = (np.maximum(_magnitude(x, n_fft, hop), MR_FLOOR) for x in (ref, est))
        convergence = np.linalg.norm(a - b, axis=(-2, -1)) / np.linalg.norm(a, axis=(-2, -1))
        total += float(np.mean(convergence) + np.mean(np.abs(np.log(a) - np.log(b))))
    return total / len(MR_RESOLUTIONS)


def phase_distance(
    reference: Array, estimate: Array, *, sample_rate: int = 48000, sample_rate_in: int | None = None
) -> PhaseDistance:
    """Distances of instantaneous phase, group delay and instantaneous angular frequency, in radians.

    Protocol 1 frames; differences are wrapped into -pi..pi; root mean square over frequency, mean over time,
    as AP-BWE reports. Group delay is the phase difference of neighbouring bins, angular frequency that of
    neighbouring frames. Unrelated phases give pi / sqrt(3) = 1.81. Blind to magnitude: bins without energy,
    whose phase nobody hears, count like any other. One sample of delay moves the first by up to pi. Any rate,
    2048-point frames.

    Args:
        sample_rate_in: rate of the low-band input in hertz: only the bins above its band are compared.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`) or has fewer than two frames.
        ValueError: for a split outside the band.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    if ref.shape[1] < HOP:
        raise AudioError(f"{ref.shape[1]} samples are too few for phase distances; pass at least {HOP}")
    difference = (np.angle(stft(est)) - np.angle(stft(ref))).astype(np.float64, copy=False)
    if sample_rate_in is not None:
        difference = difference[..., split_bin(difference.shape[-1], sample_rate_in, sample_rate) :]
    return PhaseDistance(
        phase=_rms_over_bins(_wrapped(difference) ** 2),
        group_delay=_rms_over_bins(_wrapped(np.diff(difference, axis=-1)) ** 2),
        frequency=_rms_over_bins(_wrapped(np.diff(difference, axis=-2)) ** 2),
    )


def _p2_frame(sample_rate: int) -> tuple[int, int]:
    """Frame and hop of protocol 2 in samples. Exact in integers: 2229 and 480 at 48 kHz."""
    return 2048 * sample_rate // 44100, sample_rate // 100


def _power(signal: Float64, n_fft: int, hop: int, floor: float = 0.0) -> Float64:
    """Power spectrogram `[channels, frames, bins]` of `[channels, time]`, at least `floor`."""
    spectrum = stft(signal, n_fft, hop).astype(np.complex128, copy=False)
    return np.maximum(spectrum.real**2 + spectrum.imag**2, floor)


def _magnitude(signal: Float64, n_fft: int, hop: int) -> Float64:
    return np.sqrt(_power(signal, n_fft, hop))


def _rms_over_bins(squared: Float64, audible: npt.NDArray[np.bool_] | None = None) -> float:
    """Root mean square over bins, mean over (audible) frames and channels, of `[channels, frames, bins]`."""
    distances = np.sqrt(squared.mean(axis=-1))
    if audible is None:
        return float(distances.mean())
    return float(np.mean([frames[heard].mean() for frames, heard in zip(distances, audible, strict=True)]))


def _mean_ratio_db(signal: Float64, noise: Float64) -> float:
    with np.errstate(divide="ignore"):  # no noise: infinity is the answer
        return float(np.mean(10 * np.log10(np.square(signal).sum(-1) / np.square(noise).sum(-1))))


def _wrapped(angle: Float64) -> Float64:
    return angle - 2 * np.pi * np.round(angle / (2 * np.pi))


def _box_mean(image: Float64) -> Float64:
    """Mean over 7x7 windows of the last two axes; only whole windows."""
    for axis in (-2, -1):
        image = np.lib.stride_tricks.sliding_window_view(image, SSIM_WINDOW, axis=axis).mean(axis=-1)
    return image
