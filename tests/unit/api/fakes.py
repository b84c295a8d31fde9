"""Stand-ins for what lies behind the ports, just as much of them as the API's own tests need."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.store.memory import InMemoryStore
from typing_extensions import TypedDict

from agentfarm import clock
from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.graphs import GraphRegistry
from agentfarm.errors import AlreadyExists, NotFound, StreamUnavailable, ThreadBusy
from agentfarm.flow.farm import Farm
from agentfarm.messages import ExecuteNode
from agentfarm.records import (
    Admitted,
    Ended,
    Event,
    History,
    NewRun,
    RunEnd,
    RunRow,
    RunStatus,
    ThreadQuery,
    ThreadRow,
    ThreadTtl,
)
from agentfarm.tenancy import Tenant

ACME = Tenant(uuid4(), "acme")
GLOBEX = Tenant(uuid4(), "globex")


class State(TypedDict):
    said: str


def echo_graph() -> Any:
    builder = StateGraph(State)
    builder.add_node("echo", lambda state: {"said": state["said"] + "!"})
    builder.add_edge(START, "echo")
    return builder.compile()


def served_graphs() -> GraphRegistry:
    """One that runs, and one that could not be loaded."""
    echo = describe_graph("echo", echo_graph(), description="Says it again")
    return GraphRegistry({"echo": echo}, {"broken": "ModuleNotFoundError in graph.py, line 3"})


class FakeThreads:
    def __init__(self) -> None:
        self.rows: dict[tuple[UUID, UUID], ThreadRow] = {}
        self.savers: dict[UUID, InMemorySaver] = {}
        self.fails_with: Exception | None = None

    def create(
        self,
        tenant: Tenant,
        thread_id: UUID,
        metadata: Mapping[str, Any],
        *,
        if_exists: str,
        history: History | None = None,
        ttl: ThreadTtl | None = None,
    ) -> ThreadRow:
        if (tenant.id, thread_id) in self.rows:
            if if_exists == "raise":
                raise AlreadyExists(what="Thread")
            return self.rows[tenant.id, thread_id]
        now = clock.now()
        row = ThreadRow(thread_id, "idle", metadata, {}, metadata.get("graph_id"), None, now, now, None)
        return self._put(tenant, row)

    def get(self, tenant: Tenant, thread_id: UUID) -> ThreadRow:
        if self.fails_with is not None:
            raise self.fails_with
        if (tenant.id, thread_id) not in self.rows:
            raise NotFound(what="Thread")
        return self.rows[tenant.id, thread_id]

    def update(
        self, tenant: Tenant, thread_id: UUID, metadata: Mapping[str, Any], *, ttl: ThreadTtl | None = None
    ) -> ThreadRow:
        row = self.get(tenant, thread_id)
        return self._put(tenant, replace(row, metadata={**row.metadata, **metadata}))

    def delete(self, tenant: Tenant, thread_id: UUID) -> tuple[Ended, ...]:
        self.get(tenant, thread_id)
        del self.rows[tenant.id, thread_id]
        return ()

    def search(self, tenant: Tenant, query: ThreadQuery) -> tuple[Sequence[ThreadRow], bool]:
        mine = [row for (owner, _), row in self.rows.items() if owner == tenant.id]
        end = query.offset + query.limit
        return mine[query.offset : end], len(mine) > end

    def count(self, tenant: Tenant, query: ThreadQuery) -> int:
        return len(self.search(tenant, replace(query, limit=10_000))[0])

    def saver(
        self,
        tenant: Tenant,
        graph_id: str | None,
        *,
        guard_idle: bool = False,
        made: Any = None,
        ended: UUID | None = None,
    ) -> InMemorySaver:
        return self.savers.setdefault(tenant.id, InMemorySaver())

    def _put(self, tenant: Tenant, row: ThreadRow) -> ThreadRow:
        self.rows[tenant.id, row.thread_id] = row
        return row


class FakeRuns:
    """Runs are over as soon as they are admitted, with the values that the test gave."""

    def __init__(self, threads: FakeThreads) -> None:
        self.threads = threads
        self.rows: dict[tuple[UUID, UUID], RunRow] = {}
        self.new: list[NewRun] = []
        self.cancelled: list[UUID] = []
        self.ends_as: RunStatus = "success"
        self.is_busy = False

    def admit(self, tenant: Tenant, new: NewRun) -> Admitted:
        if self.is_busy and new.strategy == "reject":
            raise ThreadBusy(hint="Wait for it.")
        if new.create_thread:
            self.threads.create(tenant, new.thread_id, {}, if_exists="do_nothing")
        self.threads.get(tenant, new.thread_id)
        now = clock.now()
        self.new.append(new)
        row = RunRow(
            new.run_id, new.thread_id, new.assistant_id, new.graph_id, self.ends_as, new.strategy, new.metadata, None,
            now, now, None, new.forget_thread, announced_at=now, spec=new.spec,
        )  # fmt: skip
        self.rows[tenant.id, new.run_id] = row
        return Admitted(row, ())

    def read_end(self, tenant: Tenant, thread_id: UUID, run_id: UUID) -> RunEnd:
        """As of one under way: its state is the thread's."""
        row = self.get(tenant, thread_id, run_id)
        return RunEnd(run_id, thread_id, row.graph_id, is_over=False, error=row.error)

    def get(self, tenant: Tenant, thread_id: UUID, run_id: UUID, *, with_spec: bool = False) -> RunRow:
        row = self.rows.get((tenant.id, run_id))
        if row is None or row.thread_id != thread_id:
            raise NotFound(what="Run")
        return row if with_spec else replace(row, spec=None)

    def find(self, tenant: Tenant, run_id: UUID) -> RunRow | None:
        return self.rows.get((tenant.id, run_id))

    def list(
        self, tenant: Tenant, thread_id: UUID, *, limit: int, offset: int, status: RunStatus | None
    ) -> Sequence[RunRow]:
        self.threads.get(tenant, thread_id)
        mine = [row for row in self.rows.values() if row.thread_id == thread_id and status in (None, row.status)]
        return mine[offset : offset + limit]

    def cancel(
        self, tenant: Tenant, thread_id: UUID, run_id: UUID, *, rollback: bool
    ) -> tuple[Ended, tuple[ExecuteNode, ...]]:
        row = self.get(tenant, thread_id, run_id)
        if row.status not in ("pending", "running"):
            raise NotFound(what="Run")
        self.cancelled.append(run_id)
        self.rows[tenant.id, run_id] = replace(row, status="interrupted")
        return Ended(tenant.id, tenant.home, run_id, thread_id, "interrupted"), ()

    def delete(self, tenant: Tenant, thread_id: UUID, run_id: UUID) -> None:
        self.get(tenant, thread_id, run_id)
        del self.rows[tenant.id, run_id]

    def mark_announced(self, ended: Ended) -> None:
        pass


class FakeLog:
    def __init__(self) -> None:
        self.events: dict[UUID, list[Event]] = {}
        self.followed: list[str] = []
        self.is_up = True

    def ping(self) -> None:
        if not self.is_up:
            raise StreamUnavailable

    def close_run(self, tenant_id: UUID, run_id: UUID, events: Sequence[Event]) -> None:
        self.events.setdefault(run_id, []).extend(replace(event, id="9-0") for event in events)

    async def follow(self, tenant_id: UUID, run_id: UUID, *, after: str) -> AsyncIterator[Event | None]:
        """A run is over as soon as it is admitted, so its stream has its end."""
        self.followed.append(after)
        yield None
        for event in self.events.get(run_id, (Event("end", b'{"status":"success"}', "9-0"),)):
            yield event


class FakeStores:
    """LangGraph's own, in memory."""

    def __init__(self) -> None:
        self.stores: dict[UUID, InMemoryStore] = {}

    def of(self, tenant: Tenant) -> InMemoryStore:
        return self.stores.setdefault(tenant.id, InMemoryStore())

    def sweep(self, tenant: Tenant, *, limit: int) -> int:
        return 0


class FakeKeys:
    def __init__(self) -> None:
        self.tenants = {f"key-of-{tenant.slug}": tenant for tenant in (ACME, GLOBEX)}
        self.lets_in: Tenant | None = None

    def find(self, raw_key: str) -> Tenant | None:
        return self.tenants.get(raw_key)

    def anonymous(self) -> Tenant | None:
        return self.lets_in


class FakeFarm:
    def __init__(self) -> None:
        self.graphs, self.threads, self.log, self.keys = served_graphs(), FakeThreads(), FakeLog(), FakeKeys()
        self.runs = FakeRuns(self.threads)
        self.stores = FakeStores()
        nobody: Any = None
        publisher: Any = SimpleNamespace(publish=lambda messages: None, queue_length=lambda queue: 0)
        self.farm = Farm(
            graphs=self.graphs,
            executions=nobody,
            runs=self.runs,  # type: ignore[arg-type]
            threads=self.threads,  # type: ignore[arg-type]
            stores=self.stores,
            healing=nobody,
            publisher=publisher,
            log=self.log,  # type: ignore[arg-type]
            caches=nobody,
            keys=self.keys,
            run_async=nobody,
        )

    def key_of(self, tenant: Tenant) -> str:
        return f"key-of-{tenant.slug}"
