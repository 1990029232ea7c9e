"""One channel through a frame model, block by block: the only path from samples to samples, file or stream.

Input sample `n` and output sample `n` are the same instant. An output sample is final once every frame that
covers it is generated: `n_fft + look_ahead * hop` samples later (64 ms for the fast model).
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hifispeech.audio.crossover import correction
from hifispeech.audio.excitation import OVERLAP_GAIN
from hifispeech.audio.spectral import HOP, N_FFT, frame_spectra, hann, overlap_add
from hifispeech.infer.onnx import Feed, FrameModel, complex_of

Samples = npt.NDArray[np.float32]

BINS = N_FFT // 2 + 1
CHUNK_FRAMES = 128
LEAD = N_FFT - HOP  # zeros before the first sample: the first frame ends one hop into the signal
SYNTHESIS_WINDOW = hann(N_FFT) / np.float32(OVERLAP_GAIN)
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


class Part(NamedTuple):
    """Frames under way: analysed, but not put out yet.

    `first`: number of the first frame. `frames`: how many. Of frames to which a band is added: their spectrum
    `[frames, bins]`, their crossover bins `[frames]`, and a function that waits for the generated planes.
    """

    first: int
    frames: int
    spectrum: npt.NDArray[np.complex64] | None = None
    crossover: npt.NDArray[np.integer] | None = None
    generated: Callable[[], npt.NDArray[np.float32]] | None = None


class BandAdder:
    """Input plus generated band: crossover, overlap-add, and the gate that keeps digital silence silent."""

    def __init__(self) -> None:
        self.tail = np.zeros(LEAD, np.float32)  # overlap-add of frames that later frames still add to
        self.pending = np.zeros(0, np.float32)  # input samples whose output is not final yet
        # Output history that the silence gate looks back on.
        self.before = np.zeros(CELL * REACH_CELLS, np.float32)

    def receive(self, block: Samples) -> None:
        """More input. Shape: `[time]`."""
        self.pending = np.concatenate([self.pending, block])

    def add(
        self,
        first_frame: int,
        frames: int,
        spectrum: npt.NDArray[np.complex64] | None = None,
        generated: npt.NDArray[np.complex64] | None = None,
        crossover: npt.NDArray[np.integer] | None = None,
    ) -> Samples:
        """The output that the next frames make final; without a generated band, the input itself.

        Shape: spectrum `[frames, bins]`, generated `[frames, high]` (the highest bins), crossover `[frames]`
        (bins) to `[time]`, one hop a frame, less before the first sample.
        """
        high = self._overlapped(first_frame, frames, spectrum, generated, crossover)
        start = first_frame * HOP - LEAD
        high = high[min(max(0, -start), len(high)) :]
        count, reach = len(high), CELL * REACH_CELLS
        context = np.concatenate([self.before, self.pending[: count + reach]])
        own, self.pending = self.pending[:count], self.pending[count:]
        self.before = context[count : count + reach]
        gate = silence_gate(context, count)
        return own + high if gate is None else own + high * gate

    def _overlapped(
        self,
        first_frame: int,
        frames: int,
        spectrum: npt.NDArray[np.complex64] | None,
        generated: npt.NDArray[np.complex64] | None,
        crossover: npt.NDArray[np.integer] | None,
    ) -> Samples:
        """The generated band as `[frames * hop]` final samples, the first at the first frame's start."""
        if generated is None and not self.tail.any():
            return np.zeros(frames * HOP, np.float32)
        signal = np.zeros(LEAD + frames * HOP, np.float32)
        if generated is not None and spectrum is not None and crossover is not None:
            added = correction(spectrum, generated, crossover)
            added[: max(0, -first_frame)] = 0.0  # frames before the first
            blocks = np.fft.irfft(added, n=N_FFT, axis=-1)
            blocks *= SYNTHESIS_WINDOW
            signal = overlap_add(blocks, HOP)
        signal[:LEAD] += self.tail
        self.tail = signal[frames * HOP :]
        return signal[: frames * HOP]


class Generator:
    """Adds the missing band to one channel at 48 kHz.

    Push blocks of any size; each call returns the samples that became final. The concatenation is as long as
    the input and does not depend on the block sizes (up to rounding of about 1e-6).

    Args:
        model: runs on frames.
        edges: where the input ends; may be replaced between pushes, for the samples to come.
        chunk_frames: frames that the model is given at a time, at most.
        least_frames: frames it waits for; by default a whole chunk. 1 for the least latency.
        worker: a pool of one thread that the model runs in. The output then is later by a chunk: while the
            model works on it, the next one is read and analysed.
    """

    def __init__(
        self,
        model: FrameModel,
        edges: EdgeTrack,
        chunk_frames: int = CHUNK_FRAMES,
        worker: Executor | None = None,
        *,
        least_frames: int | None = None,
    ) -> None:
        self.model, self.edges, self.worker = model, edges, worker
        self.chunk_frames = min(chunk_frames, model.max_frames)
        self.least_frames = least_frames or self.chunk_frames
        self.under_way: deque[list[Part]] = deque()
        self.state = model.initial_state()
        self.buffer = np.zeros(LEAD, np.float32)  # samples not yet consumed by a whole hop
        self.adder = BandAdder()
        self.past = np.zeros((model.look_ahead, BINS), np.complex64)
        self.silent = np.ones(model.look_ahead, bool)  # whether those frames are digital silence
        self.next_frame = (
            0  # number of the next frame to analyse; it starts at sample next_frame * HOP - LEAD
        )
        self.last = np.float32(0)  # the last sample received
        self.received = self.sent = 0

    def push(self, block: Samples) -> Samples:
        """Shape: `[time]` in, `[whatever is final]` out."""
        if len(block):
            if not self.received:
                self.buffer = block[0] * FADE
            self.last = block[-1]
        self.received += len(block)
        return self._advance(block, self.least_frames, 0 if self.worker is None else 1)

    def flush(self) -> Samples:
        """The rest of the output: as many samples came out as went in. Shape: `[rest]`."""
        missing = self.received - self.sent
        silence = np.zeros(HOP * (self.model.look_ahead + 2), np.float32)
        return self._advance(np.concatenate([self.last * FADE[::-1], silence]), 1, 0)[:missing]

    def _advance(self, block: Samples, least_frames: int, under_way: int) -> Samples:
        """Work on the frames that are there, and leave at most `under_way` chunks unfinished."""
        self.buffer = np.concatenate([self.buffer, block])
        self.adder.receive(block)
        out: list[Samples] = []
        while (ready := (len(self.buffer) - LEAD) // HOP) >= least_frames:
            end = self.next_frame + min(ready, self.chunk_frames)
            chunk: list[Part] = []
            while self.next_frame < end:  # channels that switch at different times stay together
                chunk.append(self._analyse(end - self.next_frame))
            self.under_way.append(chunk)
            out += self._finished(under_way)
        out += self._finished(under_way)
        made = np.concatenate(out) if out else np.zeros(0, np.float32)
        self.sent += len(made)
        return made

    def _finished(self, under_way: int) -> Iterator[Samples]:
        while len(self.under_way) > under_way:
            for part in self.under_way.popleft():
                generated = None if part.generated is None else complex_of(part.generated())
                yield self.adder.add(part.first, part.frames, part.spectrum, generated, part.crossover)

    def _analyse(self, count: int) -> Part:
        """Analyse up to `count` frames and have their high band generated.

        The model takes one cutoff a call and is spared silence: the frames end where either changes. However
        long silence lasts, the model's memory is that of the signal before.
        """
        delay = self.model.look_ahead
        number = self.next_frame + np.arange(count)
        first = self.next_frame - delay
        if not self.edges.generates:  # only the delay: channels of one file stay together
            self.next_frame += count
            self.buffer = self.buffer[count * HOP :]
            return Part(first, count)
        intact, _ = self.edges.at(self._centre(number))
        silent = np.concatenate([self.silent, silent_frames(self.buffer[: LEAD + count * HOP])])
        idle = all_of_last(silent, delay + 1)  # the frame whose output is due is silent, too
        count = int(np.argmax((intact != intact[0]) | (idle != idle[0]))) or count
        number, self.silent = number[:count], silent[count : count + delay]
        self.next_frame += count
        spectrum = np.concatenate([self.past, frame_spectra(self.buffer[: LEAD + count * HOP])])
        self.past = spectrum[count:]
        self.buffer = self.buffer[count * HOP :]
        if idle[0]:
            return Part(first, count)
        _, crossover = self.edges.at(self._centre(number - delay))
        crossover = np.maximum(crossover, intact[0])  # the model generates from its cutoff on
        generated = self._run(self.model.feed(spectrum, first, int(intact[0])))
        return Part(first, count, spectrum[:count], crossover, generated)

    def _run(self, feed: Feed) -> Callable[[], npt.NDArray[np.float32]]:
        """Have the model run, and return a function that waits for its result."""

        def run() -> npt.NDArray[np.float32]:
            generated, self.state = self.model.step(feed, self.state)
            return generated

        if self.worker is not None:
            return self.worker.submit(run).result
        generated = run()
        return lambda: generated

    @staticmethod
    def _centre(number: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        return number * HOP - LEAD + N_FFT // 2


def silent_frames(audio: Samples) -> npt.NDArray[np.bool_]:
    """Which whole frames are digital silence. Shape: `[time]`, whole hops, to `[frames]`."""
    hops = np.abs(audio.reshape(-1, HOP)).max(axis=1) <= SILENCE
    return all_of_last(hops, N_FFT // HOP)


def all_of_last(flags: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.bool_]:
    """Whether a flag and the `count - 1` before it are set. Shape: `[time]` to `[time - count + 1]`."""
    length = len(flags) - count + 1
    return np.logical_and.reduce([flags[i : i + length] for i in range(count)])


def silence_gate(context: Samples, count: int) -> Samples | None:
    """0 where the signal is silent for `REACH_CELLS` cells around, else 1, linear between; None if all 1.

    Shape: context `[reach + count + reach]` (the samples and their neighbourhood), whole cells, to `[count]`.
    """
    reach = CELL * REACH_CELLS
    cells = np.abs(context.reshape(-1, CELL)).max(axis=1) > SILENCE
    if cells.all():
        return None
    if not cells.any():
        return np.zeros(count, np.float32)
    heard = np.convolve(cells, np.ones(2 * REACH_CELLS - 1))[REACH_CELLS - 1 :][: len(cells)]
    open_cells = (heard > 0.5).astype(np.float32)
    centres = (np.arange(len(open_cells)) + 0.5) * CELL
    return np.interp(reach + np.arange(count), centres, open_cells).astype(np.float32)
