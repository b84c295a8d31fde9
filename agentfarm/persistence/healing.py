"""What died, got lost or stands still in one home. Fits flow's port `Healing`; the SQL is sql/heal.sql.

Found as farm_ops, which sees ids and times of all tenants and no state; decided, where a thread's lock or a tenant's
words are needed, as farm_app for that tenant. Several may run at once: each skips what another holds.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Row, TextClause, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Uuid

from agentfarm.conf import Settings
from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode
from agentfarm.persistence import wire
from agentfarm.persistence.database import Database
from agentfarm.persistence.execution_keys import start_message
from agentfarm.persistence.once import KEPT_SECONDS
from agentfarm.persistence.overdue import judge_lost
from agentfarm.persistence.redis_tier.healing import Moved, RedisHealing
from agentfarm.persistence.redis_tier.scripts import Place
from agentfarm.persistence.tables import run
from agentfarm.records import BuildUse, Buried, Delayed, Ended, Late, Sweep
from agentfarm.tenancy import Tenant

#: So many old messages of one queue are looked at, a sweep.
QUEUE_SHARE: Final = 100

#: A run is announced by the worker that ended it. Only what it left undone for this long is the healer's.
UNANNOUNCED_SECONDS: Final = 2.0

#: Threads whose time is over, a sweep: deleting one takes milliseconds, and dead workers' nodes wait meanwhile.
EXPIRY_BATCH: Final = 50

#: Between two looks for builds that nobody serves, and so between two lines of the log that say so.
UNSERVED_SECONDS: Final = 10.0

#: Runs, and executions, that one transaction moves to another build.
MOVE_LIMIT: Final = 500

BURY: Final = wire.function("bury", "uuid uuid uuid uuid interval int4")
START_WAITING: Final = wire.function("start_waiting", "uuid uuid")


def _ops(call: str) -> TextClause:
    return text(f"SELECT * FROM farm.{call}")  # noqa: S608  # names of ours


_NONE: Final[tuple[datetime | None, UUID | None]] = (None, None)

_SWEEP = _ops("ops_sweep(make_interval(secs => :lease), :max, :limit)")
_LOST = _ops("ops_lost(make_interval(secs => :age), make_interval(secs => :ahead), :share, :limit)")
_WAITING = _ops("ops_waiting(:limit)")
_STALLED = _ops("ops_stalled(make_interval(secs => :lease), :max, make_interval(secs => :age), :limit)")
_UNANNOUNCED = _ops("ops_unannounced(make_interval(secs => :age), :limit)")
_FORGETTABLE = _ops("ops_forgettable(make_interval(secs => :age), :limit)")
_EXPIRED = _ops("ops_expired(:limit)")
_FORGET_NAMES = _ops("ops_forget_names(make_interval(secs => :kept), :limit)")
_EXPIRED_THREADS = _ops("ops_expired_threads(:limit)")
_IN_REDIS = _ops("ops_in_redis(CAST(:after AS timestamptz), CAST(:after_run AS uuid), :limit)")
_LIVING = _ops("ops_living(make_interval(secs => :lease))")
_BUILDS = _ops("ops_builds(make_interval(secs => :lease))")
_MOVE_BUILD = _ops("ops_move_build(:gone, :to, :limit)")
_PUBLISH = _ops("ops_publish(:tenants, :runs, :checkpoints, :executions, :due)").bindparams(
    *(bindparam(name, type_=ARRAY(Uuid())) for name in ("tenants", "runs", "checkpoints", "executions"))
)


class PostgresHealing:
    """ops             the home as farm_ops
    app             the same home as farm_app
    expiry_seconds  between two looks for threads whose time is over, when the last look saw them all
    """

    def __init__(
        self,
        ops: Database,
        app: Database,
        settings: Settings,
        *,
        expiry_seconds: float = 300.0,
        redis: RedisHealing | None = None,
    ) -> None:
        self.redis = redis
        self.ops = ops
        self.app = app
        self.home = app.home
        self.lease_seconds = settings.lease_seconds
        self.max_attempts = settings.max_attempts
        self.lost_seconds = settings.lost_message_seconds
        self.expiry_seconds = expiry_seconds
        self._look_at = 0.0  # monotonic: when threads whose time is over are looked for again
        self._unserved_due = 0.0
        self._looked_at = _NONE  # when the last one that was looked at in Redis was begun, and which one it is
        self.ahead_seconds = 2 * settings.heal_seconds  # the next sweep begins before that

    # ----------------------------------------------------------------------- dead workers

    def sweep(self, *, limit: int = 500) -> Sweep:
        """Executions of dead or silent workers are ready again, or spent. Raises StoreUnavailable."""
        found = self._find(_SWEEP, lease=self.lease_seconds, max=self.max_attempts, limit=limit)
        return _swept((row.action, self._message(row)) for row in found)

    def bury(self, spent: ExecuteNode) -> Buried | None:
        """One transaction, as the tenant. Raises StoreUnavailable: it may have been buried."""
        answer = self.app.call(
            BURY,
            [
                spent.tenant_id.bytes,
                spent.run_id.bytes,
                spent.checkpoint_id.bytes,
                spent.execution_id.bytes,
                wire.put_seconds(self.lease_seconds),
                wire.put_int4(self.max_attempts),
            ],
        )
        if answer.raw("buried") is None:
            return None  # somebody else was faster, the run is over, or somebody has its thread
        error = orjson.loads(answer.data("error")[1:])  # jsonb's version byte
        thread_id, forget = answer.uuid("thread"), answer.flag("forget")
        ended = Ended(spent.tenant_id, self.home, spent.run_id, thread_id, "error", error, forget)
        place = (answer.text("next_graph"), answer.text("next_queue"))
        return Buried(ended, self._next(spent.tenant_id, answer.find_uuid("next_run"), *place))

    # ----------------------------------------------------------------------- lost messages

    def lost(self, queue_lengths: Callable[[str], int | None], *, limit: int = 500) -> Late:
        """Messages to send again, and retries due soon.

        What was published is believed lost where its queue is short, and of a long queue the oldest (overdue.py).
        Bounded by queue, so that none hides another.
        """
        found = self._find(_LOST, age=self.lost_seconds, ahead=self.ahead_seconds, share=QUEUE_SHARE, limit=limit)
        now = time.monotonic()
        judged = judge_lost([row for row in found if row.why != "soon"], queue_lengths)
        again = [self._message(row) for row in self._publish(judged, due=False)] if judged else []
        soon = sorted((_delayed(row, now) for row in found if row.why == "soon"), key=lambda one: one.due_at)
        return Late(again=tuple(again), soon=tuple(soon))

    def due(self, delayed: Sequence[Delayed]) -> tuple[ExecuteNode, ...]:
        """Messages for the next tries of these nodes, whose delay is over: those that nobody else has sent."""
        return tuple(self._message(row) for row in self._publish(delayed, due=True))

    def _publish(self, rows: Sequence[Row[Any] | Delayed], *, due: bool) -> Sequence[Row[Any]]:
        return self._find(
            _PUBLISH,
            tenants=[row.tenant_id for row in rows],
            runs=[row.run_id for row in rows],
            checkpoints=[row.checkpoint_id for row in rows],
            executions=[row.execution_id for row in rows],
            due=due,
        )

    def waiting(self, *, limit: int = 500) -> Sequence[tuple[UUID, UUID]]:
        """(tenant, thread) of threads on which runs wait and that nobody moves."""
        return [(row.tenant_id, row.thread_id) for row in self._find(_WAITING, limit=limit)]

    def start_waiting(self, tenant_id: UUID, thread_id: UUID) -> tuple[ExecuteNode, ...]:
        """The start of the run whose turn it is; () where there is none by now, or somebody has the thread."""
        answer = self.app.call(START_WAITING, [tenant_id.bytes, thread_id.bytes])
        place = (answer.text("graph"), answer.text("queue"))
        return self._next(tenant_id, answer.find_uuid("started"), *place)

    def _next(self, tenant_id: UUID, run_id: UUID | None, graph_id: str, queue: str) -> tuple[ExecuteNode, ...]:
        return () if run_id is None else (start_message(tenant_id, self.home, run_id, graph_id, queue),)

    # ----------------------------------------------------------------------- supersteps that nobody advances

    def stalled(self, *, limit: int = 100) -> Sweep:
        """Advance messages for supersteps that are complete. One that killed as many workers as may be is spent."""
        found = self._find(
            _STALLED, lease=self.lease_seconds, max=self.max_attempts, age=self.lost_seconds, limit=limit
        )
        return _swept((row.action, self._advance(row)) for row in found)

    def _advance(self, row: Row[Any]) -> ExecuteNode:
        return ExecuteNode(row.tenant_id, self.home, row.run_id, row.checkpoint_id, ZERO, row.graph_id, queue=row.queue)

    # ----------------------------------------------------------------------- runs that Redis moves

    def in_redis(self, queue_lengths: Callable[[str], int | None], *, limit: int = 2000) -> tuple[ExecuteNode, ...]:
        """Messages of theirs to send again; what stands still there is recalled, and told by that.

        Looks at so many of them, and the next time at those behind: whatever these are like, each has its turn.
        """
        if self.redis is None:
            return ()
        after, run_id = self._looked_at
        found = self._find(_IN_REDIS, after=after, after_run=run_id, limit=limit)
        # Before anything is done about them, since that may fail each time.
        self._looked_at = (found[-1].started_at, found[-1].run_id) if len(found) == limit else _NONE
        moved = [
            Moved(
                Place(row.tenant_id, self.home, row.thread_id, row.run_id, row.epoch),
                row.graph_id,
                row.queue,
                row.entry,
                row.started_seconds,
            )
            for row in found
        ]
        return self.redis.sweep(moved, self._living, queue_lengths)

    def _living(self) -> frozenset[int]:
        return frozenset(row[0] for row in self._find(_LIVING, lease=self.lease_seconds))

    # ----------------------------------------------------------------------- runs that are over

    def unannounced(self, *, limit: int = 100) -> tuple[Ended, ...]:
        """Runs whose stream nobody closed, with their errors, which are read as their tenants."""
        return tuple(self._with_error(row) for row in self._find(_UNANNOUNCED, age=UNANNOUNCED_SECONDS, limit=limit))

    def _with_error(self, row: Row[Any]) -> Ended:
        mine = (run.c.tenant_id == row.tenant_id, run.c.run_id == row.run_id)
        with self.app.transaction(row.tenant_id) as connection:
            error = connection.execute(select(run.c.error).where(*mine)).scalar_one_or_none()
        return self._ended(row, error)

    def forgettable(self, *, grace_seconds: float = 60.0, limit: int = 100) -> tuple[Ended, ...]:
        """Stateless runs that were over that long ago: their threads may go."""
        return tuple(self._ended(row, None) for row in self._find(_FORGETTABLE, age=grace_seconds, limit=limit))

    def expired(self, *, limit: int = 500) -> tuple[Tenant, ...]:
        """Tenants whose store holds items that are over; of the so many most overdue."""
        return tuple(Tenant(row.tenant_id, slug="", home=self.home) for row in self._find(_EXPIRED, limit=limit))

    def forget_names(self, *, limit: int = 500) -> int:
        """Remove names of requests that are too old to be looked for. Returns how many there were."""
        return int(self._find(_FORGET_NAMES, kept=KEPT_SECONDS, limit=limit)[0][0])

    def expired_threads(self) -> Sequence[tuple[UUID, str, UUID]]:
        """(tenant, home, thread) of threads whose time may be over: a small batch, as often as there is to look."""
        if time.monotonic() < self._look_at:
            return ()
        found = self._find(_EXPIRED_THREADS, limit=EXPIRY_BATCH)
        if len(found) < EXPIRY_BATCH:
            self._look_at = time.monotonic() + self.expiry_seconds
        return [(row.tenant_id, self.home, row.thread_id) for row in found]

    def _ended(self, row: Row[Any], error: Any) -> Ended:
        return Ended(row.tenant_id, self.home, row.run_id, row.thread_id, row.status, error, row.forget_thread)

    # ----------------------------------------------------------------------- builds side by side

    def builds(self) -> tuple[BuildUse, ...]:
        """What waits for each build's workers, by the build's name."""
        return tuple(BuildUse(**row._mapping) for row in self._find(_BUILDS, lease=self.lease_seconds))

    def unserved(self) -> tuple[BuildUse, ...]:
        """Builds of which work waits though no worker lives. Looks every UNSERVED_SECONDS; () in between."""
        now = time.monotonic()
        if now < self._unserved_due:
            return ()
        self._unserved_due = now + UNSERVED_SECONDS
        return tuple(use for use in self.builds() if not use.workers and use.oldest_seconds > self.lease_seconds)

    def move_build(self, gone: str, to: str) -> tuple[int, int]:
        """What waits for the one build's workers is the other's. (runs, node executions) that were moved."""
        runs = executions = 0
        while moved := sum(row := self._find(_MOVE_BUILD, gone=gone, to=to, limit=MOVE_LIMIT)[0]):
            runs, executions = runs + row.runs, executions + row.executions
            if moved < MOVE_LIMIT:
                break
        return runs, executions

    # ----------------------------------------------------------------------- both

    def _find(self, statement: TextClause, **params: Any) -> Sequence[Row[Any]]:
        with self.ops.transaction_of_nobody() as connection:
            return connection.execute(statement, params).all()

    def _message(self, row: Row[Any]) -> ExecuteNode:
        node = "" if row.execution_id == row.run_id else row.node
        key = (row.tenant_id, self.home, row.run_id, row.checkpoint_id, row.execution_id)
        return ExecuteNode(*key, graph_id=row.graph_id, node=node, queue=row.queue)


def _swept(found: Iterable[tuple[str, ExecuteNode]]) -> Sweep:
    """By their actions, as ops_sweep and ops_stalled have them."""
    by_action: defaultdict[str, list[ExecuteNode]] = defaultdict(list)
    for action, message in found:
        by_action[action].append(message)
    return Sweep(tuple(by_action["again"]), len(by_action["later"]), tuple(by_action["bury"]))


def _delayed(row: Row[Any], now: float) -> Delayed:
    return Delayed(row.tenant_id, row.run_id, row.checkpoint_id, row.execution_id, due_at=now - row.age_seconds)
