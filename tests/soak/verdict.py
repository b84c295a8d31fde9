"""Whether a series of samples grows for ever: a value as the answer, computed from numbers alone.

A leak lifts the floor of a series from each quarter to the next and does not slow down. A saw-tooth (retention, garbage
collection, vacuum) has a floor that stays; a cache that fills has one that levels off; a connection that a fault has
left behind is one step.
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

#: Fewer samples after the warm-up say nothing.
FEWEST_SAMPLES: Final = 24

#: Theil-Sen looks at every pair: of longer series it is given the medians of so many slots.
MOST_POINTS: Final = 200

#: Of a quarter's values, the share that may lie below what we call its floor: one odd sample is no floor.
FLOOR_SHARE: Final = 0.1

#: Of what is tolerated over all, what the floor must rise from each quarter to the next.
LEAST_RISE: Final = 0.125

Answer = Literal["flat", "growing", "short", "unsteady"]  # unsteady: it follows a load that grew

Point = tuple[float, float]  # (seconds, value)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Growth that is not told: what is more than both, over all that was looked at, is.

    absolute  in the unit of the series
    share     of the first quarter's median
    """

    absolute: float
    share: float = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """first, last  medians of the first and the last quarter
    growth       slope x time, over all that was looked at
    hours        that were looked at
    """

    answer: Answer
    first: float = 0.0
    last: float = 0.0
    growth: float = 0.0
    hours: float = 0.0

    @property
    def an_hour(self) -> float:
        return self.growth / self.hours if self.hours else 0.0


def judge(points: Sequence[Point], tolerance: Tolerance, *, warm_up_seconds: float) -> Verdict:
    """points  in order of time; those of the first warm_up_seconds are left out"""
    begin = points[0][0] + warm_up_seconds if points else 0.0
    warm = [point for point in points if point[0] >= begin]
    if len(warm) < FEWEST_SAMPLES:
        return Verdict("short")
    quarters = [[value for _, value in quarter] for quarter in _slots(warm, 4)]
    floors = [_floor(quarter) for quarter in quarters]
    first, last = statistics.median(quarters[0]), statistics.median(quarters[3])
    span = warm[-1][0] - warm[0][0]
    growth = slope([_middle(slot) for slot in _slots(warm, MOST_POINTS)]) * span
    tolerated = max(tolerance.absolute, tolerance.share * first)
    rises = [later - earlier for earlier, later in itertools.pairwise(floors)]
    is_growing = (
        growth > tolerated
        and min(rises) > tolerated * LEAST_RISE  # in every quarter: one step is not a leak
        and floors[3] - floors[1] > tolerated / 2  # and does not level off
    )
    return Verdict("growing" if is_growing else "flat", first, last, growth, span / 3600)


def slope(points: Sequence[Point]) -> float:
    """Theil and Sen's: the median of the slopes of all pairs, which a third of wild samples does not move."""
    slopes = [
        (value - earlier) / (at - before)
        for index, (at, value) in enumerate(points)
        for before, earlier in points[:index]
        if at > before
    ]
    return statistics.median(slopes) if slopes else 0.0


def _floor(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * FLOOR_SHARE)]


def _slots(points: Sequence[Point], count: int) -> list[Sequence[Point]]:
    """As many slots, of equal numbers of samples; none is empty."""
    count = min(count, len(points))
    edges = [len(points) * place // count for place in range(count + 1)]
    return [points[low:high] for low, high in itertools.pairwise(edges)]


def _middle(slot: Sequence[Point]) -> Point:
    return statistics.median(at for at, _ in slot), statistics.median(value for _, value in slot)
