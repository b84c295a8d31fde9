"""8: what it costs that a node's writes count once ÷ what stock's saver costs, which saves them and promises nothing.

Ours are the two calls of a message on Postgres: the claim (lease, fence, who else holds it, what the node needs) and
the commit (fence, compare-and-swap of the thread's head, writes, checkpoint, the next execution, which is the outbox).
Stock's are `put_writes` and `put` of a PostgresSaver. Both are clocked inside of real runs of one graph, with one
payload, on one server, in one OS process each, one run at a time; encoding of the state is in both.
"""

import gc
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final

from langgraph.checkpoint.postgres import PostgresSaver

from agentfarm.conf import settings
from agentfarm.persistence.caches import Cache
from agentfarm.persistence.connections import connect
from agentfarm.persistence.database import OPTIONS
from agentfarm.persistence.executions import PostgresExecutions
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.wire import Prepared
from benchmarks import cpu
from benchmarks.driver import Driver
from benchmarks.engine import CHAIN
from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate
from benchmarks.station import Station, Stopwatch
from benchmarks.stock import StockRunner

STOCK: Final = "stock: put_writes + put"
FARM: Final = "farm: claim + commit"

#: {row: the calls that it is made of, by cell}
ROWS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    STOCK: ("stock", ("put_writes", "put")),
    "stock: put_writes alone": ("stock", ("put_writes",)),
    "stock: get_tuple + put_writes + put": ("stock", ("get_tuple", "put_writes", "put")),
    FARM: ("farm", ("claim", "commit")),
    "farm: claim alone": ("farm", ("claim",)),
    "farm: claim + commit, state to be loaded": ("farm, cold", ("claim", "commit")),
}

OVER: Final = "over stock's"
COLUMNS: Final = ("CPU ms", "Postgres ms", "both ms", "wall ms")

#: Calls of a cell of the second table.
CALLS: Final = 2000


@dataclass(slots=True)
class Cost:
    """Seconds: CPU of the calling OS thread, CPU of the backend, clock on the wall."""

    cpu: float = 0.0
    backend: float = 0.0
    wall: float = 0.0


@dataclass(slots=True)
class Meter:
    """What calls cost, by label.

    backend_pid  of the one connection that they use. What it does after an answer (statistics, caches) counts for the
                 call before, until the next begins
    """

    backend_pid: int
    spent: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _label: str = "beside"
    _backend: float = 0.0
    _depth: int = 0

    def __post_init__(self) -> None:
        self._backend = cpu.milliseconds([self.backend_pid]) / 1e3

    def turn(self, label: str) -> None:
        """From now on the backend works for this label."""
        now = cpu.milliseconds([self.backend_pid]) / 1e3
        self.spent[self._label].backend += now - self._backend
        self._label, self._backend = label, now

    def clocked(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The outermost call counts. Stock calls from several OS threads: they wait for each other before the clock."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                if self._depth:
                    return function(*args, **kwargs)
                self._depth += 1
                self.turn(label)
                began = Cost(time.thread_time(), 0.0, time.perf_counter())
                try:
                    return function(*args, **kwargs)
                finally:
                    cost = self.spent[label]
                    cost.cpu += time.thread_time() - began.cpu
                    cost.wall += time.perf_counter() - began.wall
                    self._depth -= 1

        return call

    def figures(self, steps: int) -> dict[str, float]:
        """{"put: CPU ms": …}, a step."""
        self.turn("beside")
        told = {}
        for label, cost in self.spent.items():
            values = (cost.cpu, cost.backend, cost.cpu + cost.backend, cost.wall)
            told.update(
                {f"{label}: {column}": value / steps * 1e3 for column, value in zip(COLUMNS, values, strict=True)}
            )
        return told


@contextmanager
def around(meter: Meter, calls: Sequence[tuple[str, type, str]]) -> Iterator[None]:
    """A clock around each (label, class, method), taken off at the end."""
    with ExitStack() as clocks:
        for label, where, name in calls:
            clocks.enter_context(patched(where, name, meter.clocked(label, getattr(where, name))))
        yield


@contextmanager
def patched(where: type, name: str, function: Callable[..., Any]) -> Iterator[None]:
    original = getattr(where, name)
    setattr(where, name, function)
    try:
        yield
    finally:
        setattr(where, name, original)


def measure_once(driver: Driver, stock: StockRunner, *, rounds: int, runs: int) -> Iterator[Table]:
    farm = Farm(driver)
    cells = [
        Cell("stock", lambda: measure_stock(stock, runs)),
        Cell("farm", lambda: farm.measure(runs, knows_state=True)),
        Cell("farm, cold", lambda: farm.measure(runs, knows_state=False)),
    ]
    for cell in cells:
        cell.measure()
    rows = rows_of(alternate(cells, rounds))
    notes = [
        f"Milliseconds a step: a run's ÷ {CHAIN.steps} (its input and ten nodes), 1 kB of state, {runs} runs a round.",
        "CPU is Python's, of the calls alone; Postgres is the CPU of the connection's backend, not of its WAL writer.",
        "A claim finds the state in the worker's cache if that worker committed it, else loads it, as get_tuple does.",
        "Not in it: the broker, events, the admission and the announcement of a run. Stock has none of them.",
        f"'{OVER}': both ms, less those of '{STOCK}' in the same round.",
    ]
    yield Table("8 Once, by node", rows, [Ratio("both ms", STOCK, "claim + commit at most 0.5 ms over stock's")], notes)
    yield measure_prepared(rounds)


def rows_of(measured: Mapping[str, Sequence[Figures]]) -> dict[str, list[Figures]]:
    """{row: its figures, round by round}, from what the cells told of each call."""
    rows: dict[str, list[Figures]] = {}
    for row, (cell, calls) in ROWS.items():
        rows[row] = [
            {column: sum(figures[f"{call}: {column}"] for call in calls) for column in COLUMNS}
            for figures in measured[cell]
        ]
    base = [figures["both ms"] for figures in rows[STOCK]]
    return {
        row: [{**mine, OVER: mine["both ms"] - stock} for mine, stock in zip(told, base, strict=True)]
        for row, told in rows.items()
    }


def measure_stock(stock: StockRunner, runs: int) -> Figures:
    """Stock reads at the begin of a run alone; here it reads once more after each put, to have the price of a read."""
    if stock.connection is None:
        raise ValueError("stock in memory has no Postgres to be compared with")
    meter = Meter(stock.connection.info.backend_pid)
    read, write = meter.clocked("get_tuple", PostgresSaver.get_tuple), meter.clocked("put", PostgresSaver.put)

    def put(self: PostgresSaver, *args: Any) -> Any:
        written = write(self, *args)
        read(self, written)
        return written

    gc.collect()  # of what the cell before has left
    calls = [("put_writes", PostgresSaver, "put_writes"), ("beside", PostgresSaver, "get_tuple")]
    with around(meter, calls), patched(PostgresSaver, "put", put):
        for _ in range(runs):
            stock.run(CHAIN.graph_id, CHAIN.run_input, stream_mode=CHAIN.modes)
    return meter.figures(runs * CHAIN.steps)


class Farm:
    """Real messages, executed in this process (station.py)."""

    #: What else asks the same backend for something, and is no part of a node.
    BESIDE: Final = (("beside", Driver, "start"), ("beside", PostgresRuns, "mark_announced"))

    def __init__(self, driver: Driver) -> None:
        self.driver, self.station = driver, Station(driver)

    def measure(self, runs: int, *, knows_state: bool) -> Figures:
        """knows_state: False: as on a worker that meets the run for the first time, at every step."""
        executions = self.driver.farm.executions
        if not isinstance(executions, PostgresExecutions):
            raise TypeError("the farm's executions are not Postgres'")
        pid, claims = self._backend_pid(executions), executions.claims
        kept = claims._runs, claims._heads
        if not knows_state:
            claims._runs, claims._heads = Cache(0), Cache(0)
        gc.collect()
        meter = Meter(pid)
        calls = [("claim", PostgresExecutions, "claim"), ("commit", PostgresExecutions, "commit"), *self.BESIDE]
        try:
            with around(meter, calls):
                self.station.execute(CHAIN.graph_id, runs, Stopwatch(), CHAIN.run_input, stream_mode=CHAIN.served_modes)
        finally:
            claims._runs, claims._heads = kept
        if self._backend_pid(executions) != pid:
            raise RuntimeError("the farm went over to another connection meanwhile: its backend's CPU is not known")
        return meter.figures(runs * CHAIN.steps)

    @staticmethod
    def _backend_pid(executions: PostgresExecutions) -> int:
        """Of the connection that the pool gives out next, and always: one OS thread asks for one at a time."""
        pooled = executions.claims.databases.at("main").engine.raw_connection()
        try:
            connection: Any = pooled.driver_connection
            return int(connection.info.backend_pid)
        finally:
            pooled.close()


# --------------------------------------------------------------------------- one prepared call

BARE: Final = "libpq's exec_prepared, without an end"
BOUNDED: Final = "BoundedConnection.execute_prepared"

_NOTHING: Final = Prepared("nothing", "SELECT $1::uuid", "uuid")


def measure_prepared(rounds: int) -> Table:
    """What it costs that a hot call's wait has an end: a statement that does nothing, over one connection."""
    chosen = settings()
    url = chosen.database_url.get_secret_value()
    with connect(url, chosen, application="benchmarks", options=OPTIONS, prepare_threshold=None) as connection:
        name, params = _NOTHING.name.encode(), [bytes(16)]
        connection.prepare(name, _NOTHING)
        cells = [
            Cell(BARE, lambda: _calls(lambda: connection.pgconn.exec_prepared(name, params, _NOTHING.formats, 1))),
            Cell(BOUNDED, lambda: _calls(lambda: connection.execute_prepared(name, _NOTHING, params))),
        ]
        for cell in cells:
            cell.measure()
        rows = alternate(cells, rounds)
    notes = [f"Microseconds a call, {CALLS} calls a round; CPU of this process."]
    return Table("8 One prepared call", rows, [Ratio("CPU µs", BARE)], notes)


def _calls(call: Callable[[], object]) -> Figures:
    began, wall = time.thread_time(), time.perf_counter()
    for _ in range(CALLS):
        call()
    return {
        "CPU µs": (time.thread_time() - began) / CALLS * 1e6,
        "wall µs": (time.perf_counter() - wall) / CALLS * 1e6,
    }
