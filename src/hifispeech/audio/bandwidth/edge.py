"""Find the edge of a band in long-term statistics of log spectra.

Three curves over frequency are looked at: a high percentile over time (the loudest sounds a band ever holds),
the mean over active blocks, and a low percentile (the noise floor). Speech falls off slowly and its noise
floor goes on; a filter pulls all three down within a few per cent of frequency, or leaves above it a band
whose level no longer changes with the speech (dither, nothing, a coder's floor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

STEP = 0.01  # the curves' grid: natural log of frequency
_LOUD, _MEAN, _FLOOR = 0, 1, 2
_MAX_ROWS = 4096
_LOWEST_HZ = 1000.0


@dataclass(frozen=True)
class Edge:
    """A found edge: nominal cutoff and the end of the intact band, in Hz."""

    cutoff_hz: float
    pass_hz: float


@dataclass(frozen=True)
class Layout:
    """Bands of about 1.25 % (never under one FFT bin) from 100 Hz to Nyquist."""

    sample_rate: int
    edges: np.ndarray  # first bin of each band, one more at the end
    widths: np.ndarray
    centres_hz: np.ndarray

    @classmethod
    def make(cls, sample_rate: int, n_fft: int) -> Layout:
        """Bands for spectra of `n_fft // 2 + 1` bins."""
        bin_hz = sample_rate / n_fft
        edges = [max(2, round(100 / bin_hz))]
        while edges[-1] < n_fft // 2 + 1:
            width_hz = 0.0125 * edges[-1] * bin_hz if edges[-1] * bin_hz > 1000 else 80.0
            edges.append(min(edges[-1] + max(1, round(width_hz / bin_hz)), n_fft // 2 + 1))
        bounds = np.array(edges)
        return cls(sample_rate, bounds, np.diff(bounds), (bounds[:-1] + bounds[1:] - 1) / 2 * bin_hz)

    def bands(self, spectrum_db: np.ndarray) -> np.ndarray:
        """Mean level of each band, float32 [bands], of a spectrum [bins] in dB."""
        return np.add.reduceat(spectrum_db, self.edges[:-1])[: len(self.widths)] / self.widths.astype(
            np.float32
        )


@dataclass(frozen=True)
class _Curves:
    """Statistics on a grid of log frequency; arrays [3 curves, grid] unless said otherwise."""

    freqs_hz: np.ndarray  # [grid]
    level: np.ndarray
    ceiling: np.ndarray  # smoothed level, running maximum from above: natural dips vanish, edges stay
    group_start: np.ndarray  # [groups] index on the grid of 5 % wide groups
    group_spread: np.ndarray  # [groups] how far the level moves in time
    group_level: np.ndarray  # [groups]

    def drop(self, width: int) -> np.ndarray:
        """Fall of the ceiling from `width` steps below each grid point to `width` steps above it."""
        at = np.arange(len(self.freqs_hz))
        return (
            self.ceiling[:, np.maximum(at - width, 0)] - self.ceiling[:, np.minimum(at + width, len(at) - 1)]
        )


def find_edge(levels: np.ndarray, layout: Layout, scatter: float = 1.0) -> Edge | None:
    """The band's edge, or None where there is none below Nyquist.

    `levels`: [rows, bands] in dB, rows in time order with silent ones left out. `scatter`: how many times
    more than the means of 0.17 s blocks the rows scatter by chance.
    """
    if len(levels) < 4 or layout.sample_rate < 2.4 * _LOWEST_HZ:
        return None
    rows = levels[:: -(-len(levels) // _MAX_ROWS)].astype(np.float32)
    curves = _curves(rows, layout)
    drops = {width: curves.drop(width) for width in (3, 8, 16, 25)}
    low = curves.freqs_hz > _LOWEST_HZ
    sharp, gentle = _quiet_above_candidates(drops, 0.5 + 0.5 * scatter)
    places = np.flatnonzero((sharp | gentle) & low)
    if len(places):
        after_sharp = sharp[places] & _is_dead_above(curves, places, 11, 4.0 * scatter)
        after_gentle = gentle[places] & _is_dead_above(curves, places, 32, 4.0 * scatter)
        found = np.flatnonzero(after_sharp | after_gentle)
        if len(found):
            return _locate(curves, drops, int(places[found[0]]), 12 if after_sharp[found[0]] else 30)
    everywhere = _falls_in_all_curves(curves, drops, 0.5 + 0.5 * scatter) & low
    if not everywhere.any():
        return None
    total = np.where(everywhere, drops[8].sum(axis=0), -1.0)
    return _locate(curves, drops, int(np.argmax(total)), 0)


def _median(x: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(x, [(0, 0), (width // 2, width // 2)], mode="edge")
    return np.sort(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)[..., width // 2]


def _percentiles(x: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Percentiles over the first axis, as `np.percentile` but a fifth of its time. Shape: `[rows, n]` to
    `[shares, n]`.
    """
    ordered = np.sort(x, axis=0)
    at = np.array(shares) / 100 * (len(x) - 1)
    lower = np.floor(at).astype(int)
    part = (at - lower)[:, None].astype(x.dtype)
    return ordered[lower] + part * (ordered[np.minimum(lower + 1, len(x) - 1)] - ordered[lower])


def _curves(rows: np.ndarray, layout: Layout) -> _Curves:
    nyquist = layout.sample_rate / 2
    power = (10 ** (rows / 10) * layout.widths).sum(axis=1)
    active = power > _percentiles(power[:, None], (95,))[0, 0] * 10**-2.5
    ordered = _percentiles(rows, (10, 92))
    raw = np.stack([ordered[1], rows[active].mean(axis=0), ordered[0]])
    count = int(math.log(nyquist / (0.6 * _LOWEST_HZ)) / STEP)
    grid = math.log(nyquist) - STEP * np.arange(count, -1, -1)
    centres = np.log(layout.centres_hz)
    level = np.stack([np.interp(grid, centres, c) for c in _median(raw, 3)])
    smooth = _median(np.stack([np.interp(grid, centres, c) for c in _median(raw, 5)]), 7)
    ceiling = np.maximum.accumulate(smooth[:, ::-1], axis=1)[:, ::-1]

    top = math.log(0.985 * nyquist)
    bounds = top - 0.05 * np.arange(int((top - math.log(0.9 * _LOWEST_HZ)) / 0.05), -1, -1)
    first = np.searchsorted(centres, bounds)
    kept = np.flatnonzero(np.diff(first) > 0)
    sums = np.cumsum(np.pad(rows, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
    means = (sums[:, first[kept + 1]] - sums[:, first[kept]]) / (first[kept + 1] - first[kept])
    spread = _percentiles(means, (10, 92, 95))
    start = (bounds[kept] - grid[0]) / STEP
    return _Curves(np.exp(grid), level, ceiling, start, spread[2] - spread[0], spread[1])


def _quiet_above_candidates(drops: dict[int, np.ndarray], strict: float) -> tuple[np.ndarray, np.ndarray]:
    """Grid points [grid] where the level falls as by a (sharp, gentle) filter, if what lies above is dead."""

    def falls(width: int, loud_db: float, mean_db: float) -> np.ndarray:
        return (drops[width][_LOUD] >= loud_db * strict) | (drops[width][_MEAN] >= mean_db * strict)

    sharp = falls(8, 11, 8) | falls(3, 9, 7)
    gentle = (falls(16, 17, 13) | falls(25, 24, 18)) & (drops[25][_FLOOR] >= 7 * strict)
    very = (drops[25][_LOUD] >= 33 * strict) & (drops[25][_MEAN] >= 25 * strict)
    return sharp, gentle | very


def _is_dead_above(curves: _Curves, at: np.ndarray, gap: int, most_spread_db: float) -> np.ndarray:
    """Whether all bands from `gap` steps above grid points stand still in time, or are too deep to be speech.
    Shape: `[points]` kept.
    """
    above = curves.group_start > at[:, None] + gap
    reference = curves.ceiling[_LOUD][np.maximum(at - 8, 0), None]
    alive = above & (curves.group_level > reference - 45) & (curves.group_spread > most_spread_db)
    return above.any(axis=1) & ~alive.any(axis=1)


def _falls_in_all_curves(curves: _Curves, drops: dict[int, np.ndarray], strict: float) -> np.ndarray:
    """Grid points [grid] where loud sounds, mean and noise floor fall together: speech never does."""
    # A floor far below the speech is that of digital pauses: it has nothing left to lose.
    no_floor = curves.ceiling[_FLOOR] < curves.ceiling[_LOUD] - 60
    found = np.zeros(len(curves.freqs_hz), dtype=bool)
    for width, least_db in ((8, 11), (16, 18), (25, 25)):
        loud, mean, floor = drops[width]
        both = np.minimum(loud, mean)
        found |= np.where(no_floor, both, np.minimum(both, floor)) >= least_db * strict
    # A decimator's roll-off has only the last few per cent below Nyquist to show itself.
    last = curves.freqs_hz > 0.9 * curves.freqs_hz[-1]
    return found | (last & (np.minimum(drops[3][_LOUD], drops[3][_MEAN]) >= 9 * strict))


def _locate(curves: _Curves, drops: dict[int, np.ndarray], start: int, gap: int) -> Edge:
    """-6 dB point and knee of the edge from grid point `start` on; the band `gap` steps above is dead."""
    count = len(curves.freqs_hz)
    reach = np.minimum(drops[8], 20).sum(axis=0)[start : start + 31]
    peak = start + int(np.argmax(reach))
    first, last = max(peak - 30, 0), min(peak + 26, count)
    curve, weights = np.zeros(last - first), 0.0
    for k in (_LOUD, _MEAN, _FLOOR):
        fall = max(drops[16][k][peak], drops[8][k][peak])
        if fall < 5:
            continue
        reference = np.median(curves.level[k][max(peak - 24, 0) : max(peak - 8, 1)])
        bottom = -25.0
        if gap:  # what lies beyond the plateau, another resampler's edge say, is of no interest
            plateau = np.median(curves.level[k][min(peak + gap, count - 3) : min(peak + gap + 5, count)])
            bottom = max(bottom, float(plateau - reference))
        weight = min(fall, 20.0) ** 2
        curve += weight * np.clip(curves.level[k][first:last] - reference, bottom, 15)
        weights += weight
    if not weights:
        return _edge(curves, peak, peak - 3)
    cross, knee = _crossing(curve / weights, peak - first)
    return _edge(curves, first + cross, first + knee)


def _crossing(curve: np.ndarray, peak: int) -> tuple[float, float]:
    """Where `curve` (dB over the grid) has fallen by 6 dB, and by 1 dB, from the knee before its fall."""
    count = len(curve)
    at = np.arange(count)
    low, high = max(peak - 14, 0), min(peak + 15, count)
    slope, steepest, top, half = curve, peak, 0.0, 2
    for half, enough_db in ((2, 8), (3, 9), (5, 10), (8, 0)):  # the narrowest view that shows a clear fall
        slope = curve[np.maximum(at - half, 0)] - curve[np.minimum(at + half, count - 1)]
        steepest = low + int(np.argmax(slope[low:high]))
        top = slope[steepest]
        if top >= enough_db:
            break
    knee = low + int(np.flatnonzero(slope[low : steepest + 1] >= 0.8 * top)[0])
    while knee > 0 and slope[knee] >= 0.3 * top:
        knee -= 1
    before = float(np.median(curve[max(knee - half - 1, 0) : knee + 1]))
    after = float(curve[min(steepest + 2 * half, count - 1) :].min())
    # At the knee a filter has already lost something; a fall of under 12 dB into noise is halved instead.
    target = before - min(5.3, (before - after) / 2)
    below = np.flatnonzero(curve[knee:] < target)
    if not len(below):
        return float(peak), float(knee)
    cross = float(knee + below[0])
    i = int(cross)
    if i > knee and curve[i - 1] > curve[i]:
        cross = i - 1 + (curve[i - 1] - target) / (curve[i - 1] - curve[i])
    intact = np.flatnonzero(curve[knee : i + 1] >= before - 1.0)
    passed = float(knee + intact[-1]) if len(intact) else float(knee)
    # Speech hides the first decibels of a slow filter; its width beyond the -6 dB point tells of them.
    deep = np.flatnonzero(curve[i:] < before - min(15.0, 0.8 * (before - after)))
    return cross, min(passed, cross - 1.4 * (i + deep[0] - cross)) if len(deep) else passed


def _edge(curves: _Curves, cross: float, knee: float) -> Edge:
    grid = np.arange(len(curves.freqs_hz))
    cutoff = float(np.interp(cross, grid, curves.freqs_hz))
    passed = float(np.interp(knee, grid, curves.freqs_hz))
    return Edge(cutoff, min(max(passed, 0.9 * cutoff), 0.985 * cutoff))
