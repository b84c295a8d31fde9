"""11: what a node costs as things grow: state, history, fan-out, runs in flight, workers. A table and a picture each.

A point of an axis is measured for stock and for the farm one right after the other; the ratio is of that pair.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentfarm import ids
from benchmarks import cpu
from benchmarks.driver import Driver
from benchmarks.engine import flat
from benchmarks.graphs import CHAIN_NODES
from benchmarks.rounds import Cell, Figures, Table, alternate, epoch_seconds
from benchmarks.stock import StockProcesses, StockRunner

if TYPE_CHECKING:
    from benchmarks.farm import BenchFarm

STOCK = "stock ms"
FARM = "farm ms"
RATIO = "farm ÷ stock"
FIRST = "÷ first"

#: Runs at once where something else grows: enough for two workers to have something to do.
IN_FLIGHT = 8

#: With one run in flight, its node waits for the next run to begin: as short as a look's own cost (0.2 ms) allows.
LOOK_SECONDS = 0.003

#: A run of the chain makes so many checkpoints.
CHECKPOINTS = CHAIN_NODES + 1


@dataclass(frozen=True, slots=True)
class Point:
    """Seconds a node of each side, and the farm's CPU in ms a node by kind of process."""

    stock: float
    farm: float
    used: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """values, quick   what grows, and the two ends of a quick look
    is_even   drawn with even steps; else each is a multiple of the one before
    """

    name: str
    title: str
    unit: str
    values: Sequence[int]
    quick: Sequence[int]
    notes: Sequence[str] = ()
    is_even: bool = False


STATE = Axis("state", "a node, by the size of the state", "kB", (1, 10, 100, 1000), (1, 100),
             ["A chain of ten nodes that do not touch it; it came as the run's input."])  # fmt: skip
HISTORY = Axis("history", "a node, by the thread's history", "checkpoints", (10, 100, 1000, 10_000), (10, 100),
               ["A chain of ten on one thread, one run at a time."])  # fmt: skip
WIDTH = Axis("fan-out", "a node, by the width of a fan-out", "nodes", (1, 10, 100, 1000), (1, 20),
             ["One run at a time: plan, so many nodes beside each other, gather."])  # fmt: skip
RUNS = Axis("in-flight", "a node, by runs in flight", "runs", (1, 3, 10, 30, 100), (1, 10),
            ["A chain of ten. Stock: 8 runs at once, at every point."])  # fmt: skip
WORKERS = Axis("workers", "a node, by worker processes", "processes", (1, 2, 3, 4), (1, 2),
               ["A chain of ten, 30 runs in flight. Stock: 2 processes of 4 threads, at every point."],
               is_even=True)  # fmt: skip
AXES = (STATE, HISTORY, WIDTH, RUNS, WORKERS)


@dataclass
class Growth:
    """Measures points. `threads`: those with a history, made once."""

    farm: "BenchFarm"
    seconds: float
    runs: int
    threads: dict[int, tuple[UUID, str]] = field(default_factory=dict)

    @property
    def driver(self) -> Driver:
        return self.farm.driver

    @property
    def processes(self) -> StockProcesses:
        return self.farm.stock

    @property
    def runner(self) -> StockRunner:
        return self.farm.stock_runner

    def point(self, axis: Axis, value: int) -> Point:
        measure: Mapping[str, Callable[[int], Point]] = {
            STATE.name: lambda kilobytes: self._chains("flat10", flat(kilobytes), in_flight=IN_FLIGHT),
            HISTORY.name: self._history,
            WIDTH.name: self._fan_out,
            RUNS.name: lambda runs: self._chains("chain10", None, in_flight=runs),
            WORKERS.name: self._workers,
        }
        return measure[axis.name](value)

    def _workers(self, count: int) -> Point:
        self.farm.have_workers(count)
        return self._chains("chain10", None, in_flight=30)

    def _chains(self, graph_id: str, run_input: Any, *, in_flight: int) -> Point:
        def stock() -> float:
            began = epoch_seconds()
            ends = [ended for ran in self.processes.run_for(graph_id, self.seconds, run_input) for ended, _ in ran.runs]
            return (max(ends) - began) / (len(ends) * CHAIN_NODES)

        def farm() -> tuple[float, int]:
            began = epoch_seconds()
            runs = self.driver.keep_running(
                graph_id, run_input, in_flight=in_flight, seconds=self.seconds, look_seconds=LOOK_SECONDS
            )
            return self._spent(began, runs), len(runs) * CHAIN_NODES

        return self._both(stock, farm)

    def _history(self, checkpoints: int) -> Point:
        if checkpoints not in self.threads:
            self.threads[checkpoints] = ids.new_id(), ids.new_id().hex
            self._chain_on(self.threads[checkpoints], max(1, checkpoints // CHECKPOINTS))
        ours, theirs = self.threads[checkpoints]

        def stock() -> float:
            began = epoch_seconds()
            for _ in range(self.runs):
                self.runner.run("flat10", flat(1), thread_id=theirs)
            return (epoch_seconds() - began) / (self.runs * CHAIN_NODES)

        def farm() -> tuple[float, int]:
            runs = [self.driver.run("flat10", flat(1), thread_id=ours) for _ in range(self.runs)]
            return self._one_by_one(runs), len(runs) * CHAIN_NODES

        return self._both(stock, farm)

    def _chain_on(self, threads: tuple[UUID, str], runs: int) -> None:
        for _ in range(runs):
            self.driver.run("flat10", flat(1), thread_id=threads[0])
            self.runner.run("flat10", flat(1), thread_id=threads[1])

    def _fan_out(self, width: int) -> Point:
        nodes, wide = width + 2, {"width": width}
        runs = max(1, round(self.runs * CHAIN_NODES / nodes))

        def stock() -> float:
            began = epoch_seconds()
            for _ in range(runs):
                self.runner.run("fanout", wide)
            return (epoch_seconds() - began) / (runs * nodes)

        def farm() -> tuple[float, int]:
            made = [self.driver.run("fanout", wide) for _ in range(runs)]
            return self._one_by_one(made), runs * nodes

        return self._both(stock, farm)

    def _both(self, stock: Callable[[], float], farm: Callable[[], tuple[float, int]]) -> Point:
        """farm answers (seconds a node, nodes)."""
        base = stock()
        servers = self.farm.cpu_of()
        before = {name: cpu.milliseconds(pids()) for name, pids in servers.items()}
        seconds, nodes = farm()
        used = {name: (cpu.milliseconds(pids()) - before[name]) / nodes for name, pids in servers.items()}
        return Point(base, seconds, used)

    def _spent(self, began: float, runs: Sequence[UUID]) -> float:
        """Seconds a node, while all of them were under way."""
        spans = [span for spans in self.driver.watcher.spans(runs).values() for span in spans]
        return (max(span.finished for span in spans) - began) / len(spans)

    def _one_by_one(self, runs: Sequence[UUID]) -> float:
        """Seconds a node, from each run's first to its last: how long its end was waited for is not in it."""
        spans = self.driver.watcher.spans(runs).values()
        took = sum(max(span.finished for span in each) - min(span.started for span in each) for each in spans)
        return took / sum(map(len, spans))


def measure_growth(
    farm: "BenchFarm", *, rounds: int, seconds: float, runs: int, is_quick: bool
) -> Iterator[tuple[Axis, Table]]:
    """By axis. The number of workers is as it was before, at the end."""
    growth, workers = Growth(farm, seconds, runs), len(farm.workers)
    for axis in AXES:
        print(f" {axis.title} …", flush=True)
        yield axis, _measure(growth, axis, axis.quick if is_quick else axis.values, rounds)
    farm.have_workers(workers)


def _measure(growth: Growth, axis: Axis, values: Sequence[int], rounds: int) -> Table:
    growth.point(axis, values[0])
    cells = [Cell(_row(axis, value), lambda value=value: _figures(growth.point(axis, value))) for value in values]
    rows = with_first(alternate(cells, rounds))
    notes = [
        *axis.notes,
        "Milliseconds a node: of stock on the wall, of the farm likewise, its CPU by kind of process.",
    ]
    return Table(f"11 {axis.title[0].upper()}{axis.title[1:]}", rows, notes=notes)


def _row(axis: Axis, value: int) -> str:
    return f"{value:,} {axis.unit}"


def _figures(point: Point) -> Figures:
    cost = {f"{name} CPU": used for name, used in point.used.items()}
    return {STOCK: point.stock * 1e3, FARM: point.farm * 1e3, RATIO: point.farm / point.stock, **cost}


def with_first(rows: Mapping[str, Sequence[Figures]]) -> dict[str, list[Figures]]:
    """With what the farm's node costs ÷ what it costs at the first point, in the same round."""
    first = next(iter(rows.values()))
    return {
        name: [{**one, FIRST: one[FARM] / base[FARM]} for one, base in zip(told, first, strict=True)]
        for name, told in rows.items()
    }
