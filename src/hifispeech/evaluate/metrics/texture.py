"""The fine structure of the generated band: like the hiss of the truth, or a lattice, or a buzz."""

import numpy as np

from hifispeech.audio.spectral import stft
from hifispeech.evaluate.metrics.measures import P1_FLOOR, split_bin
from hifispeech.evaluate.metrics.pairs import Array, Float64, check_pair

FRAMES_MS = (15.0, 60.0)  # none of the sizes that models here work with
PATCH = 16  # frames and bins; patches overlap by half
MIN_LEVEL = 10 * P1_FLOOR  # geometric mean power of a patch; below, clamping is what shows
SMALLEST = 1e-4  # modulation power, where that of Gaussian noise is about 0.3


def texture(
    reference: Array, estimate: Array, sample_rate_in: int, *, sample_rate: int = 48000
) -> float | None:
    """Distance of the modulation spectra of the log power above the input's Nyquist frequency.

    Per frame size (15 and 60 ms, hop a quarter), the log10 power picture is cut into patches of 16 x 16;
    from each its smooth part (a second-order surface) is taken off, so that the envelope does not count; the
    power of its two-dimensional Fourier transform is averaged over all patches where the reference is 10 dB
    above the clamp. The distance is the root mean square of the log10 ratio of these two averages over all
    modulations, mean over the sizes. `None` if the reference has no such patch.

    White noise under the true envelope gets .04 to .12 on speech; too even a noise lacks modulation, a
    lattice or a comb of harmonics has too much of one: .3 and more.

    Blind to: level, envelope, phase, and to where a texture is: it is an average over the clip. Clips
    shorter than a second are noisy. Any rate, frames in milliseconds.

    Raises:
        AudioError: if the pair cannot be compared (see `check_pair`).
        ValueError: for a split outside the band.
    """
    ref, est = check_pair(reference, estimate, sample_rate)
    distances = []
    for milliseconds in FRAMES_MS:
        hop = max(1, round(sample_rate * milliseconds / 4000))
        modulations = [
            found
            for pair in zip(ref, est, strict=True)
            if (found := _modulations(*(_log_power(x, hop, sample_rate_in, sample_rate) for x in pair)))
        ]
        if not modulations:
            return None
        true, made = (np.mean([pair[i] for pair in modulations], axis=0) for i in (0, 1))
        ratio = np.log10(np.maximum(made, SMALLEST) / np.maximum(true, SMALLEST))
        distances.append(np.sqrt(np.square(ratio.ravel()[1:]).mean()))  # the first is the patches' mean
    return float(np.mean(distances))


def _log_power(signal: Float64, hop: int, rate_in: int, rate: int) -> Float64:
    """Shape: `[time]` to `[frames, bins]` above the split."""
    spectrum = stft(signal, 4 * hop, hop)
    power = np.maximum(spectrum.real**2 + spectrum.imag**2, P1_FLOOR)
    return np.log10(power)[:, split_bin(power.shape[-1], rate_in, rate) + 1 :]


def _modulations(ref: Float64, est: Float64) -> tuple[Float64, Float64] | None:
    """Mean modulation powers of two pictures `[frames, bins]`; `None` if no patch is loud enough."""
    if min(ref.shape) < PATCH:
        return None
    step = PATCH // 2
    a, b = (
        np.lib.stride_tricks.sliding_window_view(x, (PATCH, PATCH))[::step, ::step].reshape(-1, PATCH * PATCH)
        for x in (ref, est)
    )
    loud = a.mean(axis=1) > np.log10(MIN_LEVEL)
    if not loud.any():
        return None
    smooth = _smooth_surfaces()
    window = np.hanning(PATCH + 2)[1:-1]
    weights = np.outer(window, window)
    averages = []
    for patches in (a[loud], b[loud]):
        rough = (patches - (patches @ smooth) @ smooth.T).reshape(-1, PATCH, PATCH) * weights
        spectra = np.fft.rfft2(rough)
        averages.append((spectra.real**2 + spectra.imag**2).mean(axis=0) / np.square(weights).sum())
    return averages[0], averages[1]


def _smooth_surfaces() -> Float64:
    """Orthonormal basis of the second-order surfaces over a patch. Shape: `[PATCH * PATCH, 6]`."""
    axis = np.linspace(-1, 1, PATCH)
    time, frequency = (part.ravel() for part in np.meshgrid(axis, axis, indexing="ij"))
    surfaces = [np.ones_like(time), time, frequency, time**2, frequency**2, time * frequency]
    return np.linalg.qr(np.stack(surfaces, axis=1))[0]
