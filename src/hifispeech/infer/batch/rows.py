"""Channels as rows of a batch: what a chunk of each holds, and where its result belongs. See `upscaler`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hifispeech.audio.excitation import NOISE_FRAMES
from hifispeech.audio.spectral import HOP, N_FFT
from hifispeech.infer.frames import BINS, FADE, LEAD, EdgeTrack, all_of_last, silent_frames

Samples = npt.NDArray[np.float32]

OVERLAPS = N_FFT // HOP  # hops in a frame
LEAD_HOPS = LEAD // HOP


class Row:
    """One channel at 48 kHz on its way through a batch, in hops of `HOP` samples.

    Frame `n` covers hops `n` to `n + 3`, and the signal begins with hop 3, as in `Generator`. A step of the
    model hears frame `n` and puts out frame `n - look_ahead`; it is spared steps in digital silence.

    Args:
        signal: at 48 kHz, one sample at least. Shape: `[time]`.
        edges: where it ends in frequency.
        look_ahead: of the model, in frames.
    """

    def __init__(self, signal: Samples, edges: EdgeTrack, look_ahead: int) -> None:
        self.length, self.look_ahead = len(signal), look_ahead
        self.before = (
            look_ahead + 1
        )  # hops stored before hop 0: of the first step's frame, and one for the gate
        steps = -(-len(signal) // HOP) + LEAD_HOPS + look_ahead
        stored = np.zeros((self.before + steps + OVERLAPS) * HOP, np.float32)
        self.start = self.before * HOP + LEAD
        end = self.start + len(signal)
        stored[self.start - LEAD : self.start] = signal[0] * FADE
        stored[self.start : end] = signal
        stored[end : end + LEAD] = signal[-1] * FADE[::-1]
        silent = np.concatenate([np.ones(look_ahead, bool), silent_frames(stored[self.before * HOP :])])
        self.steps = np.flatnonzero(~all_of_last(silent[:-1], look_ahead + 1))
        self.hops = stored.reshape(-1, HOP)
        self.sum = self.hops.copy()

        intact, _ = edges.at(self._centre(self.steps))
        _, crossover = edges.at(self._centre(self.steps - look_ahead))
        self.cutoff = np.minimum(intact, BINS - 1)  # full band: the model listens on
        self.crossover = np.where(self.steps < look_ahead, BINS, np.maximum(crossover, intact))

    @staticmethod
    def _centre(number: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        return number * HOP - LEAD + N_FFT // 2

    @property
    def audio(self) -> Samples:
        """The signal and what was added to it so far. Shape: `[time]`."""
        return self.sum.reshape(-1)[self.start : self.start + self.length]

    def runs(self, first: int, count: int) -> Iterator[tuple[int, slice]]:
        """The steps `first` to `first + count`, in runs without a gap: how many steps, and the hops in `hops`
        that their frames and the gate need.
        """
        steps = self.steps[first : first + count]
        for run in np.split(steps, np.flatnonzero(np.diff(steps) != 1) + 1):
            start, end = int(run[0]), int(run[-1]) + 1
            low = start - self.look_ahead - 1 + self.before
            yield end - start, slice(low, end + OVERLAPS + self.before)


class Plan(NamedTuple):
    """Which frames the steps of a chunk are about, each `[rows, time]`: the place of the frame put out among
    the chunk's hops, its number in the noise, the first bin to generate, the crossover bin.
    """

    place: Tensor
    number: Tensor
    cutoff: Tensor
    crossover: Tensor


@dataclass
class Chunk:
    """The next steps of the rows of a batch. `pieces`: for each row, hops of the row and where they lie in
    the chunk. `hops` `[rows, hops, HOP]`, `plan` `[4, rows, time]` (see `Plan`).
    """

    rows: Sequence[Row]
    pieces: list[list[tuple[slice, slice]]]
    hops: Tensor
    plan: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], first: int, time: int, pin: bool) -> "Chunk":
        """Steps `first` to `first + time` of every row, padded with steps that are not heard.

        The hops at the silences that are left out lie side by side; what is generated stays within its run.
        """
        pieces: list[list[tuple[slice, slice]]] = []
        plan = torch.zeros((4, len(rows), time), dtype=torch.int32, pin_memory=pin)
        place, number, cutoff, crossover = plan.numpy()
        cutoff[:], crossover[:] = BINS - 1, BINS
        for i, row in enumerate(rows):
            pieces.append([])
            end = done = 0
            for steps, hops in row.runs(first, time):
                length = hops.stop - hops.start
                pieces[i].append((hops, slice(end, end + length)))
                place[i, done : done + steps] = end + 1 + np.arange(steps)
                end, done = end + length, done + steps
            own = slice(first, first + done)
            number[i, :done] = (row.steps[own] - row.look_ahead) % NOISE_FRAMES
            cutoff[i, :done], crossover[i, :done] = row.cutoff[own], row.crossover[own]
        most = max(parts[-1][1].stop for parts in pieces)
        chunk = cls(rows, pieces, torch.empty((len(rows), most, HOP), pin_memory=pin), plan)
        target = chunk.hops.numpy()
        for i, row in enumerate(rows):
            for hops, there in pieces[i]:
                target[i, there] = row.hops[hops]
            target[i, pieces[i][-1][1].stop :] = 0.0
        return chunk

    def add(self, generated: Samples) -> None:
        """Add what was generated to the rows. Shape: `[rows, hops, HOP]`."""
        for row, parts, band in zip(self.rows, self.pieces, generated, strict=True):
            for hops, there in parts:
                row.sum[hops] += band[there]
