"""One channel of a live stream whose band may change: a generator for each band, cross-faded.

A generator that is told of another edge while it runs would begin there with memories of a band that it
believed to be intact and that was not: for a moment it is far too loud or too soft. So a new one takes over,
which has heard the last second with the right edge.
"""

import numpy as np

from hifispeech.audio.spectral import HOP
from hifispeech.infer.frames import EdgeTrack, Generator, Samples
from hifispeech.infer.onnx import FrameModel

WARM_UP_FRAMES = 94  # one second, which the new generator is given at once
FADE = (np.sin(np.pi / 2 * (np.arange(960) + 0.5) / 960) ** 2).astype(np.float32)  # 20 ms; sums to 1 reversed


class SwitchingGenerator:
    """Adds the missing band to one channel at 48 kHz; as `Generator`, but its edge can be changed."""

    def __init__(self, model: FrameModel, edge: EdgeTrack) -> None:
        self.model = model
        self.current = Generator(model, edge, least_frames=1)
        self.leaving: Generator | None = None
        self.faded = 0  # samples of the cross-fade that are out
        self.history = np.zeros(0, np.float32)
        self.received = self.sent = 0

    def push(self, block: Samples) -> Samples:
        """Shape: `[time]` in, `[whatever is final]` out."""
        self.received += len(block)
        self.history = np.concatenate([self.history, block])[-(WARM_UP_FRAMES + 1) * HOP :]
        out = self.current.push(block)
        return self._put(out, out if self.leaving is None else self.leaving.push(block))

    def flush(self) -> Samples:
        """The rest of the output: as many samples came out as went in. Shape: `[rest]`."""
        out = self.current.flush()
        return self._put(out, out if self.leaving is None else self.leaving.flush())

    def switch(self, edge: EdgeTrack) -> None:
        """From the next sample that comes out, let another edge fade in."""
        frames = min(self.received // HOP, WARM_UP_FRAMES)
        past = self.history[len(self.history) - frames * HOP - self.received % HOP :]
        self.leaving, self.faded = self.current, 0
        self.current = Generator(self.model, edge, least_frames=1)
        known = self.current.push(past)
        assert self.received - len(past) + len(known) == self.sent

    def _put(self, out: Samples, before: Samples) -> Samples:
        """The next samples, faded from those of the generator that leaves. Shape: `[time]`."""
        self.sent += len(out)
        if self.leaving is None:
            return out
        share = np.ones(len(out), np.float32)
        ramp = FADE[self.faded : self.faded + len(out)]
        share[: len(ramp)] = ramp
        self.faded += len(out)
        if self.faded >= len(FADE):
            self.leaving = None
        return (before + share * (out - before)).astype(np.float32, copy=False)
