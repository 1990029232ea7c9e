"""One recording on its way through `upscaler`: an array, or a file that is decoded when its turn comes."""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import TypeVar

import numpy as np

from hifispeech.infer.batch.rows import Row, Samples
from hifispeech.infer.edges import Track, edge_track, fixed_track, measure

Load = Callable[[], tuple[Samples, int]]


class Recording:
    """A recording before, in and after a batch.

    Args:
        number: its place among those of a call.
        load: gives audio `[channels, time]` and sample rate; called once, in any thread.
        channels, duration_s: of that audio; files of like length go together.
        cutoff_hz: where the content ends; measured when None.
        look_ahead: of the model, in frames.

    After `prepare`: `wide` is the audio at 48 kHz, `rows` its channels (None: nothing is missing in it),
    `tracks` what was measured, `error` what went wrong.
    """

    def __init__(
        self,
        number: int,
        load: Load,
        channels: int,
        duration_s: float,
        cutoff_hz: float | None,
        look_ahead: int,
    ) -> None:
        self.number = number
        self._load, self._cutoff_hz, self._look_ahead = load, cutoff_hz, look_ahead
        self.channels, self.duration_s = channels, duration_s
        self.wide: Samples = np.zeros((channels, 0), np.float32)
        self.rows: list[Row | None] = []
        self.tracks: list[Track] = []
        self.error: Exception | None = None

    def prepare(self) -> "Recording":
        """Load, measure and resample; an error is kept for `result`."""
        try:
            self._prepare(*self._load())
        except Exception as error:  # of this recording: the others of its batch have nothing to do with it
            self.error = error
        return self

    def _prepare(self, signal: Samples, sample_rate: int) -> None:
        from hifispeech.audio.resample import resample

        if self._cutoff_hz is None:
            self.tracks = measure([signal], sample_rate, len(signal))
        else:
            self.tracks = [fixed_track(self._cutoff_hz, sample_rate)] * len(signal)
        self.wide = resample(signal, sample_rate)
        edges = [edge_track(track, sample_rate) for track in self.tracks]
        self.rows = [
            Row(channel, edge, self._look_ahead) if edge.generates and len(channel) else None
            for channel, edge in zip(self.wide, edges, strict=True)
        ]

    def result(self) -> Samples:
        """Shape: `[channels, time]`. Frees what was needed for it.

        Raises:
            Exception: what `prepare` met.
        """
        if self.error is not None:
            raise self.error
        channels = [self.wide[i] if row is None else row.audio for i, row in enumerate(self.rows)]
        self.rows, self.wide = [], self.wide[:, :0]
        return np.stack(channels)


Some = TypeVar("Some", bound=Recording)


def grouped(recordings: Sequence[Some], most_rows: int, most_s: float = inf) -> Iterator[list[Some]]:
    """Recordings of like length, as many as have `most_rows` channels or `most_s` seconds of them, the
    longest first; at least one.
    """
    group: list[Some] = []
    rows, seconds = 0, 0.0
    for recording in sorted(recordings, key=lambda recording: -recording.duration_s):
        own_s = recording.channels * recording.duration_s
        if group and (rows + recording.channels > most_rows or seconds + own_s > most_s):
            yield group
            group, rows, seconds = [], 0, 0.0
        group.append(recording)
        rows, seconds = rows + recording.channels, seconds + own_s
    if group:
        yield group
