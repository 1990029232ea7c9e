"""One channel through a frame model, block by block: the only path from samples to samples, file or stream.

Input sample `n` and output sample `n` are the same instant. An output sample is final once every frame that
covers it is generated: `n_fft + look_ahead * hop` samples later (64 ms for the default model).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hifispeech.audio.crossover import correction
from hifispeech.audio.spectral import HOP, N_FFT, frame_spectra, hann, overlap_add

from .backends import FrameModel

Samples = npt.NDArray[np.float32]

BINS = N_FFT // 2 + 1
CHUNK_FRAMES = 128
LEAD = N_FFT - HOP  # zeros before the first sample: the first frame ends one hop into the signal
OVERLAP_GAIN = 1.5  # sum of the squared Hann windows at hop = n_fft / 4
SILENCE = 3e-8  # peak under which samples count as digital silence: half a step of a 24-bit file
# An end that is not at zero would be a step, whose high band is no part of the signal: fade to it instead.
FADE = (np.sin(np.pi / 2 * (np.arange(LEAD) + 0.5) / LEAD) ** 2).astype(np.float32)
CELL = 64  # resolution of the silence gate, samples
REACH_CELLS = 4


class EdgeTrack(NamedTuple):
    """The edge over time, from sample `starts[i]` on.

    The input is intact below bin `intact[i]` (the model predicts from there) and is heard below bin
    `crossover[i]` (the generated band is heard above it).
    """

    starts: tuple[int, ...] = (0,)
    intact: tuple[int, ...] = (BINS,)
    crossover: tuple[int, ...] = (BINS,)

    def at(self, samples: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        """Intact and crossover bins at the given sample positions, each of the same shape."""
        index = np.maximum(np.searchsorted(self.starts, samples, side="right") - 1, 0)
        return np.asarray(self.intact)[index], np.asarray(self.crossover)[index]

    @property
    def generates(self) -> bool:
        """Whether anything is to be generated at any time."""
        return min(self.crossover) < BINS


class Generator:
    """Adds the missing band to one channel at 48 kHz.

    Push blocks of any size; each call returns the samples that became final. The concatenation is as long as
    the input and does not depend on the block sizes (up to rounding of about 1e-6).
    """

    def __init__(self, model: FrameModel, edges: EdgeTrack, chunk_frames: int = CHUNK_FRAMES) -> None:
        self.model, self.edges, self.chunk_frames = model, edges, chunk_frames
        self.state = model.initial_state()
        self.buffer = np.zeros(LEAD, np.float32)  # samples not yet consumed by a whole hop
        self.pending = np.zeros(0, np.float32)  # input samples whose output is not final yet
        self.tail = np.zeros(LEAD, np.float32)  # overlap-add of frames that later frames still add to
        self.past = np.zeros((model.look_ahead, BINS), np.complex64)
        self.silent = np.ones(model.look_ahead, bool)  # whether those frames are digital silence
        self.next_frame = (
            0  # number of the next frame to analyse; it starts at sample next_frame * HOP - LEAD
        )
        self.before = np.zeros(
            CELL * REACH_CELLS, np.float32
        )  # output history the silence gate looks back on
        self.last = np.float32(0)  # the last sample received
        self.received = self.sent = 0

    def push(self, block: Samples) -> Samples:
        """Shape: `[time]` in, `[whatever is final]` out."""
        if len(block):
            if not self.received:
                self.buffer = block[0] * FADE
            self.last = block[-1]
        self.received += len(block)
        return self._advance(block, self.chunk_frames)

    def flush(self) -> Samples:
        """The rest of the output: as many samples came out as went in. Shape: `[rest]`."""
        missing = self.received - self.sent
        silence = np.zeros(HOP * (self.model.look_ahead + 2), np.float32)
        return self._advance(np.concatenate([self.last * FADE[::-1], silence]), 1)[:missing]

    def _advance(self, block: Samples, least_frames: int) -> Samples:
        self.buffer = np.concatenate([self.buffer, block])
        self.pending = np.concatenate([self.pending, block])
        out: list[Samples] = []
        while True:
            ready = (len(self.buffer) - LEAD) // HOP
            if ready < least_frames:
                break
            end = self.next_frame + min(ready, self.chunk_frames)
            while self.next_frame < end:  # channels that switch at different times stay together
                out.append(self._generate(end - self.next_frame))
        made = np.concatenate(out) if out else np.zeros(0, np.float32)
        self.sent += len(made)
        return made

    def _generate(self, count: int) -> Samples:
        """Analyse up to `count` frames, generate, and return the samples that became final.

        The model takes one cutoff a call and is spared silence: the frames end where either changes. However
        long silence lasts, the model's memory is that of the signal before.
        """
        delay = self.model.look_ahead
        number = self.next_frame + np.arange(count)
        if not self.edges.generates:  # only the delay: channels of one file stay together
            self.next_frame += count
            self.buffer = self.buffer[count * HOP :]
            return self._finish(np.zeros(count * HOP, np.float32), int(number[0]) - delay)
        intact, _ = self.edges.at(self._centre(number))
        silent = np.concatenate([self.silent, silent_frames(self.buffer[: LEAD + count * HOP])])
        idle = all_of_last(silent, delay + 1)  # the frame whose output is due is silent, too
        count = int(np.argmax((intact != intact[0]) | (idle != idle[0]))) or count
        number, self.silent = number[:count], silent[count : count + delay]
        self.next_frame += count
        spectrum = frame_spectra(self.buffer[: LEAD + count * HOP])
        self.buffer = self.buffer[count * HOP :]
        delayed = np.concatenate([self.past, spectrum])
        self.past = delayed[count:]
        if idle[0]:
            return self._finish(self._synthesise(np.zeros_like(spectrum)), int(number[0]) - delay)
        generated, self.state = self.model.run(spectrum, int(number[0]) - delay, int(intact[0]), self.state)
        _, crossover = self.edges.at(self._centre(number - delay))
        crossover = np.maximum(crossover, intact[0])  # below its cutoff, the model's output means nothing
        added = correction(delayed[:count], generated, crossover)
        added[number < delay] = 0.0
        return self._finish(self._synthesise(added), int(number[0]) - delay)

    @staticmethod
    def _centre(number: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        return number * HOP - LEAD + N_FFT // 2

    def _synthesise(self, added: npt.NDArray[np.complex64]) -> Samples:
        """Overlap-add; returns `[frames * hop]` final samples, the first at the first frame's start."""
        blocks = np.fft.irfft(added, n=N_FFT, axis=-1).astype(np.float32) * (hann(N_FFT) / OVERLAP_GAIN)
        signal = overlap_add(blocks, HOP)
        signal[:LEAD] += self.tail
        self.tail = signal[len(added) * HOP :]
        return signal[: len(added) * HOP]

    def _finish(self, high: Samples, first_frame: int) -> Samples:
        """Input plus generated band, gated to zero where the input is digital silence."""
        start = first_frame * HOP - LEAD
        skip = max(0, -start)
        high = high[min(skip, len(high)) :]
        count, reach = len(high), CELL * REACH_CELLS
        context = np.concatenate([self.before, self.pending[: count + reach]])
        own, self.pending = self.pending[:count], self.pending[count:]
        self.before = context[count : count + reach]
        gate = silence_gate(context, count)
        return own + high if gate is None else own + high * gate


def silent_frames(audio: Samples) -> npt.NDArray[np.bool_]:
    """Which whole frames are digital silence. Shape: `[time]`, whole hops, to `[frames]`."""
    hops = np.abs(audio.reshape(-1, HOP)).max(axis=1) <= SILENCE
    return all_of_last(hops, N_FFT // HOP)


def all_of_last(flags: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.bool_]:
    """Whether a flag and the `count - 1` before it are set. Shape: `[time]` to `[time - count + 1]`."""
    return np.asarray(np.lib.stride_tricks.sliding_window_view(flags, count).all(axis=1))


def silence_gate(context: Samples, count: int) -> Samples | None:
    """0 where the signal is silent for `REACH_CELLS` cells around, else 1, linear between; None if all 1.

    Shape: context `[reach + count + reach]` (the samples and their neighbourhood), whole cells, to `[count]`.
    """
    reach = CELL * REACH_CELLS
    cells = np.abs(context.reshape(-1, CELL)).max(axis=1) > SILENCE
    if cells.all():
        return None
    window = np.lib.stride_tricks.sliding_window_view(np.pad(cells, REACH_CELLS - 1), 2 * REACH_CELLS - 1)
    open_cells = np.asarray(window.any(axis=1), np.float32)
    centres = (np.arange(len(open_cells)) + 0.5) * CELL
    return np.interp(reach + np.arange(count), centres, open_cells).astype(np.float32)
