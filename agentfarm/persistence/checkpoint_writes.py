"""Writing checkpoints outside of any run: statements over the tables, inside a transaction that knows its tenant.

A put takes the thread's head row first, so that puts of one thread come one after the other, and moves it by
compare-and-swap. What a node execution writes goes another way (execution_saver.py), under its fence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy import Connection, exists, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from agentfarm.engine.steps import PutCheckpoint
from agentfarm.errors import HeadMoved, NotFound, ThreadBusy
from agentfarm.ids import ZERO
from agentfarm.persistence.bodies import Encoded, Parts, WriteRow, encode_checkpoint, encode_writes, read_parts
from agentfarm.persistence.checkpoint_reads import Place
from agentfarm.persistence.tables import checkpoint, checkpoint_blob, checkpoint_write, run, thread, thread_head
from agentfarm.records import History


@dataclass(frozen=True, slots=True)
class Put:
    """One call of the saver's put. place: the parent's."""

    place: Place
    config: RunnableConfig
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    new_versions: ChannelVersions


def put(
    connection: Connection,
    tenant_id: UUID,
    put: Put,
    serde: SerializerProtocol,
    *,
    seen: tuple[UUID, UUID | None] | None,
    guard_idle: bool,
) -> UUID:
    """Save a checkpoint; in namespace "" it becomes the thread's head. Its id, which may be higher than the one given.

    seen    (thread, head) as the writer read it; None: it read nothing, and the newest is the head, as in stock
    raises  HeadMoved, ThreadBusy, NotFound, ValueLost
    """
    thread_id, is_root = put.place.thread_id, put.place.ns == ""
    if guard_idle:
        lock_idle(connection, tenant_id, thread_id)
    head = _lock_head(connection, tenant_id, thread_id) if is_root else None
    if is_root and seen is not None and seen[1] != head:
        raise HeadMoved(thread_id=thread_id, checkpoint_id=seen[1])
    new_id = _id_after(UUID(put.checkpoint["id"]), parent=put.place.checkpoint_id, head=head if seen else None)
    encoded = _encode(connection, tenant_id, put, serde, new_id)
    _insert_checkpoint(connection, tenant_id, put, encoded)
    if is_root and (seen is not None or head is None or new_id >= head):
        _move_head(connection, tenant_id, thread_id, encoded)
    return new_id


def lock_idle(connection: Connection, tenant_id: UUID, thread_id: UUID) -> None:
    """Nobody begins a run of the thread before this transaction ends. Raises NotFound, ThreadBusy."""
    statement = text("SELECT farm.lock_thread(:tenant, :thread)")
    if not connection.execute(statement, {"tenant": tenant_id, "thread": thread_id}).scalar_one():
        raise NotFound(what="Thread")
    is_open = (run.c.tenant_id == tenant_id, run.c.thread_id == thread_id, run.c.status.in_(("running", "pending")))
    if connection.execute(select(exists().where(*is_open))).scalar_one():
        raise ThreadBusy(hint="Wait for it, or cancel it, and change the state then.")


def _lock_head(connection: Connection, tenant_id: UUID, thread_id: UUID) -> UUID | None:
    row = insert(thread_head).values(tenant_id=tenant_id, thread_id=thread_id)
    connection.execute(row.on_conflict_do_nothing())
    mine = (thread_head.c.tenant_id == tenant_id, thread_head.c.thread_id == thread_id)
    head: UUID | None = connection.execute(select(thread_head.c.head).where(*mine).with_for_update()).scalar_one()
    return head


def _id_after(given: UUID, *, parent: UUID | None, head: UUID | None) -> UUID:
    """The id given, or one just above parent and head where the clock that made it was behind."""
    behind = [other for other in (parent, head) if other is not None and other > given]
    return UUID(int=max(behind).int + 1) if behind else given


def _insert_checkpoint(connection: Connection, tenant_id: UUID, put: Put, encoded: Encoded) -> None:
    """The same id again replaces it, as in stock."""
    here = {"tenant_id": tenant_id, "thread_id": put.place.thread_id, "ns": put.place.ns}
    if encoded.blobs:
        rows = [{**here, "key": key, "blob": blob} for key, blob in encoded.blobs.items()]
        connection.execute(insert(checkpoint_blob).on_conflict_do_nothing(), rows)
    shown = {"step": encoded.step, "refs": list(encoded.refs), "body": encoded.body}
    row = insert(checkpoint).values(
        **here, **shown, checkpoint_id=encoded.checkpoint_id, parent_id=encoded.parent_id, run_id=_run_of(put)
    )
    connection.execute(row.on_conflict_do_update(index_elements=list(checkpoint.primary_key), set_=shown))


def _run_of(put: Put) -> UUID | None:
    """The run that the metadata names; anything may stand there when LangGraph is not called by us."""
    try:
        return UUID(put.metadata.get("run_id", ""))
    except (ValueError, TypeError, AttributeError):
        return None


def _move_head(connection: Connection, tenant_id: UUID, thread_id: UUID, encoded: Encoded) -> None:
    mine = (thread_head.c.tenant_id == tenant_id, thread_head.c.thread_id == thread_id)
    connection.execute(update(thread_head).where(*mine).values(head=encoded.checkpoint_id, step=encoded.step))
    now = func.clock_timestamp()
    same = (thread.c.tenant_id == tenant_id, thread.c.thread_id == thread_id)
    connection.execute(update(thread).where(*same).values(updated_at=now, state_updated_at=now))


def put_writes(
    connection: Connection, tenant_id: UUID, place: Place, rows: Sequence[WriteRow], *, guard_idle: bool
) -> None:
    """Raises ThreadBusy, NotFound."""
    if guard_idle:
        lock_idle(connection, tenant_id, place.thread_id)
    for row in rows:
        statement = insert(checkpoint_write).values(
            tenant_id=tenant_id,
            thread_id=place.thread_id,
            ns=place.ns,
            checkpoint_id=place.checkpoint_id,
            execution_id=row.owner,
            task_id=row.task_id,
            idx=row.idx,
            fence=0,
            task_path=row.path,
            body=row.body,
        )
        replaced = {"body": row.body, "task_path": row.path, "run_id": None}
        connection.execute(
            statement.on_conflict_do_update(index_elements=list(checkpoint_write.primary_key), set_=replaced)
            if row.replaces
            else statement.on_conflict_do_nothing()
        )


def write_history(connection: Connection, tenant_id: UUID, thread_id: UUID, history: History) -> None:
    """Checkpoints and writes of a thread that nobody else sees yet, as they were made. Raises ValueLost."""
    for op in history.ops:
        if isinstance(op, PutCheckpoint):
            saved = Put(Place.of(op.config), op.config, op.checkpoint, op.metadata, op.new_versions)
            put(connection, tenant_id, saved, history.serde, seen=None, guard_idle=False)
        else:
            place = Place(thread_id, op.checkpoint_ns, UUID(op.checkpoint_id))
            rows = encode_writes(history.serde, ZERO, op.task_id, op.task_path, op.writes)
            put_writes(connection, tenant_id, place, rows, guard_idle=False)


def _encode(connection: Connection, tenant_id: UUID, put: Put, serde: SerializerProtocol, new_id: UUID) -> Encoded:
    """The row of a checkpoint; what did not change is taken over from its parent's bytes. Raises ValueLost."""
    parent_id = put.place.checkpoint_id
    given = put.checkpoint
    saved: Checkpoint = given if str(new_id) == given["id"] else {**given, "id": str(new_id)}
    return encode_checkpoint(
        serde,
        put.config,
        saved,
        put.metadata,
        put.new_versions,
        parent_id=None if parent_id is None else str(parent_id),
        parent=None if parent_id is None else _read_parent(connection, tenant_id, put),
    )


def _read_parent(connection: Connection, tenant_id: UUID, put: Put) -> Parts | None:
    """Of the channels that are the same there. `new_versions` alone does not tell: a copy (`__copy__`) is saved below
    its original's parent, with nothing new."""
    c, place = checkpoint.c, put.place
    mine = (c.tenant_id == tenant_id, c.thread_id == place.thread_id, c.ns == place.ns)
    body = connection.execute(select(c.body).where(*mine, c.checkpoint_id == place.checkpoint_id)).scalar_one_or_none()
    return None if body is None else read_parts(body).of_versions(put.checkpoint["channel_versions"])
