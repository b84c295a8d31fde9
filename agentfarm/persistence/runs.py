"""Runs: admitted, cancelled, retried, listed. Fits flow's port `Runs`.

Whatever begins or ends a run from outside goes through sql/admit.sql under the thread's lock, and is one transaction.
How a run ends by its own work is executions.py's.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, exists, func, select, text

from agentfarm.engine.continuation import Manifest
from agentfarm.engine.steps import RunSpec
from agentfarm.errors import Conflict, NotFound
from agentfarm.messages import ExecuteNode
from agentfarm.persistence import wire
from agentfarm.persistence.admission import Admission, admitted_of, start_messages
from agentfarm.persistence.database import Databases
from agentfarm.persistence.once import gone, leave_name, take_name
from agentfarm.persistence.redis_tier.write_behind import WriteBehind
from agentfarm.persistence.retrials import plan_retrial
from agentfarm.persistence.run_ends import read_end
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.persistence.specs import dump_spec, load_spec
from agentfarm.persistence.tables import (
    checkpoint,
    dead_letter,
    graph_build,
    node_execution,
    run,
    superstep,
    thread,
    worker,
)
from agentfarm.persistence.threads import forget_thread, keep_if_new, lock_thread
from agentfarm.records import Admitted, Ended, ExecutionRow, NewRun, OtherBuild, RunEnd, RunRow, RunStatus, ThreadTtl
from agentfarm.tenancy import Tenant

#: The largest page of a list of runs.
MAX_PAGE = 1_000

#: What may be retried: runs that failed. An interrupted one is resumed, a successful one is done.
FAILED: frozenset[RunStatus] = frozenset({"error", "timeout"})


class PostgresRuns:
    """serde_for    the serializer of a graph's threads, by the graph's id
    default_ttl  of threads that a run makes
    build        whose workers are to execute the runs that are admitted here
    """

    def __init__(
        self,
        databases: Databases,
        serde_for: Callable[[str | None], FaithfulSerializer],
        *,
        default_ttl: ThreadTtl | None = None,
        build: str = "",
        behind: WriteBehind | None = None,
    ) -> None:
        self.behind = behind
        self.databases = databases
        self.serde_for = serde_for
        self.default_ttl = default_ttl
        self._admission = Admission(databases, build)

    # ----------------------------------------------------------------------- begin

    def admit(self, tenant: Tenant, new: NewRun) -> Admitted | OtherBuild:
        """One transaction; on a free thread, of a request without a name, one round trip.

        returns OtherBuild, and did nothing, where the thread's last run was begun under another build of the graph
                than this run was checked against
        raises  NotFound (no such thread), ThreadBusy (reject, or too many wait), AlreadyExists, InvalidInput,
                NameReused, Conflict (the run of the same request is deleted), ValueLost, StoreUnavailable
        """
        spec = dump_spec(new.spec, self.serde_for(new.graph_id))
        if self.behind is not None and new.strategy == "interrupt":  # what the run before it has finished stays
            self.behind.bring(tenant.id, tenant.home, new.thread_id, is_last=True)
        has_more_to_write = new.once is not None or (new.create_thread and self.default_ttl is not None)
        if not has_more_to_write and (alone := self._admission.admit_alone(tenant, new, spec)) is not None:
            return alone
        with self.databases.transaction(tenant) as connection:
            if new.once is not None:
                first = take_name(connection, tenant, new.once, new.run_id)
                if first is not None:
                    return Admitted(self._same(connection, tenant, first), ())
            answer = self._admission.admit(connection, tenant, new, spec)
            if answer.verdict == "changed":
                if new.once is not None:
                    leave_name(connection, tenant, new.once)
                return OtherBuild(answer.begun_under, _manifest(connection, tenant, new.graph_id, answer.begun_under))
            admitted = admitted_of(tenant, new, answer)
            if new.create_thread and self.default_ttl is not None:
                keep_if_new(connection, tenant, new.thread_id, self.default_ttl)
        self._admission.note(tenant, new)
        self._forget_in_redis(tenant, new.thread_id, answer.gone_epoch)
        return admitted

    def _forget_in_redis(self, tenant: Tenant, thread_id: UUID, epoch: int | None) -> None:
        if self.behind is not None and epoch is not None:
            self.behind.forget(tenant.id, thread_id, epoch)

    def _same(self, connection: Connection, tenant: Tenant, run_id: UUID) -> RunRow:
        """The run that the same request made before. Raises Conflict where it is gone."""
        row: Any = connection.execute(select(*_COLUMNS, run.c.spec).where(_is(tenant, run_id))).one_or_none()
        if row is None:
            raise gone()
        return _row(row, load_spec(row.spec, self.serde_for(row.graph_id)))

    def find_manifest(self, tenant: Tenant, graph_id: str, fingerprint: str) -> Manifest | None:
        """Of a build under which this tenant has had a run; None where it is not known any more."""
        with self.databases.transaction(tenant) as connection:
            return _manifest(connection, tenant, graph_id, fingerprint)

    def retry(self, tenant: Tenant, thread_id: UUID, run_id: UUID) -> Admitted:
        """A failed run goes on from its checkpoint, as a new run: nodes that are done are not executed again.

        raises  NotFound, Conflict (it did not fail, or the thread has gone on since), ThreadBusy, StoreUnavailable
        """
        with self.databases.transaction(tenant) as connection:
            _lock_thread(connection, tenant, thread_id)
            failed = connection.execute(_select_run(tenant, thread_id, run_id, *_SPEC)).one_or_none()
            if failed is None:
                raise NotFound(what="Run")
            if failed.status not in FAILED:
                raise Conflict(why="only a run that failed can be retried")
            if _has_gone_on(connection, tenant, failed):
                raise Conflict(why="the thread has had another run since; start a new one")
            serde = self.serde_for(failed.graph_id)
            began = _has_begun(connection, tenant, failed)
            new = plan_retrial(_row(failed, load_spec(failed.spec, serde)), began=began)
            new = replace(new, fingerprint=failed.fingerprint, goes_on_from=failed.fingerprint)  # the worker checks
            _dismiss(connection, tenant, run_id)
            return admitted_of(tenant, new, self._admission.admit(connection, tenant, new, dump_spec(new.spec, serde)))

    def dismiss(self, tenant: Tenant, run_id: UUID) -> None:
        """Somebody has seen to what was buried with this run. Raises NotFound where nothing was, or somebody had."""
        with self.databases.transaction(tenant) as connection:
            if not _dismiss(connection, tenant, run_id):
                raise NotFound(what="Dead letter")

    # ----------------------------------------------------------------------- end

    def cancel(
        self, tenant: Tenant, thread_id: UUID, run_id: UUID, *, rollback: bool
    ) -> tuple[Ended, tuple[ExecuteNode, ...]]:
        """Fence out what is open, end the run as interrupted, start who waits.

        rollback  undo its checkpoints and delete it instead
        raises    NotFound, for one that is over too, as the Agent Server does
        """
        if self.behind is not None and not rollback:  # what it has finished stays
            self.behind.bring(tenant.id, tenant.home, thread_id, is_last=True)
        statement = text(
            "SELECT verdict, forget, gone_epoch, started, started_graph, started_queue"
            " FROM farm.cancel_run(:tenant, :thread, :run, :undo)"
        )
        given = {"tenant": tenant.id, "thread": thread_id, "run": run_id, "undo": rollback}
        with self.databases.transaction(tenant) as connection:
            answer = connection.execute(statement, given).one()
            if answer.verdict == "missing":
                raise NotFound(what="Run")
            if answer.verdict == "undone" and answer.forget and not _has_runs(connection, tenant, thread_id):
                # A stateless run's thread goes with its run; the healer finds it by the run's row, which is gone.
                # Unless another run uses it, too: who knows the thread's id may have sent one.
                forget_thread(connection, tenant, thread_id)
        self._forget_in_redis(tenant, thread_id, answer.gone_epoch)
        ended = Ended(tenant.id, tenant.home, run_id, thread_id, "interrupted", None, answer.forget)
        return ended, start_messages(tenant, answer)

    def delete(self, tenant: Tenant, thread_id: UUID, run_id: UUID) -> None:
        """The record of a run that is over; what it made of the thread stays. Raises NotFound, Conflict (not over)."""
        with self.databases.transaction(tenant) as connection:
            _lock_thread(connection, tenant, thread_id)  # first, as everyone: its thread may be on its way out
            found = connection.execute(_select_run(tenant, thread_id, run_id).with_for_update(of=run)).one_or_none()
            if found is None:
                raise NotFound(what="Run")
            if found.finished_at is None:
                raise Conflict(why="the run is not over; cancel it first")
            for table in (superstep, node_execution, dead_letter, run):
                connection.execute(delete(table).where(table.c.tenant_id == tenant.id, table.c.run_id == run_id))

    def mark_announced(self, ended: Ended) -> None:
        """The end of this run is in its stream. Nothing happens for a run that is gone."""
        self.databases.at(ended.home).call(_MARK_ANNOUNCED, [ended.tenant_id.bytes, ended.run_id.bytes], again=True)

    # ----------------------------------------------------------------------- read

    def get(self, tenant: Tenant, thread_id: UUID, run_id: UUID, *, with_spec: bool = False) -> RunRow:
        """Raises NotFound: the same for a run of another thread or tenant."""
        with self.databases.transaction(tenant) as connection:
            row = connection.execute(
                _select_run(tenant, thread_id, run_id, *(_SPEC if with_spec else ()))
            ).one_or_none()
        if row is None:
            raise NotFound(what="Run")
        return _row(row, load_spec(row.spec, self.serde_for(row.graph_id)) if with_spec else None)

    def read_end(self, tenant: Tenant, thread_id: UUID, run_id: UUID) -> RunEnd:
        """In one round trip. Raises NotFound, as `get`."""
        return read_end(self.databases.of(tenant), tenant.id, thread_id, run_id)

    def find(self, tenant: Tenant, run_id: UUID) -> RunRow | None:
        with self.databases.transaction(tenant) as connection:
            row = connection.execute(select(*_COLUMNS).where(_is(tenant, run_id))).one_or_none()
        return None if row is None else _row(row)

    def list(
        self, tenant: Tenant, thread_id: UUID, *, limit: int, offset: int, status: RunStatus | None
    ) -> Sequence[RunRow]:
        """Newest first; served by run_thread. Raises NotFound for a thread that does not exist."""
        mine = (run.c.tenant_id == tenant.id, run.c.thread_id == thread_id)
        statement = select(*_COLUMNS).where(*mine).order_by(run.c.created_at.desc(), run.c.run_id.desc())
        if status is not None:
            statement = statement.where(run.c.status == status)
        with self.databases.transaction(tenant) as connection:
            rows = connection.execute(statement.limit(max(0, min(limit, MAX_PAGE))).offset(offset)).all()
            if not rows and not _thread_exists(connection, tenant, thread_id):
                raise NotFound(what="Thread")
        return [_row(row) for row in rows]

    def executions(self, tenant: Tenant, run_id: UUID) -> Sequence[ExecutionRow]:
        """In order of creation. () for a run that does not exist."""
        e = node_execution.c
        statement = (
            select(
                *(
                    e.execution_id,
                    e.checkpoint_id,
                    e.node,
                    e.status,
                    e.outcome,
                    e.attempts,
                    worker.c.name.label("worker"),
                ),
                *(e.started_at, e.finished_at, e.error, func.coalesce(e.lost_to, text("'[]'::jsonb")).label("lost_to")),
            )
            .select_from(node_execution.outerjoin(worker, worker.c.worker == e.worker))
            .where(e.tenant_id == tenant.id, e.run_id == run_id)
            .order_by(e.created_at, e.execution_id)
        )
        with self.databases.transaction(tenant) as connection:
            return [ExecutionRow(**row._mapping) for row in connection.execute(statement)]


_MARK_ANNOUNCED = wire.function("mark_announced", "uuid uuid")


def _manifest(connection: Connection, tenant: Tenant, graph_id: str, fingerprint: str) -> Manifest | None:
    b = graph_build.c
    mine = (b.tenant_id == tenant.id, b.graph_id == graph_id, b.fingerprint == fingerprint)
    found: Manifest | None = connection.execute(select(b.manifest).where(*mine)).scalar_one_or_none()
    return found


# --------------------------------------------------------------------------- what may be retried


def _has_gone_on(connection: Connection, tenant: Tenant, failed: Row[Any]) -> bool:
    mine = (run.c.tenant_id == tenant.id, run.c.thread_id == failed.thread_id, run.c.run_id != failed.run_id)
    return bool(connection.execute(select(exists().where(*mine, run.c.started_at > failed.started_at))).scalar_one())


def _dismiss(connection: Connection, tenant: Tenant, run_id: UUID) -> bool:
    d = dead_letter.c
    gone = delete(dead_letter).where(d.tenant_id == tenant.id, d.run_id == run_id)
    return connection.execute(gone).rowcount > 0


def _has_begun(connection: Connection, tenant: Tenant, failed: Row[Any]) -> bool:
    """Whether it got as far as a checkpoint. The thread's head does not tell: the state may have been changed since."""
    mine = (checkpoint.c.tenant_id == tenant.id, checkpoint.c.thread_id == failed.thread_id)
    return bool(connection.execute(select(exists().where(*mine, checkpoint.c.run_id == failed.run_id))).scalar_one())


def _has_runs(connection: Connection, tenant: Tenant, thread_id: UUID) -> bool:
    mine = (run.c.tenant_id == tenant.id, run.c.thread_id == thread_id)
    return bool(connection.execute(select(exists().where(*mine))).scalar_one())


def _lock_thread(connection: Connection, tenant: Tenant, thread_id: UUID) -> None:
    """Raises NotFound."""
    if not lock_thread(connection, tenant, thread_id):
        raise NotFound(what="Thread")


# --------------------------------------------------------------------------- rows

_COLUMNS = [
    run.c[name]
    for name in (
        *("run_id", "thread_id", "assistant_id", "graph_id", "status", "strategy", "metadata", "error"),
        *("created_at", "updated_at", "finished_at", "announced_at", "forget_thread", "ended_head"),
    )
]
_SPEC = (run.c.spec, run.c.started_at, run.c.fingerprint)


def _is(tenant: Tenant, run_id: UUID) -> Any:
    return (run.c.tenant_id == tenant.id) & (run.c.run_id == run_id)


def _select_run(tenant: Tenant, thread_id: UUID, run_id: UUID, *more: Any) -> Any:
    return select(*_COLUMNS, *more).where(_is(tenant, run_id), run.c.thread_id == thread_id)


def _thread_exists(connection: Connection, tenant: Tenant, thread_id: UUID) -> bool:
    mine = (thread.c.tenant_id == tenant.id, thread.c.thread_id == thread_id)
    return bool(connection.execute(select(exists().where(*mine))).scalar_one())


def _row(row: Row[Any], spec: RunSpec | None = None) -> RunRow:
    return RunRow(**{column.name: row._mapping[column.name] for column in _COLUMNS}, spec=spec)
