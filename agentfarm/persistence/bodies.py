"""A checkpoint as bytes and back: the format that executions.py and checkpoints.py share.

The body of a checkpoint is msgpack: {c: the checkpoint without its values, m: metadata, p: plain values as they are,
i: {channel: small value, serialised}, r: {channel: where its blobs are}, u: id of the parent or None}. Values above
INLINE_BYTES are blobs, stored once a thread however many checkpoints show them: one a channel version, with the key
"channel:version", or several that versions share which have grown from each other (pieces.py). What did not change
since the parent is taken over as bytes, without serialising it again.

A serialised value is one byte that says how, then the serializer's bytes. The packets of a superstep's Sends are
serialised one by one, so that each of a thousand siblings reads its own alone. All ordinary writes of a task are one
row (idx 0), packed; control writes are a row each, with LangGraph's negative idx.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.base import writes_sort_key as _sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import TASKS

from agentfarm.ids import ZERO
from agentfarm.persistence.pieces import Ref, cut, join, keys_of
from agentfarm.persistence.serde import dump_channel, load_channel

#: Values up to this size live in the body. Without inlining, WAL grew by 17 % a node.
INLINE_BYTES: Final = 256

#: `idx` of the row that holds all ordinary writes of a task.
ORDINARY: Final = 0

_TAGS: Final = {"msgpack": b"m", "bytes": b"b", "bytearray": b"a", "null": b"n", "json": b"j"}
_KINDS: Final = {tag[0]: kind for kind, tag in _TAGS.items()}
_PACKETS: Final = b"p"
_PLAIN: Final = (str, int, float, bool, type(None))
_OPTIONS: Final = ormsgpack.OPT_NON_STR_KEYS


def dump_value(serde: SerializerProtocol, value: Any, *, channel: str = "") -> bytes:
    """Raises ValueLost, which names the channel."""
    kind, data = dump_channel(serde, channel, value)
    return _TAGS[kind] + data


def load_value(serde: SerializerProtocol, data: bytes, *, channel: str = "", packet: int | None = None) -> Any:
    """packet: of Sends, only this one is wanted; None stands in for each of the others. Raises StateUnreadable."""
    if data[:1] != _PACKETS:
        return load_channel(serde, channel, (_KINDS[data[0]], data[1:]))
    packets: list[bytes] = ormsgpack.unpackb(data[1:])
    if packet is None:
        return [load_value(serde, each, channel=channel) for each in packets]
    values: list[Any] = [None] * len(packets)
    if packet < len(packets):
        values[packet] = load_value(serde, packets[packet], channel=channel)
    return values


def _dump_channel(serde: SerializerProtocol, channel: str, value: Any) -> bytes:
    if channel == TASKS and isinstance(value, list) and len(value) > 1:
        return _PACKETS + ormsgpack.packb([dump_value(serde, each, channel=channel) for each in value])
    return dump_value(serde, value, channel=channel)


def next_version(current: str | None) -> str:
    """17 characters instead of stock's 52. They sort by number; the random part keeps forks of one thread apart."""
    number = int(current[:8]) + 1 if current else 1
    return f"{number:08d}.{random.getrandbits(32):08x}"  # no secret: it only must not repeat


# --------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint as bytes: what a worker may keep. Decoded afresh on each use, so no node reaches another's."""

    body: bytes
    blobs: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.body) + sum(map(len, self.blobs.values()))


@dataclass(frozen=True, slots=True)
class Parts:
    """The serialised values of a checkpoint, by channel: what its child takes over unchanged.

    versions  of all its channels, where they were read with it
    blobs     of those that are referred to, what is at hand: a value that has grown from one shares it
    """

    inline: Mapping[str, bytes] = field(default_factory=dict)
    refs: Mapping[str, Ref] = field(default_factory=dict)
    versions: ChannelVersions = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    def of_versions(self, versions: ChannelVersions) -> "Parts":
        """Without the channels that have other versions here."""
        same = {channel for channel, version in versions.items() if self.versions.get(channel) == version}
        return Parts(
            {channel: data for channel, data in self.inline.items() if channel in same},
            {channel: ref for channel, ref in self.refs.items() if channel in same},
        )


@dataclass(frozen=True, slots=True)
class Encoded:
    """A checkpoint as its row.

    refs   keys of the blobs it shows, in the order in which the body lists them
    blobs  those that are new: {key: bytes}
    size   bytes of the body, and of all values that changed, whole
    parts  for its child
    """

    checkpoint_id: UUID
    parent_id: UUID | None
    step: int
    body: bytes
    refs: tuple[str, ...]
    blobs: Mapping[str, bytes]
    size: int
    parts: Parts


def encode_checkpoint(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    *,
    parent_id: str | None,
    parent: Parts | None = None,
) -> Encoded:
    """The row of a checkpoint.

    config   as `put` gets it: its metadata and configurable become part of the checkpoint's metadata, as in stock
    parent   the parts of the checkpoint that it follows in the same namespace; without them unchanged channels are
             serialised again, whole
    raises   ValueLost, for a value that would not come back
    """
    values, parent = checkpoint["channel_values"], parent or Parts()
    plain: dict[str, Any] = {}
    inline: dict[str, bytes] = {}
    refs: dict[str, Ref] = {}
    blobs: dict[str, bytes] = {}
    # Of a version that is stored already: those bytes stay, and these may differ, as where a node has changed a value
    # in place. What the next version has grown from is not known then.
    again: set[str] = set()
    size = 0
    for channel, value in values.items():
        if _is_plain(value):
            plain[channel] = value
        elif channel not in new_versions and channel in parent.refs:
            refs[channel] = parent.refs[channel]
        elif channel not in new_versions and channel in parent.inline:
            inline[channel] = parent.inline[channel]
        elif len(data := _dump_channel(serde, channel, value)) <= INLINE_BYTES:
            inline[channel] = data
        else:
            key = f"{channel}:{checkpoint['channel_versions'][channel]}"
            refs[channel], new = cut(data, key, parent.refs.get(channel), parent.blobs)
            blobs.update(new)
            if channel not in new_versions:
                again.update(new)
            size += len(data)
    full = get_serializable_checkpoint_metadata(config, metadata)
    opened = {"c": _bare(checkpoint), "m": full, "p": plain, "i": inline, "r": refs, "u": parent_id}
    body, keys = ormsgpack.packb(opened, option=_OPTIONS), blob_keys(opened)
    at_hand = {**parent.blobs, **blobs}
    return Encoded(
        checkpoint_id=UUID(checkpoint["id"]),
        parent_id=UUID(parent_id) if parent_id else None,
        step=int(metadata.get("step", -2)),
        body=body,
        refs=tuple(keys),
        blobs=blobs,
        size=len(body) + size,
        parts=Parts(inline, refs, blobs={key: at_hand[key] for key in keys if key in at_hand and key not in again}),
    )


def _is_plain(value: Any) -> bool:
    kind: type = type(value)
    if isinstance(value, str) and kind is str:
        return len(value) <= INLINE_BYTES and value.isascii()  # a lone surrogate is the serializer's to refuse
    if isinstance(value, int) and kind is int:
        return -(1 << 63) <= value < 1 << 63
    return kind in _PLAIN


def _bare(checkpoint: Checkpoint) -> dict[str, Any]:
    bare = {key: value for key, value in checkpoint.items() if key not in ("channel_values", "pending_sends")}
    if isinstance(updated := bare.get("updated_channels"), set | frozenset):
        bare["updated_channels"] = sorted(updated)
    return bare


def open_body(body: bytes) -> dict[str, Any]:
    """{c, m, p, i, r, u}, fresh objects each time; values are still serialised."""
    opened: dict[str, Any] = ormsgpack.unpackb(body, option=_OPTIONS)
    return opened


def blob_keys(opened: Mapping[str, Any]) -> list[str]:
    """Of the blobs that a checkpoint shows, in the order of `refs`."""
    return [key for ref in opened["r"].values() for key in keys_of(ref)]


def read_parts(body: bytes, blobs: Mapping[str, bytes] | None = None) -> Parts:
    opened = open_body(body)
    return Parts(opened["i"], opened["r"], opened["c"]["channel_versions"], blobs or {})


def make_head(body: bytes, blobs: Sequence[bytes]) -> Head:
    """The bytes of a row: blobs in the order of `refs`."""
    return Head(body, dict(zip(blob_keys(open_body(body)), blobs, strict=True)))


def decode_checkpoint(
    serde: SerializerProtocol,
    thread_id: str,
    ns: str,
    head: Head,
    writes: "Iterable[WriteRow]",
    *,
    packet: int | None = None,
    known: Mapping[str, Any] | None = None,
) -> CheckpointTuple:
    """The checkpoint as LangGraph's savers answer it, made of fresh objects. Raises StateUnreadable.

    packet  of its Sends, only the one at this place is read (load_value)
    known   values that nobody else has any more: they need not be read
    """
    opened = open_body(head.body)
    checkpoint: Any = opened["c"]
    values = dict(opened["p"])
    for channel, data in opened["i"].items():
        values[channel] = load_value(serde, data, channel=channel, packet=packet)
    for channel, ref in opened["r"].items():
        if known and channel in known:
            values[channel] = known[channel]
        else:
            values[channel] = load_value(serde, join(ref, head.blobs), channel=channel, packet=packet)
    checkpoint["channel_values"] = values
    return CheckpointTuple(
        config=config_of(thread_id, ns, checkpoint["id"]),
        checkpoint=checkpoint,
        metadata=opened["m"],
        parent_config=config_of(thread_id, ns, opened["u"]) if opened["u"] else None,
        pending_writes=decode_writes(serde, writes),
    )


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}


# --------------------------------------------------------------------------- writes


@dataclass(frozen=True, slots=True)
class WriteRow:
    """A row of checkpoint_write.

    owner  the node execution whose work it is; ZERO: the run's own (input, resume values)
    idx    ORDINARY: every ordinary write of the task, packed; below: one control write
    """

    owner: UUID
    task_id: UUID
    idx: int
    path: str
    body: bytes

    @property
    def key(self) -> tuple[UUID, UUID, int]:
        return self.owner, self.task_id, self.idx

    @property
    def replaces(self) -> bool:
        """Whether it takes the place of one that is there: control writes, and the run's own, which LangGraph always
        hands over whole. Of a task's ordinary writes the first are kept, or two attempts would mix."""
        return self.idx != ORDINARY or self.task_id == ZERO


def encode_writes(
    serde: SerializerProtocol, owner: UUID, task_id: str, path: str, writes: Sequence[tuple[str, Any]]
) -> list[WriteRow]:
    """The rows of one `put_writes`; the last control write of a kind counts."""
    task = UUID(task_id)
    rows = {
        WRITES_IDX_MAP[channel]: ormsgpack.packb([[channel, dump_value(serde, value, channel=channel)]])
        for channel, value in writes
        if channel in WRITES_IDX_MAP
    }
    ordinary = [[c, dump_value(serde, value, channel=c)] for c, value in writes if c not in WRITES_IDX_MAP]
    if ordinary or not rows:
        rows[ORDINARY] = ormsgpack.packb(ordinary)
    return [WriteRow(owner, task, idx, path, body) for idx, body in rows.items()]


def decode_writes(serde: SerializerProtocol, rows: Iterable[WriteRow]) -> list[tuple[str, str, Any]]:
    """(task id, channel, value) in the order in which a live superstep applies them."""
    ordered = sorted(rows, key=lambda row: _sort_key(row.path, str(row.task_id), row.idx))
    return [
        (str(row.task_id), channel, load_value(serde, data, channel=channel))
        for row in ordered
        for channel, data in ormsgpack.unpackb(row.body)
    ]
