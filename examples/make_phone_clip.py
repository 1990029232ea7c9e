"""Make a telephone-like clip (8 kHz mono, 300-3400 Hz) from a full-band recording, as `phone_8k.wav` was.

Usage: python examples/make_phone_clip.py RECORDING examples/phone_8k.wav
"""

import argparse

import numpy as np

import hifispeech
from hifispeech.audio.resample import resample

PHONE_RATE = 8000
BAND_HZ = (300.0, 3400.0)
TAPS = 401
PEAK = 0.5


def bandpass(low_hz: float, high_hz: float, sample_rate: int, taps: int = TAPS) -> np.ndarray:
    """Linear-phase band-pass filter [taps]: the difference of two Hamming-windowed sinc low-passes."""
    time_s = (np.arange(taps) - (taps - 1) / 2) / sample_rate
    high = 2 * high_hz / sample_rate * np.sinc(2 * high_hz * time_s)
    low = 2 * low_hz / sample_rate * np.sinc(2 * low_hz * time_s)
    return (high - low) * np.hamming(taps)


def make_phone_clip(source: str, target: str) -> None:
    """Write the first channel of `source` to `target` as a telephone would carry it."""
    audio, sample_rate = hifispeech.read(source)
    narrow = resample(audio[0], sample_rate, PHONE_RATE)
    narrow = np.convolve(narrow, bandpass(*BAND_HZ, PHONE_RATE), mode="same")
    narrow *= PEAK / np.abs(narrow).max()
    hifispeech.write(target, narrow[None].astype(np.float32), PHONE_RATE, encoding="pcm_16", force=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="full-band recording")
    parser.add_argument("target", help="file to write")
    arguments = parser.parse_args()
    make_phone_clip(arguments.source, arguments.target)
