"""Low-rate inputs for evaluation, by stated methods: papers differ in them, and so do their numbers.

All keep length and timing: `round(time * rate / 48000)` samples at the input rate, aligned with the truth.
"""

import numpy as np
import numpy.typing as npt

from hifispeech.audio.degrade.filters import DegradeSpec, apply
from hifispeech.audio.resample import resample
from hifispeech.audio.spectral import N_FFT, istft, stft

RATE = 48000
_ORDER = 8  # of the recursive filters, as in ssr_eval

METHODS = {
    "sinc": "soxr VHQ: linear-phase sinc, -3 dB at 0.95 of the new Nyquist frequency",
    "hann-sinc": "sinc of 6 zero crossings under a Hann window: gentle, the default of torchaudio (AP-BWE)",
    "stft": "STFT bins (2048/512) from the new Nyquist frequency up set to 0, then resampled (NU-Wave 2)",
    "fft": "brick wall in the Fourier transform of the whole clip (scipy.signal.resample)",
    "butter": "Butterworth, order 8, zero phase, -6 dB at the new Nyquist frequency",
    "cheby": "Chebyshev type I, order 8, 0.05 dB ripple, zero phase, -6 dB at the new Nyquist frequency",
    "ellip": "elliptic, order 8, 0.05 dB ripple, 60 dB stop band, zero phase, -6 dB there",
    "bessel": "Bessel, order 8, zero phase, -6 dB at the new Nyquist frequency: the gentlest",
}
_FAMILIES = {
    "hann-sinc": "fir",
    "fft": "fft",
    "butter": "butterworth",
    "cheby": "chebyshev1",
    "ellip": "elliptic",
    "bessel": "bessel",
}


def low_rate(truth: npt.NDArray[np.floating], rate: int, method: str = "sinc") -> npt.NDArray[np.float32]:
    """The low-rate input made of a true recording at 48 kHz; `METHODS` says what each method does.

    Shape: `[time]` or `[channels, time]` to the same with `round(time * rate / 48000)` samples.

    Raises:
        ValueError: for an unknown method or a rate that is not in 2000..47999.
        ImportError: where SciPy is missing (all but `sinc`, `stft` and `fft`).
    """
    if method not in METHODS:
        raise ValueError(f"degrade={method!r} is unknown; choose one of {', '.join(METHODS)}")
    if not 2000 <= rate < RATE:
        raise ValueError(f"rate={rate} is outside 2000..{RATE - 1} Hz; pass the sample rate of the input")
    signal = np.asarray(truth, np.float32)
    if method == "sinc":
        return resample(signal, RATE, rate)
    if method == "stft":
        spectrum = stft(signal)
        spectrum[..., -(-N_FFT * rate // (2 * RATE)) :] = 0
        return apply(istft(spectrum, signal.shape[-1]), RATE, _spec("fft", rate))[0]
    return apply(signal, RATE, _spec(_FAMILIES[method], rate))[0]


def _spec(family: str, rate: int) -> DegradeSpec:
    # A Hann window over 6 zero crossings a side is a transition of 0.55 of the cutoff.
    return DegradeSpec(
        rate,
        rate / 2,
        family,
        order=_ORDER,
        ripple_db=0.05,
        stop_db=60.0,
        fir_window="hann",
        fir_transition=0.55,
    )
