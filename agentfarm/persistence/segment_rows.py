"""What a segment wrote, as the arrays that farm.commit and farm.settle take.

Knows the formats (bodies.py, wire.py) and opens nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.engine.steps import PutCheckpoint, PutWrites
from agentfarm.ids import ZERO
from agentfarm.persistence import wire
from agentfarm.persistence.bodies import (
    ORDINARY,
    Encoded,
    Head,
    Parts,
    WriteRow,
    encode_checkpoint,
    encode_writes,
)

#: Where an op writes: (namespace, checkpoint id).
Address = tuple[str, str]


@dataclass(slots=True)
class SegmentRows:
    """The rows of one segment.

    at_id        at which checkpoint the execution stands; None for the start of a thread
    owner        the node execution; None for a start or an advance, whose writes belong to the tasks that they name
    head, parts  bytes and parts of the checkpoint that the segment began with, where it is known
    own          all ordinary writes of the execution itself, and their path
    """

    serde: SerializerProtocol
    at_id: UUID | None
    owner: UUID | None
    head: Head | None
    parts: Parts | None
    own: bytes | None = None
    own_path: str = ""
    #: Lists of messages that the last checkpoint of the graph itself has changed, and those of delta channels.
    last_conversations: Mapping[str, list[Any]] = field(default_factory=dict)
    checkpoints: list[tuple[str, Encoded]] = field(default_factory=list)
    writes: dict[tuple[Address, tuple[UUID, UUID, int]], WriteRow] = field(default_factory=dict)

    def add(self, ops: Sequence[PutWrites | PutCheckpoint]) -> None:
        """Raises ValueLost."""
        for op in ops:
            if isinstance(op, PutWrites):
                self._add_writes(op)
            else:
                self._add_checkpoint(op)

    def _add_writes(self, op: PutWrites) -> None:
        at = (op.checkpoint_ns, op.checkpoint_id)
        task_id = UUID(op.task_id)
        owner = ZERO if task_id == ZERO else self.owner or task_id
        is_here = op.checkpoint_ns == "" and self.at_id == UUID(op.checkpoint_id)
        for row in encode_writes(self.serde, owner, op.task_id, op.task_path, op.writes):
            if is_here and row.idx == ORDINARY and task_id == self.owner:
                self.own, self.own_path = row.body, row.path
            else:
                self.writes[at, row.key] = row

    def _add_checkpoint(self, op: PutCheckpoint) -> None:
        encoded = encode_checkpoint(
            self.serde,
            op.config,
            op.checkpoint,
            op.metadata,
            op.new_versions,
            parent_id=op.parent_id,
            parent=self._parts_of(op.checkpoint_ns, op.parent_id),
        )
        self.checkpoints.append((op.checkpoint_ns, encoded))
        if op.checkpoint_ns == "":
            stored = op.checkpoint["channel_values"]
            values = {**{name: stored[name] for name in op.new_versions if name in stored}, **op.whole}
            self.last_conversations = {name: list(value) for name, value in values.items() if _is_conversation(value)}

    def _parts_of(self, ns: str, parent_id: str | None) -> Parts | None:
        """Of a parent that this segment made or began with; None where only the database knows it."""
        if parent_id is None:
            return None
        for made_in, made in reversed(self.checkpoints):
            if made_in == ns and made.checkpoint_id == UUID(parent_id):
                return made.parts
        return self.parts if ns == "" and self.at_id == UUID(parent_id) else None

    # ----------------------------------------------------------------------- what came of it

    @property
    def new_head(self) -> UUID | None:
        """The checkpoint at which the graph itself stands now, if the segment made one."""
        return next((made.checkpoint_id for ns, made in reversed(self.checkpoints) if ns == ""), None)

    def head_at(self, checkpoint_id: UUID) -> Head | None:
        """Bytes of a checkpoint of the graph itself, made or begun with here; None where only the database has them."""
        if self.head is not None and checkpoint_id == self.at_id:
            return self.head
        known: dict[str, bytes] = dict(self.head.blobs) if self.head else {}
        for ns, made in self.checkpoints:
            if ns == "":
                known.update(made.blobs)
            if ns == "" and made.checkpoint_id == checkpoint_id and all(key in known for key in made.refs):
                return Head(made.body, {key: known[key] for key in made.refs})
        return None

    def writes_at(self, checkpoint_id: UUID) -> Iterator[WriteRow]:
        """Those of the graph itself that stand at this checkpoint."""
        return (row for (at, _), row in self.writes.items() if at == ("", str(checkpoint_id)))

    @property
    def size(self) -> int:
        """Bytes of all values that have changed, whole, whatever of them is saved already."""
        made = sum(one.size for _, one in self.checkpoints)
        return made + sum(len(row.body) for row in self.writes.values()) + len(self.own or b"")

    # ----------------------------------------------------------------------- parameters

    def checkpoint_params(self) -> list[wire.Param]:
        """c_ns … b_blob of farm.commit."""
        rows = [checkpoint_row(ns, made) for ns, made in self.checkpoints]
        blobs = {(ns, key): blob for ns, made in self.checkpoints for key, blob in made.blobs.items()}
        return checkpoint_params(rows, blobs)

    def write_params(self) -> list[wire.Param]:
        """w_ns … w_body of farm.commit and farm.settle."""
        return write_params([stored_write(at, row) for (at, _), row in self.writes.items()])


def _is_conversation(value: Any) -> bool:
    """What may be given to a node without being read anew. Other values may be shared by what a graph's author wrote:
    with another channel, a Send, a default of the whole process."""
    return type(value) is list and all(isinstance(each, BaseMessage) for each in value)


# --------------------------------------------------------------------------- as Postgres takes them


class CheckpointRow(NamedTuple):
    """refs: keys of its blobs"""

    ns: str
    checkpoint_id: bytes
    parent_id: bytes | None
    step: int
    refs: Sequence[str]
    body: bytes


class StoredWrite(NamedTuple):
    ns: str
    checkpoint_id: bytes
    owner: bytes
    task_id: bytes
    idx: int
    path: str
    body: bytes


def checkpoint_row(ns: str, made: Encoded) -> CheckpointRow:
    parent = made.parent_id.bytes if made.parent_id else None
    return CheckpointRow(ns, made.checkpoint_id.bytes, parent, made.step, made.refs, made.body)


def stored_write(address: Address, row: WriteRow) -> StoredWrite:
    ns, checkpoint_id = address
    return StoredWrite(ns, UUID(checkpoint_id).bytes, row.owner.bytes, row.task_id.bytes, row.idx, row.path, row.body)


def checkpoint_params(rows: Sequence[CheckpointRow], blobs: Mapping[tuple[str, str], bytes]) -> list[wire.Param]:
    """c_ns … b_blob; all NULL for none.

    blobs  {(namespace, key): bytes}, those that are new
    """
    if not rows:
        return [None] * 11
    refs: list[str] = []
    first, last = [], []
    for row in rows:
        first.append(len(refs) + 1)
        refs += row.refs
        last.append(len(refs))
    return [
        wire.put_texts(row.ns for row in rows),
        wire.put_uuids(row.checkpoint_id for row in rows),
        wire.put_uuids(row.parent_id for row in rows),
        wire.put_ints(row.step for row in rows),
        wire.put_ints(first),
        wire.put_ints(last),
        wire.put_texts(refs),
        wire.put_blobs(row.body for row in rows),
        *_blob_params(blobs),
    ]


def _blob_params(blobs: Mapping[tuple[str, str], bytes]) -> list[wire.Param]:
    if not blobs:
        return [None] * 3
    return [
        wire.put_texts(ns for ns, _ in blobs),
        wire.put_texts(key for _, key in blobs),
        wire.put_blobs(blobs.values()),
    ]


def write_params(rows: Sequence[StoredWrite]) -> list[wire.Param]:
    """w_ns, w_ckpt, w_owner, w_task, w_idx, w_path, w_body; all NULL for none."""
    if not rows:
        return [None] * 7
    return [
        wire.put_texts(row.ns for row in rows),
        wire.put_uuids(row.checkpoint_id for row in rows),
        wire.put_uuids(row.owner for row in rows),
        wire.put_uuids(row.task_id for row in rows),
        wire.put_ints(row.idx for row in rows),
        wire.put_texts(row.path for row in rows),
        wire.put_blobs(row.body for row in rows),
    ]


WRITE_TYPES: Final = "text[] uuid[] uuid[] uuid[] int4[] text[] bytea[]"
CHECKPOINT_TYPES: Final = "text[] uuid[] uuid[] int4[] int4[] int4[] text[] bytea[] text[] text[] bytea[]"
