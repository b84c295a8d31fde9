"""6: where the time of one message goes, part by part.

This process plays the worker: it takes each message that the farm publishes and executes it by the same station as a
worker does (flow/step.py), with the farm's real stores and a clock around each part. Times are exclusive: what a part
spends inside another one is the other's. The workers are stopped meanwhile, or they would take the messages away.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any
from uuid import UUID

from agentfarm.flow import step
from agentfarm.flow.ports import Publisher
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.executions import PostgresExecutions
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.queueing.publisher import CeleryPublisher
from agentfarm.streaming.log import RedisEventLog
from benchmarks.driver import Driver
from benchmarks.rounds import Figures, Ratio, Table

#: (part, where, name of the function): in the order in which a message goes through them.
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("claim", PostgresExecutions, "claim"),
    ("decode", FaithfulSerializer, "loads_typed"),
    ("segment", step, "run_segment"),
    ("encode", FaithfulSerializer, "dumps_typed"),
    ("commit", PostgresExecutions, "commit"),
    ("events", RedisEventLog, "append"),
    ("events", RedisEventLog, "flush"),
    ("events", RedisEventLog, "close_run"),
    ("publish", CeleryPublisher, "publish"),
)
REST = "the station itself"


class Stopwatch:
    """Exclusive seconds by part, of the OS thread that made it; what other threads do meanwhile is not clocked."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: list[str] = []
        self.since = 0.0
        self.os_thread = threading.get_ident()

    @property
    def is_running(self) -> bool:
        return bool(self.open) and threading.get_ident() == self.os_thread

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._turn()
        self.open.append(name)
        try:
            yield
        finally:
            self._turn()
            self.open.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] += now - self.since
        self.since = now


class Collecting:
    """A publisher that publishes, and keeps what it published for this process to execute."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher, self.messages = publisher, deque[ExecuteNode]()

    def publish(self, messages: Sequence[ExecuteNode]) -> None:
        self.publisher.publish(messages)
        self.messages.extend(messages)

    def queue_length(self, queue: str) -> int | None:
        return self.publisher.queue_length(queue)


def measure_parts(driver: Driver, *, rounds: int, runs: int) -> Table:
    collecting = Collecting(driver.farm.publisher)
    alone = Driver(replace(driver.farm, publisher=collecting), driver.tenant, driver.watcher)
    _execute_runs(alone, collecting, Stopwatch(), 2)
    rows: dict[str, list[Figures]] = {
        name: [] for name in dict.fromkeys([*(part for part, _, _ in PARTS), REST, "sum"])
    }
    for number in range(rounds):
        print(f"  round {number + 1} of {rounds}")
        watch = Stopwatch()
        with timed(watch):
            messages = _execute_runs(alone, collecting, watch, runs)
        total = sum(watch.seconds.values())
        for name, figures in rows.items():
            seconds = total if name == "sum" else watch.seconds[name]
            figures.append({"ms a message": seconds / messages * 1e3})
    notes = [
        f"{runs} runs of the chain a round, one at a time, in one process; exclusive times.",
        "A worker adds Celery's own part of a hop: receive, decode, schedule, acknowledge (table 2).",
    ]
    return Table("6 Parts of a message", rows, Ratio("ms a message", "sum"), notes)


@contextmanager
def timed(watch: Stopwatch) -> Iterator[None]:
    """A clock around every part, taken off at the end."""
    originals = [(where, name, getattr(where, name)) for _, where, name in PARTS]
    for part, where, name in PARTS:
        setattr(where, name, _clocked(watch, part, getattr(where, name)))
    try:
        yield
    finally:
        for where, name, original in originals:
            setattr(where, name, original)


def _clocked(watch: Stopwatch, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def clocked(*args: Any, **kwargs: Any) -> Any:
        if not watch.is_running:  # outside of a message: an admission, or the log's own writer
            return function(*args, **kwargs)
        with watch.part(part):
            return function(*args, **kwargs)

    return clocked


def _execute_runs(driver: Driver, collecting: Collecting, watch: Stopwatch, runs: int) -> int:
    """Messages that were executed."""
    executed = 0
    started: list[UUID] = []
    for _ in range(runs):
        started.append(driver.start("chain10"))
        while collecting.messages:
            message = collecting.messages.popleft()
            with watch.part(REST):
                step.execute_node(driver.farm, message)
            executed += 1
    driver.wait(started)
    return executed
