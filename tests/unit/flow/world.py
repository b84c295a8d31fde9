"""A world of fakes: what each station does to it is written into `world.calls`, in order."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from langgraph.store.memory import InMemoryStore

from agentfarm.errors import BrokerUnavailable, NotFound, StreamUnavailable
from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode
from agentfarm.records import BuildUse, Buried, Committed, Delayed, Ended, Event, Late, Refused, RunRow, Sweep
from agentfarm.tenancy import Tenant

NOW = datetime(2026, 1, 1, tzinfo=UTC)

T = TypeVar("T")


@dataclass
class World:
    """What the fakes answer, and what they were asked."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    claims: list[Any] = field(default_factory=list)
    commits: list[Committed | Exception] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)  # what was committed
    open_messages: tuple[ExecuteNode, ...] = ()
    rest: tuple[ExecuteNode, ...] = ()  # of a wave
    events: list[Event] = field(default_factory=list)
    runs: dict[UUID, RunRow] = field(default_factory=dict)
    sweep: Sweep | Exception = field(default_factory=Sweep)
    stalled: Sweep | Exception = field(default_factory=Sweep)
    buried: dict[ExecuteNode, Buried | Exception | None] = field(default_factory=dict)  # what comes of burying these
    waiting: dict[UUID, tuple[ExecuteNode, ...] | Exception] = field(default_factory=dict)  # threads, and who begins
    in_redis: tuple[ExecuteNode, ...] | Exception = ()
    late: Late = field(default_factory=Late)
    due: tuple[ExecuteNode, ...] = ()
    expired: dict[Tenant, int] = field(default_factory=dict)  # items of stores that are over
    expired_threads: dict[UUID, Exception | None] = field(default_factory=dict)  # and what comes of expiring them
    forgettable: dict[UUID, Exception | bool] = field(
        default_factory=dict
    )  # threads, and what comes of forgetting them
    builds: tuple[BuildUse, ...] = ()
    broker_is_up: bool = True
    streams_are_up: bool = True

    def did(self, name: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == name]


def _or_raise(came: T | Exception) -> T:
    if isinstance(came, Exception):
        raise came
    return came


class FakePublisher:
    def __init__(self, world: World) -> None:
        self.world = world

    def publish(self, messages: Sequence[ExecuteNode]) -> None:
        if not self.world.broker_is_up:
            raise BrokerUnavailable(count=len(messages), why="OSError")
        self.world.calls.append(("publish", *messages))

    def queue_length(self, queue: str) -> int | None:
        return 0


class FakeLog:
    def __init__(self, world: World) -> None:
        self.world = world

    def ping(self) -> None:
        self._check()

    def append(self, tenant_id: UUID, run_id: UUID, event: Event) -> None:
        self.world.events.append(event)

    def flush(self, *, seconds: float = 5.0) -> None:
        self._check()
        self.world.calls.append(("flush",))

    def close_run(self, tenant_id: UUID, run_id: UUID, events: Sequence[Event]) -> None:
        self._check()
        self.world.calls.append(("close_run", run_id, [event.name for event in events]))
        self.world.events += events

    async def follow(self, tenant_id: UUID, run_id: UUID, *, after: str) -> AsyncIterator[Event | None]:
        yield None
        for event in self.world.events:
            await asyncio.sleep(0)
            yield event
            if event.name == "end":
                return

    def _check(self) -> None:
        if not self.world.streams_are_up:
            raise StreamUnavailable


class FakeRuns:
    def __init__(self, world: World) -> None:
        self.world = world

    def find(self, tenant: Tenant, run_id: UUID) -> RunRow | None:
        return self.world.runs.get(run_id)

    def get(self, tenant: Tenant, thread_id: UUID, run_id: UUID, *, with_spec: bool = False) -> RunRow:
        if (row := self.world.runs.get(run_id)) is None:
            raise NotFound(what="Run")
        return row

    def mark_announced(self, ended: Ended) -> None:
        self.world.calls.append(("mark_announced", ended.run_id))


class FakeExecutions:
    def __init__(self, world: World) -> None:
        self.world = world

    def claim(self, message: ExecuteNode) -> Any:
        return self.world.claims.pop(0) if self.world.claims else Refused("gone")

    def commit(self, claimed: Any, result: Any, *, lease_next: bool = False, wake: int | None = None) -> Committed:
        self.world.calls.append(("commit", claimed.kind, result.status, lease_next, wake))
        self.world.results.append(result)
        answer = self.world.commits.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def release(self, claimed: Any) -> None:
        self.world.calls.append(("release",))

    def rest_of_wave(self, claimed: Any, most: int = 1) -> tuple[ExecuteNode, ...]:
        return self.world.rest if claimed.in_wave else ()

    def open_at_head(self, message: ExecuteNode) -> tuple[ExecuteNode, ...]:
        return self.world.open_messages


class FakeHealing:
    def __init__(self, world: World) -> None:
        self.world = world

    def sweep(self, *, limit: int = 500) -> Sweep:
        return _or_raise(self.world.sweep)

    def bury(self, spent: ExecuteNode) -> Buried | None:
        self.world.calls.append(("bury", spent))
        return _or_raise(self.world.buried[spent])

    def lost(self, queue_lengths: Callable[[str], int | None], *, limit: int = 500) -> Late:
        return self.world.late

    def due(self, delayed: Sequence[Delayed]) -> tuple[ExecuteNode, ...]:
        return self.world.due

    def waiting(self, *, limit: int = 500) -> tuple[tuple[UUID, UUID], ...]:
        return tuple((ZERO, thread_id) for thread_id in self.world.waiting)

    def start_waiting(self, tenant_id: UUID, thread_id: UUID) -> tuple[ExecuteNode, ...]:
        return _or_raise(self.world.waiting[thread_id])

    def in_redis(self, queue_lengths: object, *, limit: int = 2000) -> tuple[ExecuteNode, ...]:
        return _or_raise(self.world.in_redis)

    def stalled(self, *, limit: int = 100) -> Sweep:
        return _or_raise(self.world.stalled)

    def unannounced(self, *, limit: int = 100) -> tuple[Ended, ...]:
        return ()

    def forget_names(self, *, limit: int = 500) -> int:
        return 0

    def expired_threads(self) -> tuple[tuple[UUID, str, UUID], ...]:
        return tuple((ZERO, "main", thread_id) for thread_id in self.world.expired_threads)

    def forgettable(self, *, grace_seconds: float = 60.0, limit: int = 100) -> tuple[Ended, ...]:
        return tuple(Ended(ZERO, "main", ZERO, thread_id, "success") for thread_id in self.world.forgettable)

    def builds(self) -> tuple[BuildUse, ...]:
        return self.world.builds

    def unserved(self) -> tuple[BuildUse, ...]:
        return tuple(use for use in self.world.builds if not use.workers)

    def move_build(self, gone: str, to: str) -> tuple[int, int]:
        return 0, 0

    def expired(self, *, limit: int = 500) -> tuple[Tenant, ...]:
        return tuple(self.world.expired)[:limit]


class FakeThreads:
    def __init__(self, world: World) -> None:
        self.world = world

    def expire(self, tenant: Tenant, thread_id: UUID) -> None:
        self.world.calls.append(("expire", thread_id))
        if (failure := self.world.expired_threads[thread_id]) is not None:
            raise failure

    def forget(self, tenant: Tenant, thread_id: UUID) -> bool:
        self.world.calls.append(("forget", thread_id))
        return _or_raise(self.world.forgettable[thread_id])


class FakeStores:
    def __init__(self, world: World) -> None:
        self.world = world
        self.stores: defaultdict[UUID, InMemoryStore] = defaultdict(InMemoryStore)

    def of(self, tenant: Tenant) -> InMemoryStore:
        return self.stores[tenant.id]

    def sweep(self, tenant: Tenant, *, limit: int) -> int:
        self.world.calls.append(("sweep_store", tenant))
        return min(self.world.expired.pop(tenant), limit)


def over(row: RunRow, **changed: Any) -> RunRow:
    return replace(row, status="success", finished_at=NOW, announced_at=NOW, **changed)
