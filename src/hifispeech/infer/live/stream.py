"""Live speech: blocks of any size in, 48 kHz blocks out, a fixed short time later.

A block's way is that of a file (`Resampler -> Generator`), with the low-latency resampling and with the
bandwidth followed as the signal goes on (`follower`). What comes out depends on the samples pushed,
not on how they were cut into blocks.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hifispeech.audio.bandwidth.meter import Bandwidth
from hifispeech.audio.resample import Resampler, check_rate
from hifispeech.audio.spectral import HOP, N_FFT
from hifispeech.errors import AudioError, ModelError
from hifispeech.infer.edges import RATE, fixed_track
from hifispeech.infer.live.follower import BandwidthFollower, edge_of
from hifispeech.infer.live.switching import SwitchingGenerator
from hifispeech.infer.load import Model, open_model
from hifispeech.infer.onnx import FrameModel
from hifispeech.infer.upscaler import check_audio
from hifispeech.weights.packaged import STREAMING

Block = npt.NDArray[np.float32]


class Stream:
    """Speech as it arrives, at any rate, to full-band 48 kHz.

    >>> import numpy
    >>> stream = Stream(8000, channels=1)
    >>> sum(stream.push(numpy.zeros(160, numpy.float32)).size for _ in range(50)) + stream.flush().size
    48000

    Output sample `n` is input time `n / 48000`: the latency is a delay of delivery, not a shift. Digital
    silence comes out as digital silence, full-band speech as it was. Memory does not grow with time.

    Args:
        sample_rate: of the input, in Hz.
        channels: of the input, 1 or more; each is treated as if it were alone.
        model: name of a packaged model or path of an exported `.onnx`, which then runs on one CPU thread; or
            a model that is loaded (`Upscaler("fast").model`), which any number of streams can share.
        cutoff_hz: where the content of the input ends, for good; None follows the signal.

    A stream is for one thread at a time.

    Raises:
        AudioError: for a rate, channel count or cutoff out of range.
        ModelError: if the model is missing, damaged or does not work frame by frame.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int = 1,
        model: str | Path | Model = STREAMING,
        *,
        cutoff_hz: float | None = None,
    ) -> None:
        self.sample_rate = check_rate(sample_rate)
        if channels < 1:
            raise AudioError(f"channels={channels} is out of range; pass 1 or more")
        self.channels = channels
        self._followers: list[BandwidthFollower] = []  # none where the cutoff is given
        if cutoff_hz is None:
            self._followers = [BandwidthFollower(self.sample_rate) for _ in range(channels)]
            self._bands = [follower.bandwidth for follower in self._followers]
        else:
            self._bands = [band for _, band in fixed_track(cutoff_hz, self.sample_rate) * channels]
        loaded = open_model(model, "cpu", threads=1) if isinstance(model, str | Path) else model
        if not isinstance(loaded, FrameModel):
            raise ModelError("the model works on seconds of audio at once; pass a frame model such as 'fast'")
        self.model = loaded
        edges = [edge_of(band, self.sample_rate) for band in self._bands]
        self._generators = [SwitchingGenerator(self.model, edge) for edge in edges]
        self._resampler = Resampler(self.sample_rate, RATE, channels, low_latency=True)
        self._waiting: list[Block] = []
        self._received = self._resampled = 0  # samples at the input's rate and at 48 kHz
        self._is_flat = self._is_flushed = False

    @property
    def latency_samples(self) -> int:
        """The stated latency in output samples.

        Once the input has reached the time of output sample `n + latency_samples`, sample `n` has been
        returned. It is the sum of STFT frame, look-ahead of the model and reach of the resampler.
        """
        resampler_wait = self._resampler.needed(1) - 1
        return N_FFT + self.model.look_ahead * HOP + math.ceil(resampler_wait * RATE / self.sample_rate)

    @property
    def latency_ms(self) -> float:
        """The stated latency in milliseconds: 64 at 48 kHz, 76 at 8 kHz for `fast`."""
        return 1000 * self.latency_samples / RATE

    @property
    def bandwidth(self) -> tuple[Bandwidth, ...]:
        """The band that each channel is taken to have now: measured, given, or assumed at the start."""
        return tuple(self._bands)

    def push(self, block: npt.NDArray[np.floating]) -> Block:
        """Take in samples and return those that are finished.

        Shape: `[channels, time]`, or `[time]` for one channel, any length from 0; the same with any length
        from 0 at 48 kHz.

        Raises:
            AudioError: for integers, NaN, infinity or a wrong shape; the stream is as it was before.
            RuntimeError: after `flush`.
        """
        if self._is_flushed:
            raise RuntimeError("the stream has been flushed; make a new Stream for the next signal")
        signal = self._check(block)
        self._is_flat = np.ndim(block) == 1
        self._waiting.append(signal.copy())  # the caller may use its buffer again
        self._received += signal.shape[1]
        if self._received < self._resampler.needed((self._resampled // HOP + 1) * HOP):
            return self._shaped([])  # not one frame more: short blocks cost next to nothing
        return self._shaped(self._run())

    def flush(self) -> Block:
        """End the stream: the rest, so that `round(samples * 48000 / sample_rate)` have come out in all.

        Shape: as the last `push`.
        """
        if self._is_flushed:
            return self._shaped([])
        self._is_flushed = True
        parts = self._run()
        rest = self._resampler.flush()
        last = [
            np.concatenate([generator.push(x), generator.flush()])
            for generator, x in zip(self._generators, rest, strict=True)
        ]
        return self._shaped([*parts, np.stack(last)])

    def _check(self, block: npt.NDArray[np.floating]) -> Block:
        shape = np.shape(block)
        if (shape[0] if len(shape) == 2 else 1) != self.channels or len(shape) not in (1, 2):
            raise AudioError(
                f"block has shape {shape}; pass [{self.channels}, time]"
                + (" or [time]" if self.channels == 1 else "")
            )
        if shape[-1] == 0:
            return np.zeros((self.channels, 0), np.float32)
        return check_audio(block)

    def _run(self) -> list[Block]:
        """Bring what is waiting through resampler and generators, part by part up to the next decision."""
        block = np.concatenate([np.zeros((self.channels, 0), np.float32), *self._waiting], axis=1)
        self._waiting = []
        parts = []
        while block.shape[1]:
            size = self._followers[0].until_decision if self._followers else block.shape[1]
            part, block = block[:, :size], block[:, size:]
            ready = self._resampler.push(part)
            self._resampled += ready.shape[1]
            parts.append(
                np.stack([generator.push(x) for generator, x in zip(self._generators, ready, strict=True)])
            )
            self._follow(part)
        return parts

    def _follow(self, part: Block) -> None:
        """Let the followers hear what the generators have got, and these do what follows from it."""
        for index, follower in enumerate(self._followers):
            if follower.push(part[index]):
                self._bands[index] = follower.bandwidth
                self._generators[index].switch(edge_of(follower.bandwidth, self.sample_rate))

    def _shaped(self, parts: list[Block]) -> Block:
        out = np.concatenate([np.zeros((self.channels, 0), np.float32), *parts], axis=1)
        return out[0] if self._is_flat else out
