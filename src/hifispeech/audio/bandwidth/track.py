"""Follow a bandwidth that changes part-way, such as a call that goes from narrowband to wideband.

Windows of four seconds are measured one by one; where neighbours disagree, the change is believed only if the
band between the two edges really empties or fills, and is then placed on the block where it does.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hifispeech.audio.bandwidth.edge import Edge, Layout, find_edge

_WINDOW_S = 4.0
_SAME = 1.15  # edges within this factor are one and the same
_LEAST_STEP_DB = 8.0


def segments(
    levels: np.ndarray, index: np.ndarray, layout: Layout, block_s: float
) -> list[tuple[float, Edge | None]]:
    """`(start_s, edge)` of each stretch of constant bandwidth, the first at 0.0.

    `levels`: [rows, bands] in dB; `index`: [rows] block number of each row (silent blocks have no row).
    """
    window = round(_WINDOW_S / block_s)
    whole = find_edge(levels, layout)
    if len(levels) < 4 * window // 3:
        return [(0.0, whole)]
    starts = list(range(0, len(levels) - window + 1, window // 2))
    if starts[-1] + window < len(levels):
        starts.append(len(levels) - window)
    cutoffs = [_cutoff(find_edge(levels[s : s + window], layout), layout) for s in starts]
    if max(cutoffs) < _SAME * min(cutoffs):
        return [(0.0, whole)]
    changes = _changes(levels, layout, starts, cutoffs, window)
    if not changes:
        return [(0.0, whole)]
    bounds = [0, *changes, len(levels)]
    found = [
        (float(index[a]) * block_s if a else 0.0, _edge_within(levels[a:b], layout))
        for a, b in pairwise(bounds)
    ]
    merged = found[:1]
    for start_s, edge in found[1:]:
        if not _same(_cutoff(edge, layout), _cutoff(merged[-1][1], layout)):
            merged.append((start_s, edge))
    return merged if len(merged) > 1 else [(0.0, whole)]


def _edge_within(levels: np.ndarray, layout: Layout) -> Edge | None:
    """Edge of a stretch, measured away from its ends, where a change in a pause may be misplaced."""
    trim = min(6, len(levels) // 6)
    return find_edge(levels[trim : len(levels) - trim], layout)


def _cutoff(edge: Edge | None, layout: Layout) -> float:
    return edge.cutoff_hz if edge else layout.sample_rate / 2


def _same(a: float, b: float) -> bool:
    return max(a, b) < _SAME * min(a, b)


def _changes(
    levels: np.ndarray, layout: Layout, starts: list[int], cutoffs: list[float], window: int
) -> list[int]:
    """Rows at which the bandwidth changes, in order."""
    changes: list[int] = []
    state, state_from = cutoffs[0], 0
    for i in range(1, len(starts)):
        if _same(cutoffs[i], state):
            continue
        # A window across the change shows a mixture: the next one has the say about the new edge.
        new = cutoffs[min(i + 1, len(starts) - 1)]
        if _same(new, state):
            continue
        low = max(state_from, starts[i] - 2 * window)  # mixed windows before may have looked unchanged
        high = min(len(levels), starts[min(i + 1, len(starts) - 1)] + window)
        split = _split(levels[low:high], layout, state, new)
        if split is None:
            continue
        changes.append(low + split)
        state, state_from = new, low + split
    return changes


def _split(levels: np.ndarray, layout: Layout, old: float, new: float) -> int | None:
    """Row where the band between the two edges fills or empties; None where it does neither."""
    low, high = min(old, new), max(old, new)
    between = (layout.centres_hz > 1.08 * low) & (layout.centres_hz < max(0.93 * high, 1.12 * low))
    below = (layout.centres_hz > 300) & (layout.centres_hz < 0.9 * low)
    band = levels[:, between].astype(np.float64).mean(axis=1)
    loud = levels[:, below].astype(np.float64).mean(axis=1)
    least = 4
    if len(band) < 2 * least:
        return None
    band = np.maximum(band, np.percentile(band, 5) - 3)  # how deep nothing is does not matter
    sums, squares = np.cumsum(band), np.cumsum(band**2)
    at = np.arange(least, len(band) - least + 1)
    left = squares[at - 1] - sums[at - 1] ** 2 / at
    rest = len(band) - at
    right = (squares[-1] - squares[at - 1]) - (sums[-1] - sums[at - 1]) ** 2 / rest
    split = int(at[np.argmin(left + right)])
    sides = (band[:split], band[split:]) if new > old else (band[split:], band[:split])
    speech = [side > np.percentile(side, 90) - 25 for side in (loud[:split], loud[split:])]
    if new < old:
        speech.reverse()
    if min(speech[0].sum(), speech[1].sum()) < least:
        return None
    levels_db = [np.percentile(side, 90) for side in (loud[:split], loud[split:])]
    if abs(levels_db[0] - levels_db[1]) > 30:  # sound against silence says nothing about the band
        return None
    empty, full = sides[0][speech[0]], sides[1][speech[1]]
    step = np.median(full) - np.median(empty)
    # While speech goes on, an empty band never comes up to where a full one usually is.
    return split if step >= _LEAST_STEP_DB and np.percentile(empty, 95) < np.median(full) - 3 else None
