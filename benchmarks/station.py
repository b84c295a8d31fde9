"""This process as a worker, with clocks around the parts of a message.

It takes each message that the farm publishes and executes it by the same station as a worker does (flow/step.py), with
the farm's real stores. The workers are stopped meanwhile, or they would take the messages away.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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

#: (part, where, name of the function): in the order in which a message goes through them.
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("claim", PostgresExecutions, "claim"),
    ("decode", FaithfulSerializer, "loads_typed"),
    ("segment", step, "run_segment"),
    ("encode", FaithfulSerializer, "dumps_typed"),
    ("commit", PostgresExecutions, "commit"),
    ("events", step._Sink, "__call__"),  # rendering for clients, which the segment calls and stock has nothing of
    ("events", RedisEventLog, "append"),
    ("events", RedisEventLog, "flush"),
    ("events", RedisEventLog, "close_run"),
    ("publish", CeleryPublisher, "publish"),
)
REST = "the station itself"


@dataclass(slots=True)
class Spent:
    """Seconds of the clock on the wall, and of this OS thread's CPU."""

    wall: float = 0.0
    cpu: float = 0.0


@dataclass(slots=True)
class Stopwatch:
    """What each part took, exclusive of parts inside of it, in the OS thread that made the watch."""

    spent: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    open: list[str] = field(default_factory=list)
    since: Spent = field(default_factory=Spent)
    os_thread: int = field(default_factory=threading.get_ident)

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
        now = Spent(time.perf_counter(), time.thread_time())
        if self.open:
            spent = self.spent[self.open[-1]]
            spent.wall += now.wall - self.since.wall
            spent.cpu += now.cpu - self.since.cpu
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


class Station:
    """Starts runs and executes all of their messages itself, one at a time."""

    def __init__(self, driver: Driver) -> None:
        self.collecting = Collecting(driver.farm.publisher)
        farm = replace(driver.farm, publisher=self.collecting)
        self.driver = Driver(farm, driver.tenant, driver.watcher, driver.choices, driver.durability)

    def execute(self, graph_id: str, runs: int, watch: Stopwatch, run_input: Any = None, **request: Any) -> int:
        """Messages that were executed. `request`: more of Driver.start's arguments."""
        executed = 0
        started: list[UUID] = []
        for _ in range(runs):
            started.append(self.driver.start(graph_id, run_input, **request))
            while self.collecting.messages:
                message = self.collecting.messages.popleft()
                with watch.part(REST):
                    step.execute_node(self.driver.farm, message)
                executed += 1
        self.driver.wait(started)
        return executed


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
