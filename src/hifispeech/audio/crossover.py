"""Where the generated band joins the input: complementary zero-phase gains on STFT frames.

`output = input + ISTFT(high * (generated - input))`: below the edge nothing is added, the input itself comes
out.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from hifispeech.audio.spectral import N_FFT

WIDTH_BINS = (
    4  # one main lobe of the Hann window: narrower would ring, wider would dig a notch under a brick wall
)


@lru_cache(maxsize=256)
def high_gain(edge_bin: int, bins: int = N_FFT // 2 + 1) -> npt.NDArray[np.float32]:
    """Gain of the generated band: 0 up to the edge, raised cosine over `WIDTH_BINS`, then 1. Shape: `[bins]`.

    Real and the same for every frame, hence zero phase; an edge at or above `bins` gives zeros (full band).
    """
    position = (np.arange(bins) - (edge_bin - 1)) / WIDTH_BINS
    gain = (0.5 - 0.5 * np.cos(np.pi * np.clip(position, 0.0, 1.0))).astype(np.float32)
    gain.setflags(write=False)
    return gain


def correction(
    spectrum: npt.NDArray[np.complex64],
    generated: npt.NDArray[np.complex64],
    edge_bins: npt.NDArray[np.integer],
) -> npt.NDArray[np.complex64]:
    """What has to be added to the input's frames: `high * (generated - input)`.

    Shape: spectrum `[frames, bins]`, generated `[frames, high]` (the highest bins; all edges lie in them),
    edge_bins `[frames]`; `[frames, bins]` back.
    """
    bins = spectrum.shape[-1]
    first = bins - generated.shape[-1]
    edges = edge_bins[:1] if np.all(edge_bins == edge_bins[0]) else edge_bins
    gains = np.stack([high_gain(int(edge), bins)[first:] for edge in edges])
    added = np.zeros(spectrum.shape, np.complex64)
    np.subtract(generated, spectrum[:, first:], out=added[:, first:])
    added[:, first:] *= gains
    return added
