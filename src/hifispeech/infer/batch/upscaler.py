"""Many recordings at a time through the fast model in PyTorch: for GPUs and whole corpora.

The numbers are those of `Upscaler`, which works on one channel after the other in ONNX Runtime. Here a
channel is a row of a batch (`batched_rows`); the STFT, the network, the crossover, the inverse STFT and the
silence gate run on the device (`batched_network`), 1.4 s of every row at a time, with the model's memory
carried from chunk to chunk: the device's memory does not grow with the length of the recordings. Resampling
and the measurement of the bandwidth stay on the CPU, in threads beside it. Needs the extra `train`.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hifispeech.errors import AudioError

try:
    import torch
    from torch import Tensor
except ModuleNotFoundError as error:
    raise ImportError('batches need PyTorch; install it with: pip install "hifispeech[train]"') from error

from hifispeech.infer.batch.network import CHUNK_FRAMES, BatchNetwork, Precision
from hifispeech.infer.batch.recording import Recording, Some, grouped
from hifispeech.infer.batch.rows import Chunk, Row, Samples
from hifispeech.infer.edges import fixed_track

BATCH_SIZE = 64
IN_FLIGHT = 2  # chunks that the device has while the CPU prepares another


@dataclass
class Task:
    """A chunk that the device works on, or (no chunk) the mark that all rows of a list are done with."""

    chunk: Chunk | None = None
    band: Tensor | None = None
    event: torch.cuda.Event | None = None

    def finish(self) -> bool:
        """Wait for the device and add the band to the rows; whether this was the end of a list."""
        if self.event is not None:
            self.event.synchronize()
        if self.chunk is not None and self.band is not None:
            self.chunk.add(self.band.numpy())
        return self.chunk is None


class BatchUpscaler:
    """Speech at any rate or bandwidth to full-band 48 kHz, many recordings at a time.

    The results are those of `Upscaler`, apart from rounding. Not to be used from two threads at a time.

    Args:
        model, device, precision, compiled: as those of `BatchNetwork`.
        batch_size: channels that the device works on at a time.
        threads: for resampling and measuring; None takes the cores there are.

    Raises:
        ImportError: if PyTorch or onnx is not installed.
        ModelError: if the model is missing, damaged or no frame model, or the device is not there.
        ValueError: for a batch size or thread count below 1.
    """

    def __init__(
        self,
        model: str | Path = "fast",
        device: str = "auto",
        *,
        precision: Precision = "fp32",
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        compiled: bool = False,
    ) -> None:
        self.batch_size, self.threads = batch_size, os.cpu_count() or 1 if threads is None else threads
        if self.batch_size < 1 or self.threads < 1:
            raise ValueError(f"batch_size={batch_size}, threads={threads}: pass 1 or more")
        self.network = BatchNetwork(model, device, precision, compiled=compiled)
        self.on_cuda = self.network.device.type == "cuda"

    def process_many(
        self, recordings: Sequence[tuple[npt.NDArray[np.floating], int]], *, cutoff_hz: float | None = None
    ) -> list[Samples]:
        """Upscale recordings `(audio, sample_rate)`; the results are in their order.

        Shape: each `[channels, time]` or `[time]` to the same with `round(time * 48000 / sample_rate)`
        samples. Beside input and output, the memory of two batches of the longest recordings is needed.

        Raises:
            AudioError: naming the first recording that `Upscaler.process` would refuse, before any work.
        """
        checked = [self._checked(index, *recording, cutoff_hz) for index, recording in enumerate(recordings)]
        results: dict[int, Samples] = {}
        for group in self.work(grouped(checked, self.batch_size)):
            for recording in group:
                results[recording.number] = recording.result()
        return [
            results[index] if np.ndim(audio) > 1 else results[index][0]
            for index, (audio, _) in enumerate(recordings)
        ]

    def work(self, groups: Iterable[list[Some]]) -> Iterator[list[Some]]:
        """Upscale groups of recordings; yields each group when `Recording.result` is there."""
        under_way: deque[list[Some]] = deque()

        def rows() -> Iterator[list[Row]]:
            for group in self._prepared(groups):
                under_way.append(group)
                yield [row for recording in group for row in recording.rows if row is not None]

        for _ in self.generate(rows()):
            yield under_way.popleft()

    def generate(self, lists: Iterable[Sequence[Row]]) -> Iterator[None]:
        """Add the missing band to the rows of each list; yields when a list is done, in their order.

        The next chunks are under way before the band of the last one is added, and the next list is asked
        for before the last one is done.
        """
        under_way: deque[Future[bool]] = deque()
        with ThreadPoolExecutor(1, "hifispeech-add") as adder:
            for rows in lists:
                for task in self._started(rows):
                    under_way.append(adder.submit(task.finish))
                    if len(under_way) > IN_FLIGHT and under_way.popleft().result():
                        yield
            for future in under_way:
                if future.result():
                    yield

    def _started(self, rows: Sequence[Row]) -> Iterator[Task]:
        """Have the device begin with one chunk after the other; rows of like length share a batch."""
        ordered = sorted((row for row in rows if len(row.steps)), key=lambda row: -len(row.steps))
        for start in range(0, len(ordered), self.batch_size):
            batch = ordered[start : start + self.batch_size]
            device = self.network.device
            state = tuple(x.to(device) for x in self.network.initial_state(len(batch)))
            for first in range(0, len(batch[0].steps), CHUNK_FRAMES):
                batch = [row for row in batch if len(row.steps) > first]
                chunk = Chunk.of(batch, first, CHUNK_FRAMES, self.on_cuda)
                hops, plan = (x.to(device, non_blocking=self.on_cuda) for x in (chunk.hops, chunk.plan))
                band, state = self.network.run(hops, plan, tuple(x[: len(batch)] for x in state))
                yield self._task(chunk, band)
        yield Task()

    def _task(self, chunk: Chunk, band: Tensor) -> Task:
        if not self.on_cuda:
            return Task(chunk, band.cpu())
        band = band.to("cpu", non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return Task(chunk, band, event)

    def _prepared(self, groups: Iterable[list[Some]]) -> Iterator[list[Some]]:
        """Resample and measure, in threads, one group ahead of the device."""
        ahead: deque[tuple[list[Some], list[Future[Recording]]]] = deque()

        def first() -> list[Some]:
            group, futures = ahead.popleft()
            wait(futures)
            return group

        with ThreadPoolExecutor(self.threads, "hifispeech") as pool:
            for group in groups:
                ahead.append((group, [pool.submit(recording.prepare) for recording in group]))
                if len(ahead) > 1:
                    yield first()
            while ahead:
                yield first()

    def _checked(
        self, index: int, audio: npt.NDArray[np.floating], sample_rate: int, cutoff_hz: float | None
    ) -> Recording:
        from hifispeech.audio.resample import check_rate
        from hifispeech.infer.upscaler import check_audio

        try:
            rate, signal = check_rate(sample_rate), check_audio(audio)
            if cutoff_hz is not None:
                fixed_track(cutoff_hz, rate)
        except AudioError as error:
            raise AudioError(f"recording {index}: {error}") from error
        channels, frames = signal.shape
        return Recording(
            index, lambda: (signal, rate), channels, frames / rate, cutoff_hz, self.network.look_ahead
        )
