"""The noise that the fast model shapes: a stored signal whose spectrogram is nearly flat.

White noise has random dips of 20 dB and more in every spectrogram; no gain that a network predicts can fill
them. This signal is as good as Gaussian sample by sample, but at the model's own frame (n_fft 2048, hop 512)
the log-power of its bins scatters by 0.11 instead of 0.56 (log10 units), so that what is put out has the
envelope that was predicted. `low_scatter_noise` made it (Griffin and Lim's iteration towards unit magnitudes,
fast variant of Perraudin et al. 2013), and it repeats every 11 s.
"""

from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt

from hifispeech.audio.spectral import HOP, N_FFT, hann, overlap_add

NOISE_FRAMES = 1024
NOISE_SEED = 20501
MOMENTUM = 0.99
OVERLAP_GAIN = 1.5  # sum of the squared Hann windows at hop = n_fft / 4


def low_scatter_noise(frames: int, seed: int, iterations: int) -> npt.NDArray[np.float64]:
    """Periodic noise of unit power per bin whose STFT magnitudes are as even as they can be.

    Shape: `[frames * hop]`. The period is the whole length.
    """
    audio = np.random.default_rng(seed).standard_normal(frames * HOP)
    unit = np.sqrt(np.sum(hann(N_FFT, "float64") ** 2))
    before = np.zeros((frames, N_FFT // 2 + 1))
    phases = wrapped_spectra(audio)
    for _ in range(iterations):
        audio = wrapped_signal(phases * (unit / np.maximum(np.abs(phases), 1e-9)))
        spectrum = wrapped_spectra(audio)
        phases, before = spectrum + MOMENTUM * (spectrum - before), spectrum
    return audio


def wrapped_spectra(audio: npt.NDArray[np.floating]) -> npt.NDArray[np.complex128]:
    """Windowed spectra of a periodic signal. Shape: `[frames * hop]` to `[frames, bins]`."""
    wrapped = np.concatenate([audio, audio[: N_FFT - HOP]])
    view = np.lib.stride_tricks.sliding_window_view(wrapped, N_FFT)[::HOP]
    return np.fft.rfft(view * hann(N_FFT, "float64"), axis=-1)


def wrapped_signal(spectrum: npt.NDArray[np.complexfloating]) -> npt.NDArray[np.float64]:
    """Inverse of `wrapped_spectra` (least squares). Shape: `[frames, bins]` to `[frames * hop]`."""
    blocks = np.fft.irfft(spectrum, n=N_FFT, axis=-1) * hann(N_FFT, "float64")
    audio = overlap_add(blocks, HOP)
    length = len(spectrum) * HOP
    audio[: N_FFT - HOP] += audio[length:]
    return np.asarray(audio[:length] / OVERLAP_GAIN, np.float64)


@lru_cache(maxsize=1)
def noise_frames() -> npt.NDArray[np.float32]:
    """The stored noise in the STFT domain, unit mean power per bin. Shape: `[frames, 2, bins]` (real,
    imaginary).

    A table, not a generator: any frame can be addressed, so chunks, streams and channels hear the same noise.
    """
    with as_file(files("hifispeech.weights") / "noise.npy") as path:
        audio = np.load(path).astype(np.float64)
    spectrum = wrapped_spectra(audio)
    spectrum /= np.sqrt(np.mean(np.abs(spectrum[:, 2:-2]) ** 2))
    return np.stack([spectrum.real, spectrum.imag], axis=1).astype(np.float32)
