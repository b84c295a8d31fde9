"""A whole farm in the test's process: real stores, a real broker, no clock. What each message costs is counted.

The process is web and worker: it admits runs as the API does (without HTTP), publishes to the broker, and executes each
message by the worker's own station. What a worker's Celery does to receive a message is not in it, nor is the healer.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any
from uuid import UUID

from agentfarm import ids, wiring
from agentfarm.flow import step
from agentfarm.flow.admit import admit_run, build_run
from agentfarm.flow.ahead import Quiet
from agentfarm.flow.farm import Farm
from agentfarm.flow.ports import Publisher
from agentfarm.flow.wave import Waves
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.caches import Cache
from agentfarm.persistence.claims import Claims
from agentfarm.persistence.executions import PostgresExecutions
from agentfarm.persistence.redis_tier.claims import RedisClaims
from agentfarm.records import RunRequest
from agentfarm.run_options import RunAhead, RunChoices
from agentfarm.tenancy import Tenant
from tests.tap import Tap, Traffic
from tests.wired import wired


@dataclass(frozen=True, slots=True)
class Cost:
    """What one message cost, or an admission, or several of them together.

    redis  the Redis that moves runs, where one does: its scripts, by their names
    """

    postgres: Traffic
    redis: Traffic
    streams: Traffic
    broker: Traffic

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.postgres + other.postgres,
            self.redis + other.redis,
            self.streams + other.streams,
            self.broker + other.broker,
        )

    def __sub__(self, before: "Cost") -> "Cost":
        return Cost(
            self.postgres - before.postgres,
            self.redis - before.redis,
            self.streams - before.streams,
            self.broker - before.broker,
        )

    def __str__(self) -> str:
        return "\n".join(f"{one.name}: {getattr(self, one.name)}" for one in fields(self))


@dataclass(frozen=True, slots=True)
class Counted:
    """messages  [(what Flower calls it, its cost)], in the order in which they were executed"""

    run_id: UUID
    admission: Cost
    messages: list[tuple[str, Cost]]

    def of(self, name: str, number: int = 0) -> Cost:
        """Of the so-manieth message of that name; -1 is the last."""
        return [cost for shadow, cost in self.messages if shadow == name][number]

    @property
    def whole(self) -> Cost:
        total = self.admission
        for _, cost in self.messages:
            total = total + cost
        return total


@dataclass
class Collecting:
    """Publishes, and keeps what it published for this process to execute."""

    publisher: Publisher
    messages: deque[ExecuteNode] = field(default_factory=deque)

    def publish(self, messages: Sequence[ExecuteNode]) -> None:
        self.publisher.publish(messages)
        self.messages.extend(messages)

    def queue_length(self, queue: str) -> int | None:
        return self.publisher.queue_length(queue)


@dataclass
class CountedFarm:
    farm: Farm
    collecting: Collecting
    postgres: Tap
    redis: Tap
    streams: Tap
    broker: Tap
    tier: str
    choices: RunChoices
    run_ids: list[UUID] = field(default_factory=list)
    tenant: Tenant = field(default_factory=lambda: Tenant(ids.new_id(), "counted"))

    def run(
        self,
        graph_id: str,
        run_input: Any,
        *,
        thread_id: UUID | None = None,
        stream_mode: Sequence[str] = (),
        run_ahead: bool = False,
    ) -> Counted:
        """Admit and execute. thread_id: None for a new thread."""
        thread_id = thread_id or ids.new_id()
        before = self.now()
        run_id = self.admit(graph_id, run_input, thread_id=thread_id, stream_mode=stream_mode, run_ahead=run_ahead)
        admission, messages = self.now() - before, self.execute()
        assert self.farm.runs.get(self.tenant, thread_id, run_id).status == "success"
        return Counted(run_id, admission, messages)

    def admit(
        self,
        graph_id: str,
        run_input: Any,
        *,
        thread_id: UUID,
        stream_mode: Sequence[str] = (),
        run_ahead: bool = False,
    ) -> UUID:
        request = RunRequest(
            assistant_id=graph_id,
            input=run_input,
            if_not_exists="create",
            stream_mode=stream_mode,
            streamed=bool(stream_mode),
            choices=replace(self.choices, run_ahead=run_ahead),
        )
        run = build_run(self.farm, self.tenant, request, thread_id=thread_id)
        self.run_ids.append(admit_run(self.farm, self.tenant, run).run_id)
        return self.run_ids[-1]

    def execute(self, most: int | None = None) -> list[tuple[str, Cost]]:
        """The messages that wait and those that they send, in their order, as Counted has them. most: None for all."""
        messages: list[tuple[str, Cost]] = []
        while self.collecting.messages and len(messages) != most:
            message = self.collecting.messages.popleft()
            before = self.now()
            assert step.execute_node(self.farm, message) == "committed"
            messages.append((message.shadow, self.now() - before))
        return messages

    def write_behind(self) -> Cost:
        """One interval of what brings to Postgres what Redis alone has, at the end of which all has arrived."""
        before = self.now()
        assert self._redis_claims.behind._round(), "somebody did not answer"
        return self.now() - before

    def now(self) -> Cost:
        return Cost(self.postgres.traffic(), self.redis.traffic(), self.streams.traffic(), self.broker.traffic())

    @contextlib.contextmanager
    def forgetful(self) -> Iterator[None]:
        """Every message finds a worker that has not seen its run yet, as where many share the work.

        These two are all that a process keeps of runs, whoever moves them.
        """
        claims = self._claims
        kept = claims._runs, claims._heads
        claims._runs, claims._heads = Cache(0), Cache(0)
        try:
            yield
        finally:
            claims._runs, claims._heads = kept

    @contextlib.contextmanager
    def logged(self) -> Iterator[list[int]]:
        """What this process's Postgres backend wrote into the write-ahead log meanwhile, in bytes: one number, put in
        the list at the end. Of this backend alone: whatever else the server does is not in it.

        Tables' pages and indexes' are in it, and what is stored out of line; neither full pages (the tests' server
        writes none) nor what autovacuum does later.
        """
        written: list[int] = []
        pid, before = self._log_position()
        yield written
        same_pid, after = self._log_position()
        assert pid == same_pid, "the farm went over to another connection, whose log is not known"
        written.append(after - before)

    def _log_position(self) -> tuple[int, int]:
        engine = self._claims.databases.at("main").engine
        pooled = engine.raw_connection()
        try:
            backend: Any = pooled.driver_connection
            # A backend tells its figures once a second at most, unless it is asked to.
            backend.pgconn.exec_(b"SELECT pg_stat_force_next_flush()")
            told = backend.pgconn.exec_(b"SELECT wal_bytes FROM pg_stat_get_backend_wal(pg_backend_pid())")
            return backend.info.backend_pid, int(told.get_value(0, 0))
        finally:
            pooled.close()

    def stop_clocks(self) -> None:
        """Nothing is written behind before a test asks for it, nor is a lease in Redis renewed."""
        self._redis_claims.behind.begin = lambda: None  # type: ignore[method-assign]  # its thread is not there
        self._redis_claims.renewal.begin = lambda: None  # type: ignore[method-assign]  # likewise

    @property
    def _claims(self) -> Claims:
        executions = self.farm.executions
        assert isinstance(executions, PostgresExecutions)
        return executions.claims

    @property
    def _redis_claims(self) -> RedisClaims:
        redis = self._claims.redis
        assert redis is not None
        return redis


@contextlib.contextmanager
def counted_farm(
    environment: Mapping[str, str], taps: tuple[Tap, Tap, Tap, Tap], *, tier: str, choices: RunChoices
) -> Iterator[CountedFarm]:
    """environment  leads through the taps: of Postgres, of the Redis that moves runs, of streams, of the broker"""
    with wired(environment):
        wiring.start_worker("counted@tests/1")
        collecting = Collecting(wiring.farm().publisher)
        # No clock decides how far a run goes ahead, nor how long the queue is, nor which siblings have a message.
        told = {"backlog": Quiet(), "run_ahead": RunAhead(nodes=10, seconds=60.0), "waves": Waves()}
        farm = replace(wiring.farm(), publisher=collecting, **told)
        counted = CountedFarm(farm, collecting, *taps, tier=tier, choices=choices)
        counted.stop_clocks()
        yield counted
