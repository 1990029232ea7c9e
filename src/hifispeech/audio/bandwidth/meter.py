"""Effective bandwidth of speech, measured from the signal: where does its band end, whatever the header says?

`BandwidthMeter` turns the signal into mean log spectra of 0.17 s blocks (about 3 kB a second of audio), block
by block and independent of how the signal is cut into pushes; `edge` looks for an edge in their
long-term statistics, `track` for changes in time. No energy percentile is involved: soft high
speech counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hifispeech.audio.bandwidth.edge import Edge, Layout, find_edge
from hifispeech.audio.resample import check_rate
from hifispeech.audio.spectral import hann
from hifispeech.errors import AudioError

FULL_BAND_HZ = 19_700.0  # "full band" reaches 20 kHz (ITU-T); microphones and converters end just there

_BLOCK_S = 0.17
_BLOCKS_AT_ONCE = 8  # a second and a half: what is worked on stays in the cache
_HEAD_FRAMES = 32  # kept one by one, for clips too short to fill blocks
_CHUNK_BLOCKS = 64


@dataclass(frozen=True)
class Bandwidth:
    """The measured band.

    `cutoff_hz`: the nominal edge, about the -6 dB point of the filter that made it; the file's Nyquist where
    no edge is seen. `pass_hz`: up to here the band is intact (within about 1 dB), 0.9 to 1.0 of the cutoff.
    `is_full_band`: the cutoff is at least `FULL_BAND_HZ`: nothing audible is missing. `is_silent`: no signal
    at all (digital silence or a constant): nothing could be measured and the cutoff is Nyquist.
    """

    cutoff_hz: float
    pass_hz: float
    is_full_band: bool
    is_silent: bool = False


def detect_bandwidth(audio: npt.ArrayLike, sample_rate: int) -> Bandwidth:
    """Bandwidth of a whole clip, `[time]` or `[channels, time]` (channel powers are summed).

    Independent of gain and of a constant offset. Clips under about 0.2 s, and clips in which no edge is seen,
    give the file's own Nyquist frequency.

    Raises: AudioError for NaN or infinite samples; or a sample rate outside 2000..768000;
    ValueError for another shape.
    """
    meter = BandwidthMeter(sample_rate)
    meter.push(np.asarray(audio, dtype=np.float32))
    return meter.result()


class BandwidthMeter:
    """Block-wise bandwidth measurement: `push` the signal in any pieces, ask `result` or `track` at any time.

    The answers depend on the samples pushed so far, not on the partition. Memory: about 3 kB per second.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate = check_rate(sample_rate)
        self._n_fft = 2 ** math.ceil(math.log2(sample_rate * 0.032))
        self._hop = self._n_fft // 2
        self._frames_per_block = max(1, round(_BLOCK_S * sample_rate / self._hop))
        self._layout = Layout.make(sample_rate, self._n_fft)
        self._channels = 0
        self._rest = np.zeros((1, 0), np.float32)
        self._range: tuple[np.ndarray, np.ndarray] | None = None
        self._blocks_seen = 0
        self._frames: list[np.ndarray] = []
        self._chunks: list[np.ndarray] = []
        self._fill: list[np.ndarray] = []
        self._index: list[int] = []

    def push(self, block: npt.ArrayLike) -> None:
        """Take in `[time]` or `[channels, time]` samples; any length, 0 included.

        Raises: AudioError for NaN or infinite samples; ValueError for another shape or channel count.
        """
        x = np.asarray(block, dtype=np.float32)
        if x.ndim not in (1, 2):
            raise ValueError(f"block has shape {x.shape}; pass [time] or [channels, time]")
        x = np.atleast_2d(x)
        if self._channels not in (0, x.shape[0]):
            raise ValueError(
                f"block has {x.shape[0]} channels, earlier ones {self._channels}; keep the count"
            )
        if x.size:
            low, high = x.min(axis=1), x.max(axis=1)  # NaN and infinity show in them
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                raise AudioError("the audio holds NaN or infinite samples; repair or remove them first")
            if self._range is not None:
                low, high = np.minimum(low, self._range[0]), np.maximum(high, self._range[1])
            self._range = low, high
        if not self._channels:
            self._channels = x.shape[0]
            self._rest = np.zeros((x.shape[0], 0), np.float32)
        stride = self._hop * self._frames_per_block
        x = np.concatenate([self._rest, x], axis=1) if self._rest.size else x
        start = 0
        while (blocks := min((x.shape[1] - start - self._hop) // stride, _BLOCKS_AT_ONCE)) > 0:
            levels, active = self._frame_levels(x[:, start : start + blocks * stride + self._hop])
            counts = active.reshape(blocks, -1).sum(axis=1)
            for own in np.split(levels, np.cumsum(counts)[:-1]):
                self._add_block(own)
            start += blocks * stride
        self._rest = x[:, start:].copy()

    def forget(self, keep_s: float) -> None:
        """Drop all but the last `keep_s` seconds of signal (at least 1), digital silence not counted.

        Called now and then, it bounds the memory, and `result` and `track` tell of these seconds only.
        """
        keep = max(4, round(max(keep_s, 1.0) * self.sample_rate / (self._hop * self._frames_per_block)))
        if len(self._index) > keep:
            rows = [*self._chunks, *(row[None] for row in self._fill)]
            self._chunks, self._fill = [np.concatenate(rows)[-keep:].copy()], []
            self._index = self._index[-keep:]

    @property
    def active_s(self) -> float:
        """Seconds of signal, digital silence left out: how much the answers rest on."""
        return len(self._index) * self._hop * self._frames_per_block / self.sample_rate

    def result(self) -> Bandwidth:
        """Bandwidth of everything pushed so far."""
        levels, _ = self._levels()
        return self._bandwidth(find_edge(levels, self._layout, _scatter(levels)))

    def track(self) -> list[tuple[float, Bandwidth]]:
        """Bandwidth changes in time: `(start_s, Bandwidth)` segments, the first at 0.0, good to about 0.3 s.

        A change must last about four seconds; a file of constant bandwidth gives exactly one segment, whose
        value is that of `result`.
        """
        from hifispeech.audio.bandwidth.track import segments

        levels, index = self._levels()
        if not len(levels) or len(index) != len(levels):
            return [(0.0, self.result())]
        block_s = self._hop * self._frames_per_block / self.sample_rate
        found = segments(levels, np.asarray(index), self._layout, block_s)
        return [(start_s, self._bandwidth(edge)) for start_s, edge in found]

    def _frame_levels(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """dB per FFT bin, float32 [active frames, bins], of the frames of `x` [channels, time], and which of
        its frames are active, [frames].
        """
        n = self._n_fft
        power = np.zeros(0, np.float32)
        for i, channel in enumerate(x):
            frames = np.lib.stride_tricks.as_strided(
                channel,
                ((channel.shape[0] - n) // self._hop + 1, n),
                (self._hop * channel.strides[0], channel.strides[0]),
                writeable=False,
            )
            # In float64, which NumPy's real FFT is three times faster in.
            spectrum = np.fft.rfft(frames * hann(n, "float64")).view(np.float64)
            np.square(spectrum, out=spectrum)
            own = (spectrum[:, ::2] + spectrum[:, 1::2]).astype(np.float32)
            power = own if i == 0 else power + own
        ac = power[:, self._layout.edges[0] :].sum(axis=1)
        total = power.sum(axis=1)
        # An offset leaves only rounding in the bands; below -180 dBFS there is no signal either.
        active = (ac > 1e-11 * total) & (ac > 1e-18 * n * n)
        power = power if active.all() else power[active]
        levels = np.log(np.maximum(power, 1e-30, out=power), out=power) * np.float32(10 / math.log(10))
        return levels, active

    def _add_block(self, levels: np.ndarray) -> None:
        for frame in levels[: max(0, _HEAD_FRAMES - len(self._frames))]:
            self._frames.append(self._layout.bands(frame))
        if len(levels):
            self._fill.append(self._layout.bands(levels.mean(axis=0)).astype(np.float16))
            self._index.append(self._blocks_seen)
            if len(self._fill) == _CHUNK_BLOCKS:
                self._chunks.append(np.stack(self._fill))
                self._fill = []
        self._blocks_seen += 1

    def _levels(self) -> tuple[np.ndarray, Sequence[int]]:
        """(levels [rows, bands], block number of each row); rows are frames, unnumbered, in a short clip."""
        rows = [*self._chunks, *(row[None] for row in self._fill)]
        index = list(self._index)
        frames = list(self._frames)
        rest = self._rest
        if rest.shape[1] >= self._n_fft:
            tail, _ = self._frame_levels(rest)
            frames += [self._layout.bands(f) for f in tail[: max(0, _HEAD_FRAMES - len(frames))]]
            if len(tail) and (2 * len(tail) >= self._frames_per_block or not rows):
                rows.append(self._layout.bands(tail.mean(axis=0))[None].astype(np.float16))
                index.append(self._blocks_seen)
        if not rows:
            return np.zeros((0, len(self._layout.centres_hz)), np.float16), index
        if len(index) < 4:
            return np.stack(frames), ()
        return np.concatenate(rows), index

    def _bandwidth(self, edge: Edge | None) -> Bandwidth:
        silent = self._range is None or bool(np.all(self._range[1] - self._range[0] < 2e-9))
        nyquist = self.sample_rate / 2
        cutoff, passed = (edge.cutoff_hz, edge.pass_hz) if edge else (nyquist, nyquist)
        return Bandwidth(cutoff, passed, cutoff >= FULL_BAND_HZ, silent)


def _scatter(levels: np.ndarray) -> float:
    """How much wider than the levels of blocks these scatter by chance: single frames (float32) do more."""
    return 1.0 if levels.dtype == np.float16 else 2.0
