"""Hundreds of thousands of values as few as a plot can show. The worst of each stretch is kept."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samd_edge.report.gaps import Gap, Held
from samd_edge.report.record import Run

COLUMNS: Final = 700
"""Stretches of a plot: about a point each four pixels of a wide screen, three on paper."""

Floats = NDArray[np.float64]


def thinned(times: Floats, values: Floats, since: float, until: float) -> tuple[Floats, Floats]:
    """The lowest and the highest value of each stretch, in their order; few values stay as they are.

    ``times``, ``values``: ``float64[N]``, in order of time.
    """
    if len(times) <= 2 * COLUMNS:
        return times, values
    column = np.minimum(((times - since) / max(until - since, 1e-9) * COLUMNS).astype(np.int64), COLUMNS - 1)
    order = np.lexsort((values, column))
    firsts = np.flatnonzero(np.diff(column[order], prepend=-1))
    lasts = np.append(firsts[1:], len(order)) - 1
    kept = np.unique(np.concatenate((order[firsts], order[lasts])))
    return times[kept], values[kept]


def joined(times: Floats, longest_s: float, gaps: Sequence[Gap]) -> NDArray[np.bool_]:
    """Which neighbours a line may join, ``bool[N - 1]``: not too far apart, and no gap between them."""
    found: NDArray[np.bool_] = np.diff(times) <= longest_s
    for gap in gaps:
        after = int(np.searchsorted(times, gap.end))
        if 0 < after < len(times):
            found[after - 1] = False
    return found


def with_holes(times: Floats, values: Floats, joins: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The same with a NaN wherever no line may join two neighbours."""
    breaks = np.flatnonzero(~joins) + 1
    return np.insert(times, breaks, times[breaks]), np.insert(values, breaks, np.nan)


def lonely(joins: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which values no line leads to or from: they need a mark to be seen."""
    found: NDArray[np.bool_] = ~(np.append(False, joins) | np.append(joins, False))
    return found


def worst(stands: list[Held], since: float, until: float) -> list[Held]:
    """Judgements as few as a plot can show: of each stretch the worst of everything; holes stay holes."""
    if len(stands) <= 2 * COLUMNS:
        return stands
    width = (until - since) / COLUMNS
    found: list[Held] = []
    for each in stands:
        last = found[-1] if found else None
        same = last is not None and int((each.start - since) / width) == int((last.start - since) / width)
        if last is None or not same or each.start - last.end > width:
            found.append(each)
        else:
            found[-1] = Held(last.start, each.end, _worse(last.run, each.run))
    return found


def _worse(one: Run, other: Run) -> Run:
    graver = max(one, other, key=lambda run: (run.low, run.severity))
    return Run(
        one.start,
        other.last,
        max(one.low, other.low),
        max(one.high, other.high),
        graver.band,
        max(one.rule, other.rule),
        max(one.possible, other.possible),
        max(one.severity, other.severity),
        max(one.model, other.model),
        one.disagreement or other.disagreement,
    )
