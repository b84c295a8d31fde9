"""7: LangGraph's part of a message ÷ the same superstep of stock LangGraph in process.

The part is the segment (stock `stream` over our loop), with reading its state from bytes and writing it as bytes; what
SQL, the broker and the station cost is in the last row. Stock is `stream` with `durability="sync"`: it never reads its
state again while a run lasts, and its saver's SQL is in its figures, since it cannot be told apart there.
"""

import gc
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from agentfarm import ids
from benchmarks.driver import Driver
from benchmarks.graphs import CHAIN_NODES
from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate
from benchmarks.station import Spent, Station, Stopwatch, timed
from benchmarks.stock import StockRunner

STOCK = "stock, PostgresSaver"
IN_MEMORY = "stock, InMemorySaver"
LANGGRAPH = "message: LangGraph's part"
WHOLE = "message: all of its Python"

#: What LangGraph's part of a message is made of, as station.py calls it.
PARTS = ("decode", "segment", "encode")

SHORT_HISTORY = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """One table. steps: what its figures are divided by, alike for stock and farm.

    history  checkpoints that the thread has before it is measured; None: each run has a new thread
    modes    as stock spells them
    """

    title: str
    graph_id: str
    run_input: Any
    steps: int
    limit: str = ""
    modes: tuple[str, ...] = ("updates",)
    history: int | None = None

    @property
    def served_modes(self) -> tuple[str, ...]:
        """As the Agent Server spells them."""
        return tuple("messages-tuple" if mode == "messages" else mode for mode in self.modes)


def ballast(kilobytes: int) -> list[str]:
    return ["x" * 100] * (10 * kilobytes)


def flat(kilobytes: int) -> dict[str, Any]:
    return {"ballast": ballast(kilobytes), "at": ""}


def fan_out(width: int, limit: str = "") -> Shape:
    return Shape(f"fan-out of {width}, a node", "fanout", {"width": width}, width + 2, limit)


#: A chain's run is ten nodes and the step that applies its input.
CHAIN = Shape("chain, 1 kB", "flat10", flat(1), CHAIN_NODES + 1, "LangGraph's part at most 1.1")
ALL_MODES = ("values", "updates", "messages", "custom")
SHAPES = (
    CHAIN,
    replace(CHAIN, title="chain, 1 kB, four stream modes", graph_id="talkative10", modes=ALL_MODES),
    replace(CHAIN, title="chain, 1 MB", run_input=flat(1000), limit=""),
    fan_out(10),
    fan_out(100, "LangGraph's part at most 1.5"),
    fan_out(400),
    replace(CHAIN, title=f"history of {SHORT_HISTORY}", history=SHORT_HISTORY, limit=""),
)


class Contest:
    """One shape, run by the farm's station and by stock."""

    def __init__(self, shape: Shape, station: Station, stock: StockRunner, memory: StockRunner) -> None:
        self.shape, self.station, self.stock, self.memory = shape, station, stock, memory
        self.threads: tuple[UUID, str, str] | None = None
        if shape.history is not None:
            self.threads = (ids.new_id(), uuid.uuid4().hex, uuid.uuid4().hex)
            for _ in range(max(1, shape.history // shape.steps)):
                self._farm(1, Stopwatch())
                self._stock(self.stock, 1)
                self._stock(self.memory, 1)

    def cells(self, runs: int) -> list[Cell]:
        return [
            Cell(STOCK, lambda: self._clocked(lambda: self._stock(self.stock, runs), runs)),
            Cell(IN_MEMORY, lambda: self._clocked(lambda: self._stock(self.memory, runs), runs)),
            Cell(LANGGRAPH, lambda: self._message(runs)),
        ]

    def _stock(self, runner: StockRunner, runs: int) -> None:
        thread_id = None if self.threads is None else self.threads[1 if runner is self.stock else 2]
        for _ in range(runs):
            runner.run(self.shape.graph_id, self.shape.run_input, thread_id=thread_id, stream_mode=self.shape.modes)

    def _farm(self, runs: int, watch: Stopwatch) -> None:
        thread_id = None if self.threads is None else self.threads[0]
        self.station.execute(
            self.shape.graph_id, runs, watch, self.shape.run_input,
            thread_id=thread_id, stream_mode=self.shape.served_modes,
        )  # fmt: skip

    def _clocked(self, work: Callable[[], None], runs: int) -> Figures:
        gc.collect()  # of what the cell before has left
        began = Spent(time.perf_counter(), time.process_time())
        work()
        return self._figures(Spent(time.perf_counter() - began.wall, time.process_time() - began.cpu), runs)

    def _message(self, runs: int) -> Figures:
        gc.collect()
        watch = Stopwatch()
        with timed(watch):
            self._farm(runs, watch)
        whole = _sum(watch, list(watch.spent))
        figures = {f"{name}, all": value for name, value in self._figures(whole, runs).items()}
        return {**self._figures(_sum(watch, PARTS), runs), **figures}

    def _figures(self, spent: Spent, runs: int) -> dict[str, float]:
        steps = runs * self.shape.steps
        return {"CPU ms": spent.cpu / steps * 1e3, "wall ms": spent.wall / steps * 1e3}


def measure_engine(driver: Driver, stock: StockRunner, *, rounds: int, runs: int, history: int) -> Iterator[Table]:
    """A table a shape. `runs` of the chain in a cell; of a fan-out, as many as have about the same number of nodes.

    history  checkpoints of the longest thread
    """
    station, memory = Station(driver), StockRunner(None)
    longest = replace(CHAIN, title=f"history of {history}", history=history, limit="as with a short history")
    for shape in (*SHAPES, longest):
        yield _measure(Contest(shape, station, stock, memory), rounds, runs)


def _measure(contest: Contest, rounds: int, runs: int) -> Table:
    shape = contest.shape
    print(f" {shape.title} …", flush=True)
    cells = contest.cells(max(1, round(runs * CHAIN.steps / shape.steps)))
    for cell in cells:
        cell.measure()
    rows = alternate(cells, rounds)
    rows[WHOLE] = [_whole(row) for row in rows[LANGGRAPH]]
    rows[LANGGRAPH] = [{name: row[name] for name in ("CPU ms", "wall ms")} for row in rows[LANGGRAPH]]
    notes = [f"A run's time ÷ {shape.steps}; stream modes {', '.join(shape.modes)}. CPU of Python, not of Postgres."]
    return Table(f"7 LangGraph's part: {shape.title}", rows, [Ratio("CPU ms", STOCK, shape.limit)], notes)


def _whole(row: Figures) -> Figures:
    return {name: row[f"{name}, all"] for name in ("CPU ms", "wall ms")}


def _sum(watch: Stopwatch, parts: Sequence[str]) -> Spent:
    spent = [watch.spent[part] for part in parts]
    return Spent(sum(each.wall for each in spent), sum(each.cpu for each in spent))
