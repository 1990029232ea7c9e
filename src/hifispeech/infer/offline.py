"""One channel through an offline model: envelopes of long windows, then sound from envelope and excitation.

The network sees windows of `WINDOW` frames (41 s) on a fixed grid, as much of a recording as it needs to know
microphone, room and talker; neighbouring windows overlap and their envelopes are cross-faded. So the result
does not depend on how the signal is cut into blocks, and memory and cost per second do not grow with its
length. The frames are then made one chunk at a time, as those of a frame model.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from hifispeech.audio.bands import BANDS, LOG_SILENCE, LOG_TINY, first_band, log_band_powers
from hifispeech.audio.harmonics import excitation, interpolate_envelope
from hifispeech.audio.spectral import HOP, N_FFT, frame_spectra
from hifispeech.errors import ModelError
from hifispeech.infer.frames import BINS, FADE, LEAD, BandAdder, EdgeTrack, Samples
from hifispeech.weights.packaged import OFFLINE_FORMAT, OFFLINE_FRAMES

WINDOW = OFFLINE_FRAMES
OVERLAP = 512
STEP = WINDOW - OVERLAP
MARGIN = 96  # frames at a window's end whose convolutions lack their context: not used where it is cut
FADE_IN = np.clip((np.arange(OVERLAP) + 0.5 - MARGIN) / (OVERLAP - 2 * MARGIN), 0.0, 1.0).astype(np.float32)
MIN_FRAMES = 16  # the network's level refers to the loudest 16 frames
CHUNK_FRAMES = 128
NOISE_PERIOD = 4096  # frames after which the network's noise repeats
NOMINAL = 1.5  # log10 power to which the loudest frames are brought: a recording of normal level
LOUDEST = 16

Envelope = npt.NDArray[np.float32]


class OfflineModel:
    """An offline model in ONNX Runtime: log10 band powers in, log10 band powers of the whole spectrum out.

    Raises:
        ModelError: if the session's file is not an offline model of this version.
    """

    def __init__(self, session: onnxruntime.InferenceSession, name: str | Path) -> None:
        self.session = session
        try:
            own = json.loads(session.get_modelmeta().custom_metadata_map["hifispeech"])
            self.noise_channels = int(own["model"]["noise"])
            version = own["format"]
        except (KeyError, ValueError) as error:
            raise ModelError(f"{name} is not a hifispeech offline model; export it again") from error
        if version != OFFLINE_FORMAT:
            raise ModelError(f"{name} was made for another version of hifispeech; export it again")

    def envelope(self, logs: Envelope, first: npt.NDArray[np.integer], start: int) -> Envelope:
        """The envelope of a window whose first frame has the number `start`.

        Shape: logs `[frames, BANDS]`, first (number of the first unknown band) `[frames]`; `[frames, BANDS]`.
        """
        count = len(logs)
        logs, shift = levelled(logs, int(first.min()))
        pad = max(0, MIN_FRAMES - count)
        logs = np.pad(logs, ((0, pad), (0, 0)), constant_values=LOG_SILENCE)
        rows = (start + np.arange(count + pad)) % NOISE_PERIOD
        (out,) = self.session.run(
            None,
            {
                "logs": logs[None],
                "first_band": np.pad(first, (0, pad), mode="edge")[None].astype(np.float32),
                "noise": noise_rows(self.noise_channels)[rows][None],
            },
        )
        return np.asarray(out)[0, :count] - shift


def levelled(logs: Envelope, known: int) -> tuple[Envelope, np.float32]:
    """Log powers moved so that the loudest frames are at `NOMINAL`, and by how much: whatever the gain of a
    recording, the network sees the same. The bands from `known` on are not looked at.
    """
    frame = logs[:, 2 : max(known, 3)].max(axis=1)
    loudest = np.partition(frame, -min(LOUDEST, len(frame)))[-min(LOUDEST, len(frame))]
    shift = np.float32(NOMINAL - loudest)
    return np.maximum(logs + shift, np.float32(LOG_SILENCE)), shift


@lru_cache(maxsize=2)
def noise_rows(channels: int) -> npt.NDArray[np.float32]:
    """The network's noise by frame number: files, blocks and channels see the same.

    Shape: `[NOISE_PERIOD, channels]`.
    """
    return np.random.default_rng(20501).standard_normal((NOISE_PERIOD, channels), dtype=np.float32)


class OfflineProcessor:
    """Adds the missing band to one channel at 48 kHz; the interface of `frames.Generator`.

    Push blocks of any size; each call returns the samples that became final, up to one window (41 s) later.
    The concatenation is as long as the input and does not depend on the block sizes. `worker` is a pool of
    one thread that prepares the next frames while this one adds the last.
    """

    def __init__(self, model: OfflineModel, edges: EdgeTrack, worker: Executor | None = None) -> None:
        self.model, self.edges, self.worker = model, edges, worker
        self.adder = BandAdder()
        self.buffer = np.zeros(LEAD, np.float32)  # samples that no whole frame has been made of yet
        self.logs = np.zeros((0, BANDS), np.float32)  # of the frames from `first_frame` on
        self.first_frame = 0  # the first frame of the current window
        self.next_frame = 0  # the next frame to be put out
        self.held: Envelope | None = None  # the previous window's envelope of this window's first frames
        self.waiting = np.zeros(LEAD, np.float32)  # samples from the first frame not put out on
        self.before = np.zeros((0, BANDS), np.float32)  # logs before the window: context of a short last one
        self.last = np.float32(0)
        self.received = self.sent = 0

    def push(self, block: Samples) -> Samples:
        """Shape: `[time]` in, `[whatever is final]` out."""
        if len(block) and not self.received:
            self.buffer = block[0] * FADE
            self.waiting = self.buffer
        if len(block):
            self.last = block[-1]
        self.received += len(block)
        return self._sent(self._advance(block))

    def flush(self) -> Samples:
        """The rest of the output: as many samples came out as went in. Shape: `[rest]`."""
        missing = self.received - self.sent
        out = list(self._advance(np.concatenate([self.last * FADE[::-1], np.zeros(2 * HOP, np.float32)])))
        out += self._last_window()
        return self._sent(out)[:missing]

    def _sent(self, parts: Iterator[Samples] | list[Samples]) -> Samples:
        out = np.concatenate([np.zeros(0, np.float32), *parts])
        self.sent += len(out)
        return out

    def _advance(self, block: Samples) -> Iterator[Samples]:
        """Analyse whole frames, and put out the windows that are complete."""
        self.adder.receive(block)
        self.buffer = np.concatenate([self.buffer, block])
        self.waiting = np.concatenate([self.waiting, block])
        while (ready := (len(self.buffer) - LEAD) // HOP) > 0:
            count = min(ready, CHUNK_FRAMES)
            self.logs = np.concatenate(
                [self.logs, log_band_powers(frame_spectra(self.buffer[: LEAD + count * HOP]))]
            )
            self.buffer = self.buffer[count * HOP :]
            if len(self.logs) >= WINDOW:
                envelope = self._blended(self._envelope(self.logs[:WINDOW], self.first_frame))
                yield from self._made(envelope[:STEP])
                self.held = envelope[STEP:]
                self.before, self.logs = self.logs[:STEP], self.logs[STEP:]
                self.first_frame += STEP

    def _last_window(self) -> Iterator[Samples]:
        """What is left, seen together with enough of what went before to fill a window."""
        count = len(self.logs)
        if self.held is not None and count <= OVERLAP:
            yield from self._made(self.held[:count])
            return
        context = min(len(self.before), WINDOW - count)
        logs = np.concatenate([self.before[len(self.before) - context :], self.logs])
        yield from self._made(self._blended(self._envelope(logs, self.first_frame - context)[context:]))

    def _envelope(self, logs: Envelope, start: int) -> Envelope:
        intact, crossover = self.edges.at(centres(start, len(logs)))
        if crossover.min() >= BINS or logs.max() <= LOG_TINY:
            return np.full_like(logs, LOG_TINY)
        return self.model.envelope(logs, first_band(intact), start)

    def _blended(self, envelope: Envelope) -> Envelope:
        """Cross-fade from the previous window's envelope to this one's."""
        if self.held is None:
            return envelope
        head = self.held + (envelope[:OVERLAP] - self.held) * FADE_IN[: len(envelope), None]
        return np.concatenate([head, envelope[OVERLAP:]], dtype=np.float32)

    def _made(self, envelope: Envelope) -> Iterator[Samples]:
        """The output of the next frames, whose envelope this is; one chunk is prepared ahead of the other."""
        ahead: deque[tuple[int, int, Callable[[], Band | None]]] = deque()
        for first in range(0, len(envelope), CHUNK_FRAMES):
            part = envelope[first : first + CHUNK_FRAMES]
            number, count = self.next_frame, len(part)
            self.next_frame += count
            segment, self.waiting = self.waiting[: LEAD + count * HOP], self.waiting[count * HOP :]
            edges = self.edges.at(centres(number, count))
            ahead.append((number, count, self._started(segment, number, part, *edges)))
            if len(ahead) > (0 if self.worker is None else 1):
                yield self._added(*ahead.popleft())
        while ahead:
            yield self._added(*ahead.popleft())

    def _started(self, *arguments: Any) -> Callable[[], "Band | None"]:
        """Have a chunk's band made, by the worker where there is one; a function that waits for it."""
        if self.worker is not None:
            return self.worker.submit(generated_band, *arguments).result
        band = generated_band(*arguments)
        return lambda: band

    def _added(self, number: int, count: int, wait: "Callable[[], Band | None]") -> Samples:
        band = wait()
        return self.adder.add(number, count) if band is None else self.adder.add(number, count, *band)


class Band(NamedTuple):
    """What is added to a chunk of frames: see `BandAdder.add`."""

    spectrum: npt.NDArray[np.complex64]
    generated: npt.NDArray[np.complex64]
    crossover: npt.NDArray[np.integer]


def generated_band(
    segment: Samples,
    number: int,
    envelope: Envelope,
    intact: npt.NDArray[np.integer],
    crossover: npt.NDArray[np.integer],
) -> Band | None:
    """The band above the edge of the frames in `segment`, the first of which has this number; None where
    nothing is to be generated.

    Shape: segment `[LEAD + frames * HOP]`, envelope `[frames, BANDS]`, intact and crossover bins `[frames]`.
    """
    if crossover.min() >= BINS or not segment.any():
        return None
    spectrum = frame_spectra(segment)
    lowest = int(min(intact.min(), BINS - 1))
    generated = excitation(spectrum, number, intact, lowest)
    generated *= interpolate_envelope(envelope, first_band(intact), lowest)
    return Band(spectrum, generated, np.maximum(crossover, intact))


def centres(first: int, count: int) -> npt.NDArray[np.integer]:
    """The sample at the centre of each frame."""
    return (first + np.arange(count)) * HOP - LEAD + N_FFT // 2
