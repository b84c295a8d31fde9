"""2: from one node's end to the next one's start, on an idle farm ÷ a bare Celery hop on the same broker."""

from collections.abc import Callable
from itertools import pairwise

from benchmarks.bare import NODES, Chain, bare_hops
from benchmarks.driver import Driver
from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate, percentile

BARE = "bare Celery hop"
NODE = "farm, start to start"
GAP = "farm, end to start"


def measure_hops(driver: Driver, chain: Callable[[], Chain], *, rounds: int, runs: int) -> Table:
    """One run at a time. chain: runs one bare chain of tasks; answers when each began."""
    cells = [
        Cell(BARE, lambda: _figures(bare_hops(chain, runs))),
        Cell(NODE, lambda: _figures(_farm_hops(driver, runs, from_start=True))),
        Cell(GAP, lambda: _figures(_farm_hops(driver, runs, from_start=False))),
    ]
    for cell in cells:
        cell.measure()
    rows = alternate(cells, rounds)
    notes = [
        f"Milliseconds, {runs} chains of {NODES} a round, one at a time, over 2 worker processes of 8 threads each.",
        "Start to start is the whole of a no-op node: claim, segment, commit, publish, receive.",
        "A bare hop has the last two of these.",
    ]
    return Table("2 Hop", rows, [Ratio("p50", BARE, "at most 2")], notes)


def _farm_hops(driver: Driver, runs: int, *, from_start: bool) -> list[float]:
    """Seconds."""
    ids = [driver.run("chain10") for _ in range(runs)]
    hops = []
    for spans in driver.watcher.spans(ids).values():
        hops += [
            after.started - (before.started if from_start else before.finished) for before, after in pairwise(spans)
        ]
    return hops


def _figures(hops: list[float]) -> Figures:
    return {"p50": percentile(hops, 0.5) * 1e3, "p99": percentile(hops, 0.99) * 1e3}
