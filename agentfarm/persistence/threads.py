"""Threads: made, read, searched, forgotten. Fits flow's port `Threads`.

What moves a thread is runs.py's; what its state is, the saver's (checkpoints.py).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint
from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Interval,
    Row,
    Select,
    case,
    exists,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from agentfarm.errors import AlreadyExists, NotFound
from agentfarm.persistence.checkpoint_upkeep import copy_state, keep_latest
from agentfarm.persistence.checkpoint_writes import write_history
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Databases
from agentfarm.persistence.jsonb import check_jsonb
from agentfarm.persistence.redis_tier.write_behind import WriteBehind
from agentfarm.persistence.serde import FaithfulSerializer, serde_of
from agentfarm.persistence.tables import run, thread, thread_head
from agentfarm.records import Ended, History, RunEnd, ThreadQuery, ThreadRow, ThreadTtl
from agentfarm.tenancy import Tenant

#: What count() counts to. A client that pages through more than this does not read the number.
MAX_COUNT = 100_000

#: Of a run that is not over.
OPEN = ("running", "pending")

#: The largest page. The API's own limits are lower; this one protects the process.
MAX_PAGE = 1_000


class PostgresThreads:
    """serde_for    the serializer of a graph's threads; of None: plain values and messages
    default_ttl  of threads that are made without one
    behind       gives the database what Redis has of a thread, before it is read
    """

    def __init__(
        self,
        databases: Databases,
        serde_for: Callable[[str | None], FaithfulSerializer],
        *,
        default_ttl: ThreadTtl | None = None,
        behind: WriteBehind | None = None,
    ) -> None:
        self.behind = behind
        self.databases = databases
        self.serde_for = serde_for
        self.default_ttl = default_ttl

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
        """A new thread, with its history in the same transaction; or ("do_nothing") the one that is there, as it is.

        raises  AlreadyExists, ValueLost
        """
        checked = check_jsonb("metadata", metadata)
        graph_id = checked.get("graph_id")
        with self.databases.transaction(tenant) as connection:
            made = connection.execute(
                insert(thread)
                .values(
                    tenant_id=tenant.id,
                    thread_id=thread_id,
                    metadata=checked,
                    graph_id=graph_id if isinstance(graph_id, str) else None,
                    **kept_for(ttl or self.default_ttl),
                )
                .on_conflict_do_nothing()
                .returning(*_COLUMNS)
            ).one_or_none()
            if made is not None:
                head = insert(thread_head).values(tenant_id=tenant.id, thread_id=thread_id)
                connection.execute(head.on_conflict_do_nothing())
                if history is None:
                    return _row(made)
                write_history(connection, tenant.id, thread_id, history)
                return get_thread(connection, tenant, thread_id)
            if if_exists != "do_nothing":
                raise AlreadyExists(what="Thread")
            return get_thread(connection, tenant, thread_id)

    def get(self, tenant: Tenant, thread_id: UUID) -> ThreadRow:
        """Raises NotFound: the same for a thread of another tenant."""
        with self.databases.transaction(tenant) as connection:
            return get_thread(connection, tenant, thread_id)

    def update(
        self, tenant: Tenant, thread_id: UUID, metadata: Mapping[str, Any], *, ttl: ThreadTtl | None = None
    ) -> ThreadRow:
        """Metadata is merged, key by key; a ttl begins now. Raises NotFound."""
        checked = check_jsonb("metadata", metadata)
        graph_id = checked.get("graph_id")
        changed = {"metadata": thread.c.metadata.op("||")(checked), "updated_at": func.clock_timestamp()}
        changed |= kept_for(ttl)
        if isinstance(graph_id, str):  # a thread that never ran learns its graph; one that ran knows better
            changed["graph_id"] = func.coalesce(thread.c.graph_id, graph_id)
        with self.databases.transaction(tenant) as connection:
            statement = update(thread).where(_is(tenant, thread_id)).values(changed).returning(*_COLUMNS)
            found = connection.execute(statement).one_or_none()
        if found is None:
            raise NotFound(what="Thread")
        return _row(found)

    def copy(self, tenant: Tenant, thread_id: UUID, *, target: UUID) -> ThreadRow:
        """A new thread with the state and the history of this one, and none of its runs. Raises NotFound.

        One that waits for a human waits in the copy, too; a run that is under way is not copied: the copy is idle.
        """
        if self.behind is not None:
            self.behind.bring(tenant.id, tenant.home, thread_id)
        names = ("tenant_id", "graph_id", "assistant_id", "metadata", "config", "error", "ttl_minutes", "ttl_strategy")
        same = [*(thread.c[name] for name in names), _until(thread.c.ttl_minutes).label("expires_at")]
        status = case((thread.c.status == "busy", "idle"), else_=thread.c.status).label("status")
        source = select(*same, literal(target).label("thread_id"), status).where(_is(tenant, thread_id))
        columns = [column.name for column in source.selected_columns]
        with self.databases.transaction(tenant) as connection:
            made = connection.execute(insert(thread).from_select(columns, source).returning(*_COLUMNS)).one_or_none()
            if made is None:
                raise NotFound(what="Thread")
            connection.execute(insert(thread_head).values(tenant_id=tenant.id, thread_id=target))
            copy_state(connection, tenant.id, thread_id, target)
        return _row(made)

    def expire(self, tenant: Tenant, thread_id: UUID) -> None:
        """Delete a thread whose time is over, or its past, as it is told to; one that was used meanwhile is kept on.

        Nothing happens to a thread that is gone, or whose time is not over. One with a run that is not over is in use.
        """
        c = thread.c
        with self.databases.transaction(tenant) as connection:
            if not lock_thread(connection, tenant, thread_id):
                return
            used = func.greatest(c.updated_at, c.state_updated_at) + _interval(c.ttl_minutes)
            mine = (run.c.tenant_id == tenant.id, run.c.thread_id == thread_id)
            is_open = exists().where(*mine, run.c.status.in_(OPEN))
            now = func.clock_timestamp()
            judged = select(
                c.ttl_strategy, (c.expires_at < now).label("is_due"), or_(used > now, is_open).label("is_used")
            )
            found = connection.execute(judged.where(_is(tenant, thread_id))).one()
            if not found.is_due:
                return
            if not found.is_used and found.ttl_strategy == "delete":
                forget_thread(connection, tenant, thread_id)
                return
            if not found.is_used:
                keep_latest(connection, tenant.id, thread_id)
            until = case((used > now, used), else_=_until(c.ttl_minutes))
            connection.execute(update(thread).where(_is(tenant, thread_id)).values(expires_at=until))

    def keep_latest(self, tenant: Tenant, thread_id: UUID) -> None:
        """Forget the history before the latest state, but for what a run under way may return to. Raises NotFound."""
        if self.behind is not None:
            self.behind.bring(tenant.id, tenant.home, thread_id)
        with self.databases.transaction(tenant) as connection:
            get_thread(connection, tenant, thread_id)
            keep_latest(connection, tenant.id, thread_id)

    def delete(self, tenant: Tenant, thread_id: UUID) -> tuple[Ended, ...]:
        """With its runs, checkpoints, blobs, writes and executions; an active run is fenced out first. Raises NotFound.

        returns  the runs that were not over: their streams are to be closed
        """
        with self.databases.transaction(tenant) as connection:
            gone = forget_thread(connection, tenant, thread_id)
        if not gone.was_there:
            raise NotFound(what="Thread")
        if self.behind is not None and gone.gone_epoch is not None:
            self.behind.forget(tenant.id, thread_id, gone.gone_epoch)
        return tuple(Ended(tenant.id, tenant.home, run_id, thread_id, "interrupted") for run_id in gone.ended or ())

    def forget(self, tenant: Tenant, thread_id: UUID) -> bool:
        """Delete the thread of stateless runs that are over, unless another run has come to it. Answers whether it did.

        Judged under the thread's lock: since the healer looked, a client may have sent a run that is to be kept.
        """
        mine = (run.c.tenant_id == tenant.id, run.c.thread_id == thread_id)
        is_used = exists().where(*mine, or_(run.c.status.in_(OPEN), not_(run.c.forget_thread)))
        with self.databases.transaction(tenant) as connection:
            if not lock_thread(connection, tenant, thread_id) or connection.execute(select(is_used)).scalar_one():
                return False
            return bool(forget_thread(connection, tenant, thread_id).was_there)

    def search(self, tenant: Tenant, query: ThreadQuery) -> tuple[Sequence[ThreadRow], bool]:
        """(rows, whether there are more)."""
        limit = max(0, min(query.limit, MAX_PAGE))
        with self.databases.transaction(tenant) as connection:
            rows = connection.execute(search_threads(tenant, query).limit(limit + 1).offset(query.offset)).all()
        return [_row(row) for row in rows[:limit]], len(rows) > limit

    def count(self, tenant: Tenant, query: ThreadQuery) -> int:
        """How many match, up to MAX_COUNT."""
        matching = select(thread.c.thread_id).where(*_matches(tenant, query)).limit(MAX_COUNT).subquery()
        with self.databases.transaction(tenant) as connection:
            return connection.execute(select(func.count()).select_from(matching)).scalar_one()

    def saver(
        self,
        tenant: Tenant,
        graph_id: str | None,
        *,
        guard_idle: bool = False,
        made: Any = None,
        ended: RunEnd | None = None,
    ) -> TenantSaver:
        """LangGraph's saver for this tenant, outside of any execution. Not to be shared: it remembers the head it read.

        made        the graph, where a factory made it for this request: whose classes the values are of
        guard_idle  a put raises ThreadBusy when a run of the thread is not over, in the same transaction
        ended       a run that is over: where it ended, the checkpoint is answered with the writes that it had then
        """
        serde = self.serde_for(graph_id)
        if made is not None:
            serde = serde_of(made, lossy=serde.softens)
        return TenantSaver(
            self.databases.of(tenant),
            tenant.id,
            serde,
            guard_idle=guard_idle,
            known=ended.state if ended is not None else None,
            before_read=self._bringing(tenant) if ended is None else None,
        )

    def _bringing(self, tenant: Tenant) -> Callable[[UUID], None] | None:
        return None if self.behind is None else partial(self.behind.bring, tenant.id, tenant.home)

    def outline(self, tenant: Tenant, thread_id: UUID, checkpoint_id: str | None) -> Checkpoint | None:
        """A checkpoint of the thread, else its head, whatever build wrote it; None where there is none. For those who
        ask which channels it has and what is next: values of classes are plain data."""
        place: RunnableConfig = {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": ""}}
        if checkpoint_id is not None:
            place["configurable"]["checkpoint_id"] = checkpoint_id
        serde = serde_of(None, lossy=True)
        saver = TenantSaver(self.databases.of(tenant), tenant.id, serde, before_read=self._bringing(tenant))
        found = saver.get_tuple(place)
        return None if found is None else found.checkpoint


def kept_for(ttl: ThreadTtl | None) -> dict[str, Any]:
    """The columns of a thread that is kept for so long from now; none, where nothing is said."""
    if ttl is None:
        return {}
    minutes = literal(ttl.minutes, Double)
    return {"ttl_minutes": minutes, "ttl_strategy": ttl.strategy, "expires_at": _until(minutes)}


def keep_if_new(connection: Connection, tenant: Tenant, thread_id: UUID, ttl: ThreadTtl) -> None:
    """For a thread that this transaction has made."""
    is_new = thread.c.created_at >= func.transaction_timestamp()
    connection.execute(update(thread).where(_is(tenant, thread_id), is_new).values(kept_for(ttl)))


def _until(minutes: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.clock_timestamp() + _interval(minutes)


def _interval(minutes: ColumnElement[Any]) -> ColumnElement[Any]:
    return minutes * literal_column("interval '1 minute'", Interval)  # NULL for one that is kept for ever


def lock_thread(connection: Connection, tenant: Tenant, thread_id: UUID) -> bool:
    """Whether there is such a thread; it is this transaction's from here on."""
    statement = text("SELECT farm.lock_thread(:tenant, :thread)")
    return bool(connection.execute(statement, {"tenant": tenant.id, "thread": thread_id}).scalar_one())


def forget_thread(connection: Connection, tenant: Tenant, thread_id: UUID) -> Row[Any]:
    """Nothing of it remains. was_there: whether there was such a thread; ended: its runs that were not over;
    gone_epoch: under which Redis moved one of them, if it did."""
    statement = text("SELECT was_there, ended, gone_epoch FROM farm.forget_thread(:tenant, :thread)")
    return connection.execute(statement, {"tenant": tenant.id, "thread": thread_id}).one()


def search_threads(tenant: Tenant, query: ThreadQuery) -> Select[Any]:
    """Of one tenant, in the order asked for; equal ones by id, so that pages neither repeat nor skip.

    created_at and updated_at are served by thread_created and thread_updated, a status other than idle by
    thread_not_idle; the other orders sort the tenant's rows. Metadata is compared row by row (sql/tables.sql says why):
    up to the tenant's threads are read until a page is full, and none of another tenant. What bounds it is the
    connection's statement_timeout.
    """
    order = thread.c[query.sort_by]
    ranked = order.asc() if query.sort_order == "asc" else order.desc()
    if (
        query.sort_by == "state_updated_at"
    ):  # the only one that may be null; said of the others, it would cost the index
        ranked = ranked.nulls_last()
    return select(*_COLUMNS).where(*_matches(tenant, query)).order_by(ranked, thread.c.thread_id)


def _matches(tenant: Tenant, query: ThreadQuery) -> list[ColumnElement[bool]]:
    conditions = [thread.c.tenant_id == tenant.id]
    if query.ids:
        conditions.append(thread.c.thread_id.in_(query.ids))
    if query.status is not None:
        conditions.append(thread.c.status == query.status)
    if query.metadata:
        conditions.append(thread.c.metadata.contains(check_jsonb("metadata", query.metadata)))
    return conditions


_COLUMNS = [
    thread.c[name]
    for name in (
        *("thread_id", "status", "metadata", "config", "graph_id", "error"),
        *("created_at", "updated_at", "state_updated_at", "ttl_minutes", "ttl_strategy", "expires_at"),
    )
]


def _is(tenant: Tenant, thread_id: UUID) -> ColumnElement[bool]:
    return (thread.c.tenant_id == tenant.id) & (thread.c.thread_id == thread_id)


def get_thread(connection: Connection, tenant: Tenant, thread_id: UUID) -> ThreadRow:
    """Raises NotFound: the same for a thread of another tenant."""
    found = connection.execute(select(*_COLUMNS).where(_is(tenant, thread_id))).one_or_none()
    if found is None:
        raise NotFound(what="Thread")
    return _row(found)


def _row(row: Row[Any]) -> ThreadRow:
    return ThreadRow(**row._mapping)
