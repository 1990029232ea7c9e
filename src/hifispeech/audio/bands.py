"""Band powers: the resolution at which the envelope models hear the input and describe what is missing.

115 bands of the STFT grid (2048/512 at 48 kHz): 94 Hz wide up to 4 kHz, where the harmonics of a voice tell
its pitch, and 281 Hz wide above, where an ear resolves no more. A power is the mean of |X|^2 over the bins of
a band.
"""

import numpy as np
import numpy.typing as npt

from hifispeech.audio.spectral import HOP, N_FFT, frame_spectra

SAMPLE_RATE = 48000
BINS = N_FFT // 2 + 1
EDGES = np.array([*range(0, 172, 4), *range(172, BINS, 12), BINS])  # bins; a band is [EDGES[i], EDGES[i + 1])
BANDS = len(EDGES) - 1
WIDTHS = np.diff(EDGES)
CENTRES = (EDGES[:-1] + EDGES[1:] - 1) / 2  # bins
CENTRES_HZ = CENTRES * SAMPLE_RATE / N_FFT
LOG_SILENCE = -10.0  # log10 power that stands for silence in training; the noise of 16 bits has about -7
LOG_TINY = -20.0  # log10 power of digital silence: keeps logarithms finite


def band_powers(power: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Mean power per bin of each band. Shape: `[..., bins]` to `[..., BANDS]`."""
    return np.add.reduceat(power, EDGES[:-1], axis=-1) / WIDTHS.astype(power.dtype)


def log_band_powers(spectrum: npt.NDArray[np.complexfloating]) -> npt.NDArray[np.float32]:
    """log10 band powers of complex frames. Shape: `[..., bins]` to `[..., BANDS]`, at least `LOG_TINY`."""
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return np.log10(np.maximum(band_powers(power), 10.0**LOG_TINY)).astype(np.float32)


def recording_band_powers(audio: npt.NDArray[np.float32], block: int = 2048) -> npt.NDArray[np.float32]:
    """log10 band powers of the centred frames of a recording, in blocks of bounded memory.

    Shape: `[time]` at 48 kHz to `[1 + time // HOP, BANDS]`.
    """
    half = N_FFT // 2
    padded = np.pad(audio, (half, half), mode="reflect" if len(audio) > half else "constant")
    count = 1 + len(audio) // HOP
    parts = [
        log_band_powers(frame_spectra(padded[first * HOP : (min(first + block, count) - 1) * HOP + N_FFT]))
        for first in range(0, count, block)
    ]
    return np.concatenate(parts)


def first_band(edge_bin: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The first band of which nothing is known when the input ends at a bin. Shape: kept.

    A band that the edge cuts counts as unknown; there is one unknown band at least, and one known.
    """
    return np.clip(np.searchsorted(EDGES, np.asarray(edge_bin), side="right") - 1, 1, BANDS)
