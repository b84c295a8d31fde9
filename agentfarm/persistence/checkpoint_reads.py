"""Reading checkpoints: statements over the tables, inside a transaction that knows its tenant.

Each checkpoint comes back as bytes (`Found`) and becomes values outside of the transaction, anew each time: nothing
that a graph could change is ever shared.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, DeltaChannelHistory, PendingWrite
from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy import ColumnElement, Connection, Row, Select, literal, select, tuple_

from agentfarm.ids import parse_uuid
from agentfarm.persistence.bodies import (
    Head,
    WriteRow,
    blob_keys,
    decode_checkpoint,
    decode_writes,
    load_value,
    open_body,
)
from agentfarm.persistence.pieces import join, keys_of
from agentfarm.persistence.tables import checkpoint, checkpoint_blob, checkpoint_write, thread_head

#: Ancestors a round trip when a delta channel is put together. Snapshots are this far apart at most in most graphs.
DELTA_PAGE = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a thread: which namespace ("" is the graph itself), which checkpoint (None: the latest)."""

    thread_id: UUID
    ns: str = ""
    checkpoint_id: UUID | None = None

    @classmethod
    def of(cls, config: RunnableConfig) -> Self:
        """Raises InvalidId."""
        given = config.get("configurable", {})
        return cls(
            parse_uuid(given.get("thread_id"), what="thread_id"),
            given.get("checkpoint_ns") or "",
            checkpoint_id_of(config),
        )

    @classmethod
    def of_thread(cls, thread_id: str) -> Self:
        return cls(parse_uuid(thread_id, what="thread_id"))

    def at(self, checkpoint_id: UUID) -> Self:
        return replace(self, checkpoint_id=checkpoint_id)

    def config(self) -> RunnableConfig:
        configurable = {"thread_id": str(self.thread_id), "checkpoint_ns": self.ns}
        if self.checkpoint_id is not None:
            configurable["checkpoint_id"] = str(self.checkpoint_id)
        return {"configurable": configurable}


def checkpoint_id_of(config: RunnableConfig) -> UUID | None:
    """Which checkpoint a config names. Raises InvalidId."""
    checkpoint_id = config.get("configurable", {}).get("checkpoint_id") or None
    return None if checkpoint_id is None else parse_uuid(checkpoint_id, what="checkpoint_id")


@dataclass(slots=True)
class Found:
    """A checkpoint as it is stored.

    opened  the body, its values still serialised
    head    the thread's head, read with it
    """

    place: Place
    parent_id: UUID | None
    body: bytes
    opened: Mapping[str, Any]
    head: UUID | None = None
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    writes: Sequence[WriteRow] = ()

    @classmethod
    def of(cls, place: Place, stored: Head, writes: Sequence[WriteRow]) -> Self:
        """What a hot call brought."""
        opened = open_body(stored.body)
        parent_id = UUID(opened["u"]) if opened["u"] else None
        return cls(place, parent_id, stored.body, opened, blobs=stored.blobs, writes=writes)

    def to_tuple(self, serde: SerializerProtocol) -> CheckpointTuple:
        head = Head(self.body, self.blobs)
        return decode_checkpoint(serde, str(self.place.thread_id), self.place.ns, head, self.writes)


def find(connection: Connection, tenant_id: UUID, place: Place) -> Found | None:
    """One checkpoint with its blobs and writes: three statements, each by primary key."""
    row = connection.execute(_select_one(tenant_id, place)).one_or_none()
    return None if row is None else _fill(connection, tenant_id, [_found(row)])[0]


def _select_one(tenant_id: UUID, place: Place) -> Select[Any]:
    head = _head(tenant_id, place.thread_id)
    one = _select_rows(tenant_id, place.thread_id, place.ns).add_columns(head.label("head"))
    if place.checkpoint_id is not None:
        return one.where(checkpoint.c.checkpoint_id == place.checkpoint_id)
    if place.ns == "":
        return one.where(checkpoint.c.checkpoint_id == head)
    return one.order_by(checkpoint.c.checkpoint_id.desc()).limit(1)


def _head(tenant_id: UUID, thread_id: UUID) -> Any:
    mine = (thread_head.c.tenant_id == tenant_id, thread_head.c.thread_id == thread_id)
    return select(thread_head.c.head).where(*mine).scalar_subquery()


_COLUMNS = [checkpoint.c[name] for name in ("thread_id", "ns", "checkpoint_id", "parent_id", "body")]


def _select_rows(tenant_id: UUID, thread_id: UUID | None, ns: str | None) -> Select[Any]:
    statement = select(*_COLUMNS).where(checkpoint.c.tenant_id == tenant_id)
    if thread_id is not None:
        statement = statement.where(checkpoint.c.thread_id == thread_id)
    return statement if ns is None else statement.where(checkpoint.c.ns == ns)


def _found(row: Row[Any]) -> Found:
    place = Place(row.thread_id, row.ns, row.checkpoint_id)
    return Found(place, row.parent_id, row.body, open_body(row.body), row._mapping.get("head"))


# --------------------------------------------------------------------------- blobs and writes


def _fill(connection: Connection, tenant_id: UUID, found: Sequence[Found]) -> Sequence[Found]:
    """Give each its blobs and writes: two statements for all of them."""
    keys = {(one.place.thread_id, one.place.ns, key) for one in found for key in blob_keys(one.opened)}
    blobs = _read_blobs(connection, tenant_id, keys)
    writes = _read_writes(connection, tenant_id, [one.place for one in found])
    for one in found:
        of = one.place
        one.blobs = {key: blobs[of.thread_id, of.ns, key] for key in blob_keys(one.opened)}
        one.writes = writes[of]
    return found


def _read_blobs(
    connection: Connection, tenant_id: UUID, keys: Iterable[tuple[UUID, str, str]]
) -> Mapping[tuple[UUID, str, str], bytes]:
    """{(thread, ns, key): blob}. By groups, so that each is a primary key's prefix and a list of keys."""
    groups: dict[tuple[UUID, str], list[str]] = defaultdict(list)
    for thread_id, ns, key in keys:
        groups[thread_id, ns].append(key)
    c, blobs = checkpoint_blob.c, {}
    for (thread_id, ns), wanted in groups.items():
        mine = (c.tenant_id == tenant_id, c.thread_id == thread_id, c.ns == ns, c.key.in_(wanted))
        for row in connection.execute(select(c.key, c.blob).where(*mine)):
            blobs[thread_id, ns, row.key] = row.blob
    return blobs


def _read_writes(connection: Connection, tenant_id: UUID, places: Sequence[Place]) -> Mapping[Place, list[WriteRow]]:
    groups: dict[tuple[UUID, str], list[UUID | None]] = defaultdict(list)
    for place in places:
        groups[place.thread_id, place.ns].append(place.checkpoint_id)
    c, writes = checkpoint_write.c, defaultdict[Place, list[WriteRow]](list)
    columns = (c.checkpoint_id, c.execution_id, c.task_id, c.idx, c.task_path, c.body)
    for (thread_id, ns), wanted in groups.items():
        mine = (c.tenant_id == tenant_id, c.thread_id == thread_id, c.ns == ns, c.checkpoint_id.in_(wanted))
        for checkpoint_id, *row in connection.execute(select(*columns).where(*mine)):
            writes[Place(thread_id, ns, checkpoint_id)].append(WriteRow(*row))
    return writes


# --------------------------------------------------------------------------- listing


@dataclass(slots=True)
class Cursor:
    """Where a listing has come to.

    thread_id, ns  None: of all of them
    after          the checkpoint behind which the next page begins
    """

    thread_id: UUID | None
    ns: str | None
    only: UUID | None
    before: UUID | None
    page: int
    after: tuple[UUID, UUID, str] | None = None
    is_done: bool = False

    @classmethod
    def of(cls, config: RunnableConfig | None, before: RunnableConfig | None, *, page: int) -> Self:
        """Raises InvalidId."""
        given = (config or {}).get("configurable", {})
        place = None if config is None else Place.of(config)
        return cls(
            thread_id=None if place is None else place.thread_id,
            ns=place.ns if place and "checkpoint_ns" in given else None,
            only=None if place is None else place.checkpoint_id,
            before=None if before is None else checkpoint_id_of(before),  # LangGraph names no thread beside it
            page=page,
        )


def next_page(connection: Connection, tenant_id: UUID, cursor: Cursor, wanted: Mapping[str, Any]) -> Sequence[Found]:
    """The next checkpoints with such metadata, newest first; moves the cursor. May be empty before the end."""
    rows = connection.execute(_select_page(tenant_id, cursor)).all()
    cursor.is_done = len(rows) < cursor.page
    if rows:
        cursor.after = (rows[-1].checkpoint_id, rows[-1].thread_id, rows[-1].ns)
    found = [one for one in map(_found, rows) if contains(one.opened["m"], wanted)]
    return _fill(connection, tenant_id, found)


def _select_page(tenant_id: UUID, cursor: Cursor) -> Select[Any]:
    c = checkpoint.c
    statement = _select_rows(tenant_id, cursor.thread_id, cursor.ns)
    if cursor.only is not None:
        statement = statement.where(c.checkpoint_id == cursor.only)
    if cursor.before is not None:
        statement = statement.where(c.checkpoint_id < cursor.before)
    if cursor.after is not None:
        statement = statement.where(_comes_after(cursor.after))
    return statement.order_by(c.checkpoint_id.desc(), c.thread_id.desc(), c.ns.desc()).limit(cursor.page)


def _comes_after(last: tuple[UUID, UUID, str]) -> ColumnElement[bool]:
    c = checkpoint.c
    return tuple_(c.checkpoint_id, c.thread_id, c.ns) < tuple_(*(literal(part) for part in last))


def contains(metadata: object, wanted: object) -> bool:
    """As jsonb's @>: objects by the keys wanted, all else by equality."""
    if isinstance(metadata, Mapping) and isinstance(wanted, Mapping):
        return all(key in metadata and contains(metadata[key], value) for key, value in wanted.items())
    return metadata == wanted


# --------------------------------------------------------------------------- delta channels


def delta_history(
    connection: Connection, tenant_id: UUID, place: Place, channels: Sequence[str], serde: SerializerProtocol
) -> dict[str, DeltaChannelHistory]:
    """Per channel: the writes of the ancestors, oldest first, back to the one that holds it whole (the seed).

    None, which a plain channel may have held before it became a delta channel, is no seed.
    """
    collected: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
    seeds: dict[str, Any] = {}
    for ancestor in _ancestors(connection, tenant_id, place):
        if len(seeds) == len(collected):
            break
        for write in reversed(decode_writes(serde, ancestor.writes)):
            if write[1] in collected and write[1] not in seeds:
                collected[write[1]].append(write)
        for channel in collected.keys() - seeds.keys():
            if channel in stored_channels(ancestor.opened):
                seed = _read_value(connection, tenant_id, ancestor, channel, serde)
                if seed is not None:
                    seeds[channel] = seed
    return {channel: _history(writes[::-1], channel, seeds) for channel, writes in collected.items()}


def _history(writes: list[PendingWrite], channel: str, seeds: Mapping[str, Any]) -> DeltaChannelHistory:
    return {"writes": writes, "seed": seeds[channel]} if channel in seeds else {"writes": writes}


def stored_channels(opened: Mapping[str, Any]) -> set[str]:
    """The channels whose value a checkpoint holds, given its opened body."""
    return {*opened["p"], *opened["i"], *opened["r"]}


def _read_value(connection: Connection, tenant_id: UUID, found: Found, channel: str, serde: SerializerProtocol) -> Any:
    """The value of a channel that the checkpoint holds; its blobs are fetched, where it is in such."""
    plain, inline, refs = found.opened["p"], found.opened["i"], found.opened["r"]
    if channel in plain:
        return plain[channel]
    if channel in inline:
        return load_value(serde, inline[channel], channel=channel)
    wanted = [(found.place.thread_id, found.place.ns, key) for key in keys_of(refs[channel])]
    blobs = {key: blob for (_, _, key), blob in _read_blobs(connection, tenant_id, wanted).items()}
    return load_value(serde, join(refs[channel], blobs), channel=channel)


def _ancestors(connection: Connection, tenant_id: UUID, place: Place) -> Iterable[Found]:
    """From the checkpoint's parent to the root, with their writes; without blobs."""
    target = connection.execute(_select_one(tenant_id, place)).one_or_none()
    next_id = target.parent_id if target is not None else None
    while next_id is not None:
        line = _read_line(connection, tenant_id, place.at(next_id))
        writes = _read_writes(connection, tenant_id, [one.place for one in line])
        for one in line:
            one.writes = writes[one.place]
            yield one
        next_id = line[-1].parent_id if len(line) == DELTA_PAGE else None


def _read_line(connection: Connection, tenant_id: UUID, start: Place) -> Sequence[Found]:
    """A checkpoint and its parents, newest first, DELTA_PAGE at most: one statement."""
    rows = _select_rows(tenant_id, start.thread_id, start.ns)
    first = rows.add_columns(literal(1).label("depth")).where(checkpoint.c.checkpoint_id == start.checkpoint_id)
    line = first.cte("line", recursive=True)
    parents = rows.add_columns(line.c.depth + 1).where(
        checkpoint.c.checkpoint_id == line.c.parent_id, line.c.depth < DELTA_PAGE
    )
    line = line.union_all(parents)
    return [_found(row) for row in connection.execute(select(line).order_by(line.c.depth))]
