"""What a commit in Redis leaves for Postgres, and many such entries as the one call that applies them.

An entry is msgpack, {c: checkpoints, b: blobs, w: writes, d: the execution that is done, n: the executions that are
next, t: whether it took the answer without an id, h: the new head, s: the run's last status, r: its callbacks' root}.
Their values are the very bytes of Postgres' rows: who applies them deserialises nothing.

Merging spares Postgres what was opened and done between two visits: such an execution is one row, written once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import ormsgpack

from agentfarm.ids import ZERO
from agentfarm.persistence import wire
from agentfarm.persistence.bodies import Encoded, WriteRow
from agentfarm.persistence.redis_tier.scripts import Entry, Place
from agentfarm.persistence.segment_rows import (
    CHECKPOINT_TYPES,
    WRITE_TYPES,
    CheckpointRow,
    StoredWrite,
    checkpoint_params,
    checkpoint_row,
    stored_write,
    write_params,
)
from agentfarm.records import RunStatus

APPLY: Final = wire.function(
    "apply_entries",
    f"uuid uuid uuid int8 int8 uuid int8 uuid uuid {CHECKPOINT_TYPES} {WRITE_TYPES} bool[]"
    " uuid[] uuid[] text[] text[] bytea[] bool[] text[] text[] text[] int8[] int8[] int8[]"
    " uuid[] int4[] bool[] uuid[] text uuid bool",
)

Packed = dict[str, Any]


@dataclass(slots=True)
class Draft:
    """An entry in the making."""

    packed: Packed = field(default_factory=dict)

    def add_checkpoint(self, ns: str, made: Encoded) -> None:
        row = checkpoint_row(ns, made)
        self.packed.setdefault("c", []).append([*row._replace(refs=list(row.refs))])
        self.packed.setdefault("b", []).extend([ns, key, blob] for key, blob in made.blobs.items())

    def add_write(self, ns: str, checkpoint_id: UUID, row: WriteRow, *, keeps: bool = False) -> None:
        """keeps: of an ordinary write that is there already the first counts"""
        self.packed.setdefault("w", []).append([*stored_write((ns, str(checkpoint_id)), row), keeps])

    def set_done(
        self,
        checkpoint_id: UUID,
        execution_id: UUID,
        *,
        node: str,
        queue: str,
        alone: bool,
        outcome: str | None,
        error: str | None,
    ) -> None:
        self.packed["d"] = [checkpoint_id.bytes, execution_id.bytes, node, queue, alone, outcome, error]

    def set_next(
        self, at: UUID, executions: Iterable[tuple[UUID, str, str, bytes]], *, alone: bool, width: int
    ) -> None:
        """(execution, node, queue, call) of each; width: how many of them may be worked on at once"""
        self.packed["n"] = [
            at.bytes,
            alone,
            width,
            [[one.bytes, node, queue, call] for one, node, queue, call in executions],
        ]

    def set_answered(self) -> None:
        """It took the answer without an id."""
        self.packed["t"] = True

    def set_after(self, *, head: UUID | None, status: str | None, root: UUID | None) -> None:
        """How it leaves the thread, and the run: None where it stays as it is."""
        self.packed |= {"h": head and head.bytes, "s": status, "r": root and root.bytes}

    def to_bytes(self) -> bytes:
        return ormsgpack.packb({key: value for key, value in self.packed.items() if value is not None})

    @property
    def size(self) -> int:
        """Bytes of bodies, blobs, writes and calls, about."""
        bodies = sum(len(row[-1]) for row in self.packed.get("c", ()))
        blobs = sum(len(blob) for _, _, blob in self.packed.get("b", ()))
        writes = sum(len(body) for *_, body, _ in self.packed.get("w", ()))
        calls = sum(len(call) for *_, call in self.packed["n"][3]) if "n" in self.packed else 0
        return bodies + blobs + writes + calls


@dataclass(slots=True)
class _Execution:
    node: str
    queue: str
    call: bytes
    alone: bool
    status: str
    outcome: str | None = None
    error: str | None = None
    worker: int | None = None
    begun: int | None = None
    over: int | None = None


@dataclass(slots=True)
class Batch:
    """Entries of one thread that follow each other, as the rows that the last of them leaves."""

    place: Place
    before: UUID | None
    entries: Sequence[Entry]
    head: UUID | None = None
    status: RunStatus | None = None
    root: bytes | None = None
    _checkpoints: dict[tuple[str, bytes], CheckpointRow] = field(default_factory=dict)
    _blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _writes: dict[tuple[Any, ...], tuple[StoredWrite, bool]] = field(default_factory=dict)
    _executions: dict[tuple[bytes, bytes], _Execution] = field(default_factory=dict)
    _supersteps: dict[bytes, tuple[int, bool]] = field(default_factory=dict)
    _begun: set[bytes] = field(default_factory=set)  # supersteps that Postgres has never heard of
    _gone: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        for entry in self.entries:
            self._add(entry, ormsgpack.unpackb(entry.body))

    @property
    def last(self) -> Entry:
        return self.entries[-1]

    def _add(self, entry: Entry, packed: Packed) -> None:
        for checkpoint in packed.get("c", ()):
            made = CheckpointRow(*checkpoint)
            self._checkpoints[made.ns, made.checkpoint_id] = made
        for ns, key, blob in packed.get("b", ()):
            self._blobs[ns, key] = blob
        for *written, keeps in packed.get("w", ()):
            row = StoredWrite(*written)
            if not (keeps and row[:5] in self._writes):
                self._writes[row[:5]] = row, keeps
        if done := packed.get("d"):
            self._finish(entry, *done)
        if entry.released:
            self._let_go(packed["d"][0], entry.released.bytes)
        if following := packed.get("n"):
            self._open(*following)
        if packed.get("t"):
            at = packed["d"][0]
            self._supersteps[at] = (self._supersteps.get(at, (1, False))[0], True)
        if head := packed.get("h"):
            self.head = UUID(bytes=head)
        self.status, self.root = packed.get("s"), packed.get("r")

    def _finish(
        self,
        entry: Entry,
        at: bytes,
        execution: bytes,
        node: str,
        queue: str,
        alone: bool,
        outcome: str | None,
        error: str | None,
    ) -> None:
        if execution == ZERO.bytes:
            self._supersteps.pop(at, None)
            if at not in self._begun:
                self._gone.append(at)
            return
        opened = self._executions.get((at, execution))
        call = opened.call if opened else b""
        self._executions[at, execution] = _Execution(
            node, queue, call, alone, "done", outcome, error, entry.worker, entry.begun, entry.over
        )

    def _let_go(self, at: bytes, execution: bytes) -> None:
        opened = self._executions.get((at, execution))
        if opened is None:  # Postgres has all of it but that
            opened = self._executions[at, execution] = _Execution("", "", b"", alone=False, status="in_redis")
        opened.status = "in_redis"

    def _open(self, at: bytes, alone: bool, width: int, executions: Sequence[tuple[bytes, str, str, bytes]]) -> None:
        for place, (execution, node, queue, call) in enumerate(executions):
            status = "in_redis" if place < width else "held"
            self._executions[at, execution] = _Execution(node, queue, call, alone, status)
        if not alone:
            self._supersteps[at] = (len(executions), False)
            self._begun.add(at)

    # ----------------------------------------------------------------------- parameters

    def params(self, *, waits: bool) -> list[wire.Param]:
        """Of APPLY. waits: for who has the thread"""
        place, last = self.place, self.last
        return [
            place.tenant_id.bytes,
            place.thread_id.bytes,
            place.run_id.bytes,
            wire.put_int8(place.epoch),
            wire.put_int8(self.entries[0].number),
            wire.put_uuid(self.before),
            wire.put_int8(last.number),
            last.id.bytes,
            wire.put_uuid(self.head),
            *checkpoint_params(list(self._checkpoints.values()), self._blobs),
            *self._write_params(),
            *self._execution_params(),
            *self._superstep_params(),
            wire.put_text(self.status),
            self.root,
            wire.put_bool(waits),
        ]

    def _write_params(self) -> list[wire.Param]:
        rows = [row for row, _ in self._writes.values()]
        return [*write_params(rows), wire.put_bools(keeps for _, keeps in self._writes.values()) if rows else None]

    def _execution_params(self) -> list[wire.Param]:
        if not self._executions:
            return [None] * 12
        rows = list(self._executions.values())
        return [
            wire.put_uuids(at for at, _ in self._executions),
            wire.put_uuids(execution for _, execution in self._executions),
            wire.put_texts(row.node for row in rows),
            wire.put_texts(row.queue for row in rows),
            wire.put_blobs(row.call for row in rows),
            wire.put_bools(row.alone for row in rows),
            wire.put_texts(row.status for row in rows),
            wire.put_texts_or_none(row.outcome for row in rows),
            wire.put_texts_or_none(row.error for row in rows),
            wire.put_bigints(row.worker for row in rows),
            wire.put_bigints(row.begun for row in rows),
            wire.put_bigints(row.over for row in rows),
        ]

    def _superstep_params(self) -> list[wire.Param]:
        begun: list[wire.Param] = [None] * 3
        if self._supersteps:
            begun = [
                wire.put_uuids(self._supersteps),
                wire.put_ints(width for width, _ in self._supersteps.values()),
                wire.put_bools(taken for _, taken in self._supersteps.values()),
            ]
        return [*begun, wire.put_uuids(self._gone) if self._gone else None]
