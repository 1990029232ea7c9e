"""Systems that any model has to beat: plain resampling, and the low band mirrored upwards."""

import numpy as np
import numpy.typing as npt

from hifispeech.audio.resample import resample
from hifispeech.audio.spectral import HOP, N_FFT, istft, stft
from hifispeech.errors import AudioError

OUTPUT_RATE = 48000


def resampled(audio: npt.NDArray[np.floating], sample_rate: int) -> npt.NDArray[np.float32]:
    """Plain resampling to 48 kHz: nothing above the input's band. Papers call it "unprocessed".

    Shape: `[time]` or `[channels, time]` to the same with round(time * 48000 / sample_rate) samples.
    """
    return resample(np.asarray(audio, dtype=np.float32), sample_rate, OUTPUT_RATE)


def mirrored(
    audio: npt.NDArray[np.floating],
    sample_rate: int,
    *,
    cutoff_hz: float | None = None,
    slope_db: float = 0.0,
) -> npt.NDArray[np.float32]:
    """Spectral mirroring: the band below the cutoff folded up around it, again and again until 24 kHz.

    What an upsampler without its filter does: the image of a component at f appears at 2 cutoff - f,
    2 cutoff + f and so on, with its phase. Log-spectral distance likes it more than ears do.

    Shape: `[time]` or `[channels, time]` to the same with round(time * 48000 / sample_rate) samples.

    Args:
        cutoff_hz: where the input's band ends; `None`: half its sample rate. Rounded to the grid of 23.4 Hz.
        slope_db: attenuation of the images in dB per octave above the cutoff; 0 is the textbook baseline.

    Raises:
        AudioError: if the cutoff is not between 0 and half the sample rate, or not below 24 kHz.
    """
    cutoff = sample_rate / 2 if cutoff_hz is None else cutoff_hz
    if not 0 < cutoff <= sample_rate / 2 or cutoff >= OUTPUT_RATE / 2:
        raise AudioError(
            f"cutoff_hz={cutoff:g} must lie above 0, within {sample_rate / 2:g} Hz and below 24000 Hz"
        )
    base = resampled(audio, sample_rate)
    spectrum = stft(base)
    edge = max(1, round(cutoff / OUTPUT_RATE * N_FFT))
    return istft(spectrum + _images(spectrum, edge, slope_db), base.shape[-1])


def _images(
    spectrum: npt.NDArray[np.complexfloating], edge: int, slope_db: float
) -> npt.NDArray[np.complexfloating]:
    """Images above bin `edge` of the bins below it, `[..., frames, bins]` to the same, zero up to `edge`."""
    frames, bins = spectrum.shape[-2:]
    target = np.arange(edge + 1, bins)
    fold, offset = np.divmod(target, 2 * edge)
    flipped = offset > edge
    source = np.where(flipped, 2 * edge - offset, offset)
    carrier = np.where(flipped, fold + 1, fold) * 2 * edge  # bins by which the spectrum was moved
    # Moving a spectrum is a modulation: its phase runs on from frame to frame, counted from sample 0.
    start = np.arange(frames)[:, None] * HOP - N_FFT // 2
    turns = np.exp(2j * np.pi * ((start * carrier) % N_FFT) / N_FFT)
    gain = 10 ** (-slope_db / 20 * np.log2(target / edge))
    moved = spectrum[..., source]
    images = np.zeros_like(spectrum)
    images[..., edge + 1 :] = np.where(flipped, moved.conj(), moved) * turns * gain
    return images
