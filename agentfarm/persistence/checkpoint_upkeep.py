"""What is done to a thread's checkpoints as a whole: removed, copied, thinned out.

Statements over the tables, inside a transaction that knows its tenant.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, delete, func, literal, not_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on, insert

from agentfarm.persistence.bodies import open_body
from agentfarm.persistence.checkpoint_reads import stored_channels
from agentfarm.persistence.tables import checkpoint, checkpoint_blob, checkpoint_write, run, thread_head

#: The tables that hold a thread's state, and nothing else of it.
STATE_TABLES = (checkpoint_write, checkpoint_blob, checkpoint)


def delete_state(connection: Connection, tenant_id: UUID, thread_id: UUID) -> None:
    """The thread's row, its runs and their executions stay."""
    for table in STATE_TABLES:
        connection.execute(delete(table).where(*_of(table, tenant_id, thread_id)))
    connection.execute(update(thread_head).where(*_of(thread_head, tenant_id, thread_id)).values(head=None, step=-2))


def copy_state(connection: Connection, tenant_id: UUID, source: UUID, target: UUID) -> None:
    """All of it, so that delta channels can be put together in the copy too. What the target has already stays."""
    columns = (thread_head.c.head, thread_head.c.step)
    # The head is not moved while we copy: a commit waits for this row.
    found = select(*columns).where(*_of(thread_head, tenant_id, source)).with_for_update()
    head = connection.execute(found).one_or_none()
    for table in STATE_TABLES:
        names = [column.name for column in table.columns]
        values = [literal(target) if name == "thread_id" else table.c[name] for name in names]
        rows = select(*values).where(*_of(table, tenant_id, source))
        connection.execute(insert(table).from_select(names, rows).on_conflict_do_nothing())
    if head is not None:
        row = insert(thread_head).values(tenant_id=tenant_id, thread_id=target, head=head.head, step=head.step)
        moved = {"head": row.excluded.head, "step": row.excluded.step}
        keys = list(thread_head.primary_key)
        connection.execute(
            row.on_conflict_do_update(index_elements=keys, set_=moved, where=thread_head.c.head.is_(None))
        )


# --------------------------------------------------------------------------- thinning out


def keep_latest(connection: Connection, tenant_id: UUID, thread_id: UUID) -> None:
    """Remove all but the head (of a subgraph's namespace the newest), what a run under way may return to, and the
    ancestors from which their delta channels are put together. A subgraph's call goes with the checkpoint that it was
    made from; writes whose checkpoint is not saved yet stay."""
    # The head is not moved while we look: a commit waits for this row.
    head = connection.execute(
        select(thread_head.c.head).where(*_of(thread_head, tenant_id, thread_id)).with_for_update()
    ).scalar_one_or_none()
    kept: set[tuple[str, UUID]] = {("", head)} if head is not None else set()
    kept |= {("", started) for started in _started_heads(connection, tenant_id, thread_id)}
    kept |= _of_subgraphs(connection, tenant_id, thread_id, {checkpoint_id for _, checkpoint_id in kept})
    for place in list(kept):
        kept |= _delta_ancestors(connection, tenant_id, thread_id, place)
    if not kept:
        return
    c, w = checkpoint.c, checkpoint_write.c
    gone = (*_of(checkpoint, tenant_id, thread_id), not_(tuple_(c.ns, c.checkpoint_id).in_(list(kept))))
    there = tuple_(w.ns, w.checkpoint_id).in_(select(c.ns, c.checkpoint_id).where(*gone))
    connection.execute(delete(checkpoint_write).where(*_of(checkpoint_write, tenant_id, thread_id), there))
    connection.execute(delete(checkpoint).where(*gone))
    _delete_orphans(connection, tenant_id, [thread_id])


def _of_subgraphs(
    connection: Connection, tenant_id: UUID, thread_id: UUID, kept_roots: Collection[UUID]
) -> set[tuple[str, UUID]]:
    """The newest of each namespace, but for calls that were made from a checkpoint of the graph that is not kept.

    A namespace with a call's id in it ("node:id") is of that call; one without keeps its history from call to call.
    """
    c = checkpoint.c
    newest = (
        select(c.ns, c.checkpoint_id, c.body)
        .ext(distinct_on(c.ns))
        .where(*_of(checkpoint, tenant_id, thread_id), c.ns != "")
        .order_by(c.ns, c.checkpoint_id.desc())
    )
    found = {(row.ns, row.checkpoint_id): _made_from(row.body) for row in connection.execute(newest)}
    # All of the graph's, not those of `found` by name: there may be more of them than parameters of a statement.
    saved = select(c.checkpoint_id).where(*_of(checkpoint, tenant_id, thread_id), c.ns == "")
    gone = set(connection.execute(saved).scalars()) - set(kept_roots)
    return {place for place, root in found.items() if ":" not in place[0] or root not in gone}


def _made_from(body: bytes) -> UUID | None:
    """The checkpoint of the graph itself at which the subgraph was called."""
    root = (open_body(body)["m"].get("parents") or {}).get("")
    return UUID(root) if root else None


def _started_heads(connection: Connection, tenant_id: UUID, thread_id: UUID) -> Iterable[UUID]:
    is_open = (*_of(run, tenant_id, thread_id), run.c.status == "running", run.c.started_head.is_not(None))
    return connection.execute(select(run.c.started_head).where(*is_open)).scalars().all()


def _delta_ancestors(
    connection: Connection, tenant_id: UUID, thread_id: UUID, place: tuple[str, UUID]
) -> set[tuple[str, UUID]]:
    """The line of parents back to where each delta channel of the checkpoint was stored whole."""
    ns, at = place
    line: set[tuple[str, UUID]] = set()
    opened, next_id = _open(connection, tenant_id, thread_id, ns, at)
    missing = set(opened["m"].get("counters_since_delta_snapshot") or ()) if opened else set()
    while opened is not None:
        missing -= stored_channels(opened)
        if not missing or next_id is None:
            break
        line.add((ns, next_id))
        opened, next_id = _open(connection, tenant_id, thread_id, ns, next_id)
    return line


def _open(
    connection: Connection, tenant_id: UUID, thread_id: UUID, ns: str, checkpoint_id: UUID
) -> tuple[Mapping[str, Any] | None, UUID | None]:
    """(the opened body, the parent); (None, None) for one that is not there."""
    c = checkpoint.c
    here = (*_of(checkpoint, tenant_id, thread_id), c.ns == ns, c.checkpoint_id == checkpoint_id)
    row = connection.execute(select(c.body, c.parent_id).where(*here)).one_or_none()
    return (None, None) if row is None else (open_body(row.body), row.parent_id)


# --------------------------------------------------------------------------- runs


def delete_of_runs(connection: Connection, tenant_id: UUID, run_ids: Sequence[UUID]) -> None:
    """The checkpoints that these runs made, with writes and blobs; a head among them goes to the newest left."""
    c = checkpoint.c
    of_runs = (c.tenant_id == tenant_id, c.run_id.in_(run_ids))
    threads = connection.execute(select(c.thread_id).distinct().where(*of_runs)).scalars().all()
    if not threads:
        return
    heads = select(thread_head.c.thread_id).where(
        thread_head.c.tenant_id == tenant_id, thread_head.c.thread_id.in_(threads)
    )
    connection.execute(heads.order_by(thread_head.c.thread_id).with_for_update())
    w = checkpoint_write.c
    at = tuple_(w.thread_id, w.ns, w.checkpoint_id)
    made = select(c.thread_id, c.ns, c.checkpoint_id).where(*of_runs)
    connection.execute(delete(checkpoint_write).where(w.tenant_id == tenant_id, at.in_(made)))
    connection.execute(delete(checkpoint).where(*of_runs))
    _delete_orphans(connection, tenant_id, threads)
    connection.execute(_HEADS_BACK, {"tenant": tenant_id, "threads": list(threads)})


#: A head that points at nothing goes to the newest checkpoint that is left, or to none.
_HEADS_BACK = text(
    """
    UPDATE farm.thread_head h SET (head, step) = (SELECT l.checkpoint_id, coalesce(l.step, -2) FROM (SELECT 1) one
        LEFT JOIN LATERAL (SELECT c.checkpoint_id, c.step FROM farm.checkpoint c
                            WHERE c.tenant_id = h.tenant_id AND c.thread_id = h.thread_id AND c.ns = ''
                            ORDER BY c.checkpoint_id DESC LIMIT 1) l ON true)
     WHERE h.tenant_id = :tenant AND h.thread_id = ANY (CAST(:threads AS uuid[])) AND h.head IS NOT NULL
       AND NOT EXISTS (SELECT FROM farm.checkpoint c WHERE c.tenant_id = h.tenant_id AND c.thread_id = h.thread_id
                          AND c.ns = '' AND c.checkpoint_id = h.head)
    """
)


def _delete_orphans(connection: Connection, tenant_id: UUID, threads: Collection[UUID]) -> None:
    """Blobs that no checkpoint of these threads shows any more."""
    c = checkpoint.c
    shown = select(c.thread_id, c.ns, func.unnest(c.refs)).where(c.tenant_id == tenant_id, c.thread_id.in_(threads))
    b = checkpoint_blob.c
    here = tuple_(b.thread_id, b.ns, b.key)
    orphans = (b.tenant_id == tenant_id, b.thread_id.in_(threads), not_(here.in_(shown)))
    connection.execute(delete(checkpoint_blob).where(*orphans))


def _of(table: Table, tenant_id: UUID, thread_id: UUID) -> tuple[Any, Any]:
    return table.c.tenant_id == tenant_id, table.c.thread_id == thread_id
