"""Workers and runs for the tests of the hot path: segments made by hand, so that each says exactly what it writes."""

import threading
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from agentfarm.conf import Settings
from agentfarm.engine.steps import NodeCall, PutCheckpoint, PutWrites, RunSpec, SegmentResult
from agentfarm.ids import ZERO, assistant_id, new_id
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.database import Databases
from agentfarm.persistence.executions import PostgresExecutions
from agentfarm.persistence.leases import WorkerLease
from agentfarm.persistence.redis_tier.claims import RedisClaims
from agentfarm.persistence.redis_tier.scripts import RedisScripts, thread_key
from agentfarm.persistence.redis_tier.write_behind import WriteBehind
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.records import Claimed, Committed, NewRun, Refused
from agentfarm.run_options import Persistence, RunOptions
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.services import NOWHERE

BIG = "x" * 1000


def serde_for(graph_id: str | None) -> FaithfulSerializer:
    return FaithfulSerializer()


class Hand:
    """One worker process, as far as the database can tell."""

    def __init__(self, home: Home, name: str = "hand", redis_url: str | None = None, **settings: Any) -> None:
        chosen = home.settings.model_copy(update={"heartbeat_seconds": 0.1, **settings})
        databases = Databases(home.app)
        self.home = home
        self.lease = WorkerLease(chosen, name=name)
        self.lease.start()
        self.scripts = RedisScripts(redis_url or NOWHERE)
        self.behind = WriteBehind(self.scripts, databases)
        self.redis = RedisClaims(self.scripts, self.behind, lease_seconds=chosen.lease_seconds) if redis_url else None
        self.executions = PostgresExecutions(databases, serde_for, self.lease, chosen, self.redis)

    def claim(self, message: ExecuteNode) -> Claimed:
        claimed = self.executions.claim(message)
        assert isinstance(claimed, Claimed), claimed
        return claimed

    def refusal(self, message: ExecuteNode) -> str:
        refused = self.executions.claim(message)
        assert isinstance(refused, Refused), refused
        return refused.why

    def commit(
        self, claimed: Claimed, result: SegmentResult, *, lease_next: bool = False, wake: int | None = None
    ) -> Committed:
        return self.executions.commit(claimed, result, lease_next=lease_next, wake=wake)

    def siblings(self, message: ExecuteNode) -> list[tuple[str, int]]:
        """(status, messages) of all executions of a superstep, wherever its run is."""
        if not message.epoch or message.thread_id is None:
            sql = "SELECT status, publishes FROM farm.node_execution WHERE checkpoint_id = %s AND NOT alone"
            rows = self.home.query(sql, message.checkpoint_id)
            return sorted((str(status), int(str(publishes))) for status, publishes in rows)
        key = thread_key(message.tenant_id, message.thread_id)
        client = self.scripts.servers.of(key).client
        stored: dict[bytes, bytes] = client.hgetall(key)  # type: ignore[assignment]  # of a sync client
        kinds = {"r": "ready", "l": "leased", "d": "done", "h": "held"}
        states = [
            value.decode().split(",")
            for name, value in stored.items()
            if name.startswith(b"x:") and name != b"x:" + ZERO.hex.encode()
        ]
        return sorted((kinds[kind], 0 if kind == "h" or more[-1:] == ["w"] else 1) for kind, *more in states)

    def stop(self) -> None:
        if self.redis is not None:
            self.redis.close()
        self.lease.stop()
        self.scripts.close()


def admit(
    home: Home,
    tenant: Tenant,
    thread_id: UUID,
    *,
    strategy: str = "enqueue",
    tier: Persistence = "postgres",
    **config: Any,
) -> ExecuteNode | None:
    """The start of a run with input {"text": "hello"}; None where the run waits for its turn."""
    run_id = new_id()
    spec = RunSpec(
        run_id=str(run_id),
        thread_id=str(thread_id),
        graph_id="graph",
        input={"text": "hello"},
        config={"configurable": {"thread_id": str(thread_id)}, **config},
        kwargs={"stream_mode": ["values"]},
        options=RunOptions(persistence=tier),
    )
    new = NewRun(
        run_id,
        thread_id,
        assistant_id("graph"),
        "graph",
        spec,
        strategy=strategy,
        create_thread=True,  # type: ignore[arg-type]
        fingerprint="of the tests",
        manifest={"nodes": {}, "channels": {}},
    )
    ready = PostgresRuns(Databases(home.app), serde_for).admit(tenant, new).ready
    return ready[0] if ready else None


def start(home: Home, tenant: Tenant, thread_id: UUID | None = None, **config: Any) -> ExecuteNode:
    message = admit(home, tenant, thread_id or uuid4(), **config)
    assert message is not None
    return message


# --------------------------------------------------------------------------- what segments say


def call(name: str, checkpoint_id: str, *, sole: bool = True, **more: Any) -> NodeCall:
    known: dict[str, Any] = {
        "path": ("__pregel_pull", name),
        "stop": 25,
        "checkpoint_ns": "",
        "execution_id": str(uuid4()),
        "addressed": False,
        "resuming": None,
        "replaying": False,
        "answered": True,
    }
    return NodeCall(name=name, checkpoint_id=checkpoint_id, sole=sole, **{**known, **more})


def put_checkpoint(
    claimed_thread: UUID,
    parent_id: UUID | str | None,
    *,
    step: int = 0,
    checkpoint_id: str | None = None,
    **values: Any,
) -> PutCheckpoint:
    """A checkpoint with these values, all of them new."""
    parent = None if parent_id is None else str(parent_id)
    versions = {channel: f"{step + 2:08d}.{uuid4().hex[:8]}" for channel in values}
    checkpoint = {
        **empty_checkpoint(),
        "id": checkpoint_id or str(uuid6()),
        "channel_values": dict(values),
        "channel_versions": dict(versions),
    }
    config = {"configurable": {"thread_id": str(claimed_thread), "checkpoint_ns": "", "checkpoint_id": parent}}
    metadata: Any = {"source": "loop", "step": step, "parents": {}}
    return PutCheckpoint(config, checkpoint, metadata, versions, parent, "")  # type: ignore[arg-type]


def put_writes(checkpoint_id: str, task_id: str, *writes: tuple[str, Any], path: str = "") -> PutWrites:
    return PutWrites("", checkpoint_id, task_id, path, writes)


def own_writes(claimed: Claimed, *writes: tuple[str, Any]) -> PutWrites:
    assert claimed.call is not None
    return put_writes(
        claimed.call.checkpoint_id, claimed.call.execution_id, *(writes or (("text", claimed.call.name),))
    )


def begin(claimed: Claimed, *names: str, sole: bool | None = None, **values: Any) -> SegmentResult:
    """A start: the input's checkpoint, then these nodes."""
    put = put_checkpoint(claimed.thread_id, claimed.saver.at_id, step=0, **(values or {"text": "hello"}))  # type: ignore[attr-defined]
    checkpoint_id = put.checkpoint["id"]
    alone = len(names) == 1 if sole is None else sole
    return SegmentResult(ops=[put], next=tuple(call(name, checkpoint_id, sole=alone) for name in names))


def go_on(claimed: Claimed, *names: str, step: int = 1, **values: Any) -> SegmentResult:
    """A node alone in its superstep: its writes, the next checkpoint, the next nodes; or the run's end."""
    assert claimed.call is not None
    put = put_checkpoint(
        claimed.thread_id, claimed.call.checkpoint_id, step=step, **(values or {"text": claimed.call.name})
    )
    following = tuple(call(name, put.checkpoint["id"], sole=len(names) == 1) for name in names)
    ops = [own_writes(claimed), put]
    return SegmentResult(ops=ops, next=following, status=None if names else "success")


def settled(claimed: Claimed, outcome: Any = "done", **more: Any) -> SegmentResult:
    most = claimed.run.config.get("max_concurrency")
    return SegmentResult(ops=[own_writes(claimed)], outcome=outcome, max_concurrency=most, **more)


def advanced(claimed: Claimed, *names: str, step: int = 1) -> SegmentResult:
    put = put_checkpoint(claimed.thread_id, str(claimed.message.checkpoint_id), step=step, text="advanced")
    following = tuple(call(name, put.checkpoint["id"], sole=len(names) == 1) for name in names)
    return SegmentResult(ops=[put], next=following, status=None if names else "success")


# --------------------------------------------------------------------------- facts


def run_status(home: Home, message: ExecuteNode) -> str:
    return str(home.query("SELECT status FROM farm.run WHERE run_id = %s", message.run_id)[0][0])


def execution(home: Home, message: ExecuteNode) -> Mapping[str, Any]:
    sql = """SELECT status, outcome, fence, attempts, lost_to, error FROM farm.node_execution
              WHERE run_id = %s AND checkpoint_id = %s AND execution_id = %s"""
    row = home.query(sql, message.run_id, message.checkpoint_id, message.execution_id)[0]
    return dict(zip(("status", "outcome", "fence", "attempts", "lost_to", "error"), row, strict=True))


def count(home: Home, table: str) -> int:
    return int(str(home.query(f"SELECT count(*) FROM farm.{table}")[0][0]))


def make_silent(home: Home, hand: Hand, *, seconds: int = 60) -> None:
    """As if the process were frozen: its lock is held, its row grows old."""
    lease = hand.lease
    worker = lease.worker_id()
    resting = threading.Event()
    beat_seconds, lease._beat_seconds = lease._beat_seconds, 3600
    wait = lease._wake.wait

    def rest(seconds: float | None = None) -> bool:
        if seconds == 3600:  # the beat before it, if there was one under way, is over
            resting.set()
        return wait(seconds)

    lease._wake.wait = rest  # type: ignore[method-assign]
    assert resting.wait(beat_seconds * 20 + 10), "the lease's thread does not come to rest"
    home.query(
        "UPDATE farm.worker SET beat_at = clock_timestamp() - make_interval(secs => %s) WHERE worker = %s RETURNING 1",
        seconds,
        worker,
    )


Factory = Callable[..., Hand]
__all__ = ["ZERO", "Factory", "Hand", "Settings"]


def config_of(claimed: Claimed) -> dict[str, dict[str, str]]:
    return {"configurable": {"thread_id": str(claimed.thread_id), "checkpoint_ns": ""}}
