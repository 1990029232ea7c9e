"""One channel through a model from waveform to waveform, such as the paper's: windows and cross-fades.

The network sees overlapping windows on a fixed grid, so the result does not depend on how the signal is cut
into blocks, and memory is that of one window. Only what it adds above the edge is taken, by the crossover of
the frame models; the rest of the output is the input itself.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hifispeech.audio.crossover import correction
from hifispeech.audio.spectral import HOP, istft, stft
from hifispeech.infer.frames import BINS, CELL, REACH_CELLS, SILENCE, EdgeTrack, silence_gate

Samples = npt.NDArray[np.float32]

WINDOW = 480 * HOP  # 5.1 s
OVERLAP = 24 * HOP
STEP = WINDOW - OVERLAP
# Of the overlap, what is nearer than this to a window's end is not heard: it lacks context (the decoder's
# convolutions reach 2 500 samples, the crossover's frames 1 024).
MARGIN = 8 * HOP
LEAST_WINDOW = 192 * HOP  # the last window is made so long, if the signal is
LEAST_SAMPLES = 4 * HOP
FADE_IN = np.clip((np.arange(OVERLAP) + 0.5 - MARGIN) / (OVERLAP - 2 * MARGIN), 0.0, 1.0).astype(np.float32)

LEVEL = 10.0 ** (-25 / 20)  # RMS of the loud samples of what the network sees, in training and here
PEAK = 0.95


class WaveformModel(Protocol):
    """A network on waveforms at 48 kHz."""

    def run(self, audio: Samples) -> Samples:
        """The full-band version of a window. Shape: `[time]`, whole hops, kept."""
        ...


class WaveformGenerator:
    """Adds the missing band to one channel at 48 kHz; the interface of `generator.Generator`.

    Push blocks of any size; each call returns the samples that became final, up to one window (5 s) later.
    The concatenation is as long as the input and does not depend on the block sizes.
    """

    def __init__(self, model: WaveformModel, edges: EdgeTrack) -> None:
        self.model, self.edges = model, edges
        self.past = np.zeros(0, np.float32)  # the end of what is sent: context of a short last window
        self.buffer = np.zeros(0, np.float32)  # samples not sent yet, from `start` on
        self.held: Samples | None = None  # the previous window's band over the first samples of the buffer
        self.start = 0

    def push(self, block: Samples) -> Samples:
        """Shape: `[time]` in, `[whatever is final]` out."""
        self.buffer = np.concatenate([self.buffer, block])
        out = [np.zeros(0, np.float32)]
        while len(self.buffer) >= WINDOW:
            band = self._blended(self._band(self.buffer[:WINDOW], self.start))
            out.append(self.buffer[:STEP] + band[:STEP])
            self.held = band[STEP:]
            self.past = self.buffer[STEP - LEAST_WINDOW : STEP]
            self.buffer = self.buffer[STEP:]
            self.start += STEP
        return np.concatenate(out)

    def flush(self) -> Samples:
        """The rest of the output: as many samples came out as went in. Shape: `[rest]`."""
        rest, self.buffer = self.buffer, np.zeros(0, np.float32)
        if not len(rest):
            return rest
        if self.held is not None and len(rest) == OVERLAP:  # the signal ends where the last window did
            return rest + self.held
        context = max(0, LEAST_WINDOW - len(rest)) // HOP * HOP if len(self.past) else 0
        signal = np.concatenate([self.past[len(self.past) - context :], rest])
        return rest + self._blended(self._band(signal, self.start - context)[context:])

    def _blended(self, band: Samples) -> Samples:
        """Cross-fade from the previous window to this one. Shape: `[time]`, kept."""
        if self.held is None:
            return band
        faded = self.held + (band[:OVERLAP] - self.held) * FADE_IN
        return np.concatenate([faded, band[OVERLAP:]], dtype=np.float32)

    def _band(self, audio: Samples, start: int) -> Samples:
        """What a window that begins at sample `start` gets added. Shape: `[time]`, kept."""
        _, crossover = self.edges.at(start + HOP * np.arange(1 + whole(len(audio)) // HOP))
        if crossover.min() >= BINS or np.abs(audio).max() <= SILENCE:
            return np.zeros_like(audio)
        return added_band(self.model.run, audio, crossover)


def added_band(
    run: Callable[[Samples], Samples], audio: Samples, crossover: npt.NDArray[np.integer]
) -> Samples:
    """What is to be added to a window: the band `run` generates above the edges instead of the input's.

    Shape: audio `[time]`, crossover (a bin) `[1 + whole(time) // HOP]`; `[time]` back. Zero where the input
    is digital silence.
    """
    # Mirrored, not filled with zeros: an end that is not at zero would be a step, heard in the high band.
    padded = np.pad(audio, (0, whole(len(audio)) - len(audio)), mode="symmetric")
    gain = level_gain(padded)
    generated = run(padded * gain) / gain
    band = istft(correction(stft(padded), stft(generated), crossover), len(padded)).astype(np.float32)
    reach = CELL * REACH_CELLS
    gate = silence_gate(np.pad(padded, (reach, reach)), len(padded))
    return (band if gate is None else band * gate)[: len(audio)]


def level_gain(audio: Samples) -> np.float32:
    """Gain that brings a window to the level the network is trained at: its loud samples to -25 dBFS RMS.

    Loud is what has more power than the mean, so pauses do not count. No sample exceeds `PEAK`; the gain of
    silence is 1. The network's normalisations hide the level from it: it has to be the same always.
    """
    power = np.square(audio, dtype=np.float64)
    peak = float(power.max(initial=0.0)) ** 0.5
    if peak <= SILENCE:
        return np.float32(1.0)
    loud = power[power >= power.mean()]  # not >: a constant has no sample above its mean
    return np.float32(min(LEVEL / loud.mean() ** 0.5, PEAK / peak))


def whole(samples: int) -> int:
    """The next whole number of hops, at least `LEAST_SAMPLES`."""
    return max(samples + -samples % HOP, LEAST_SAMPLES)
