"""A checkpoint as bytes and back: the format that executions.py and checkpoints.py share.

The body of a checkpoint is msgpack: {c: the checkpoint without its values, m: metadata, p: plain values as they are,
i: {channel: small value, serialised}, r: {channel: key of its blob}, u: id of the parent or None}. Values above
INLINE_BYTES are blobs, stored once a channel version and thread however many checkpoints show them; their keys are
"channel:version". What did not change since the parent is taken over as bytes, without serialising it again.

A serialised value is one byte that says how, then the serializer's bytes. All ordinary writes of a task are one row
(idx 0), packed; control writes are a row each, with LangGraph's negative idx.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.ids import ZERO
from agentfarm.persistence.serde import dump_channel

#: Values up to this size live in the body. Without inlining, WAL grew by 17 % a node.
INLINE_BYTES: Final = 256

#: `idx` of the row that holds all ordinary writes of a task.
ORDINARY: Final = 0

_TAGS: Final = {"msgpack": b"m", "bytes": b"b", "bytearray": b"a", "null": b"n", "json": b"j"}
_KINDS: Final = {tag[0]: kind for kind, tag in _TAGS.items()}
_PLAIN: Final = (str, int, float, bool, type(None))
_OPTIONS: Final = ormsgpack.OPT_NON_STR_KEYS


def dump_value(serde: SerializerProtocol, value: Any, *, channel: str = "") -> bytes:
    """Raises ValueLost, which names the channel."""
    kind, data = dump_channel(serde, channel, value)
    return _TAGS[kind] + data


def load_value(serde: SerializerProtocol, data: bytes) -> Any:
    return serde.loads_typed((_KINDS[data[0]], data[1:]))


def next_version(current: str | None) -> str:
    """17 characters instead of stock's 52. They sort by number; the random part keeps forks of one thread apart."""
    number = int(current[:8]) + 1 if current else 1
    return f"{number:08d}.{random.getrandbits(32):08x}"  # no secret: it only must not repeat


# --------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True, slots=True)
class Body:
    """A checkpoint's body, opened: fresh objects, its values still serialised. One use: it is handed out as it is."""

    opened: dict[str, Any]

    @property
    def metadata(self) -> CheckpointMetadata:
        told: CheckpointMetadata = self.opened["m"]
        return told

    @property
    def checkpoint_id(self) -> str:
        told: str = self.opened["c"]["id"]
        return told

    @property
    def parent_id(self) -> str | None:
        told: str | None = self.opened["u"]
        return told

    @property
    def inline(self) -> Mapping[str, bytes]:
        """{channel: small value, serialised}"""
        told: dict[str, bytes] = self.opened["i"]
        return told

    @property
    def keys(self) -> Mapping[str, str]:
        """{channel: key of its blob}"""
        told: dict[str, str] = self.opened["r"]
        return told

    @property
    def refs(self) -> tuple[str, ...]:
        """Keys of the blobs it shows, in the order of the column."""
        return tuple(self.keys.values())

    def key_of(self, channel: str) -> str | None:
        return self.keys.get(channel)

    def has(self, channel: str) -> bool:
        return channel in self.opened["p"] or channel in self.inline or channel in self.keys

    def value(self, channel: str, serde: SerializerProtocol, blobs: Mapping[str, bytes]) -> Any:
        """Raises KeyError for a channel that it has not."""
        if channel in self.inline:
            return load_value(serde, self.inline[channel])
        if channel in self.keys:
            return load_value(serde, blobs[self.keys[channel]])
        return self.opened["p"][channel]

    def checkpoint(self, serde: SerializerProtocol, blobs: Mapping[str, bytes]) -> Checkpoint:
        checkpoint: Checkpoint = self.opened["c"]
        channels = (*self.opened["p"], *self.inline, *self.keys)
        checkpoint["channel_values"] = {channel: self.value(channel, serde, blobs) for channel in channels}
        return checkpoint


def read_body(body: bytes) -> Body:
    return Body(ormsgpack.unpackb(body, option=_OPTIONS))


@dataclass(frozen=True, slots=True)
class EncodedCheckpoint:
    """A checkpoint as its row.

    refs   keys of the blobs it shows, in the order in which the body lists them
    blobs  those that are new: {key: bytes}
    """

    checkpoint_id: UUID
    parent_id: UUID | None
    step: int
    body: bytes
    refs: tuple[str, ...]
    blobs: Mapping[str, bytes]


def encode_checkpoint(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    parent: Body | None = None,
) -> EncodedCheckpoint:
    """The row of a checkpoint.

    config   as `put` gets it: it names the parent, and its metadata becomes part of the checkpoint's, as in stock
    parent   the body of the checkpoint that it follows in the same namespace; without it unchanged channels are
             serialised again, to the same keys
    raises   ValueLost, for a value that would not come back
    """
    plain: dict[str, Any] = {}
    inline: dict[str, bytes] = {}
    refs: dict[str, str] = {}
    blobs: dict[str, bytes] = {}
    had_keys, had_inline = (parent.keys, parent.inline) if parent else ({}, {})
    for channel, value in checkpoint["channel_values"].items():
        if _is_plain(value):
            plain[channel] = value
        elif channel not in new_versions and channel in had_keys:
            refs[channel] = had_keys[channel]
        elif channel not in new_versions and channel in had_inline:
            inline[channel] = had_inline[channel]
        elif len(data := dump_value(serde, value, channel=channel)) <= INLINE_BYTES:
            inline[channel] = data
        else:
            refs[channel] = key = f"{channel}:{checkpoint['channel_versions'][channel]}"
            blobs[key] = data
    full = get_serializable_checkpoint_metadata(config, metadata)
    parent_id = config.get("configurable", {}).get("checkpoint_id") or None
    body = {"c": _bare(checkpoint), "m": full, "p": plain, "i": inline, "r": refs, "u": parent_id}
    return EncodedCheckpoint(
        checkpoint_id=UUID(checkpoint["id"]),
        parent_id=UUID(parent_id) if parent_id else None,
        step=int(metadata.get("step", -2)),
        body=ormsgpack.packb(body, option=_OPTIONS),
        refs=tuple(refs.values()),
        blobs=blobs,
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


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint as bytes: what a worker may keep. Decoded afresh on each use, so no node reaches another's."""

    body: bytes
    blobs: Mapping[str, bytes]

    def to_tuple(
        self, serde: SerializerProtocol, thread_id: str, ns: str, writes: "Iterable[WriteRow]"
    ) -> CheckpointTuple:
        """As LangGraph's savers answer it, made of fresh objects."""
        body = read_body(self.body)
        parent_id = body.parent_id
        return CheckpointTuple(
            config=config_of(thread_id, ns, body.checkpoint_id),
            checkpoint=body.checkpoint(serde, self.blobs),
            metadata=body.metadata,
            parent_config=config_of(thread_id, ns, parent_id) if parent_id else None,
            pending_writes=decode_writes(serde, writes),
        )


def make_head(body: bytes, blobs: Sequence[bytes]) -> Head:
    """The bytes of a row: blobs in the order of `refs`."""
    return Head(body, dict(zip(read_body(body).refs, blobs, strict=True)))


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}


# --------------------------------------------------------------------------- writes


@dataclass(frozen=True, slots=True)
class PackedWrites:
    """The writes of one row. idx is ORDINARY (all of a task's ordinary writes), or below it (one control write)."""

    idx: int
    body: bytes


def pack_writes(serde: SerializerProtocol, writes: Sequence[tuple[str, Any]]) -> list[PackedWrites]:
    """The rows of one `put_writes`; the last control write of a kind counts. Raises ValueLost."""
    rows = {
        WRITES_IDX_MAP[channel]: ormsgpack.packb([[channel, dump_value(serde, value, channel=channel)]])
        for channel, value in writes
        if channel in WRITES_IDX_MAP
    }
    ordinary = [[c, dump_value(serde, value, channel=c)] for c, value in writes if c not in WRITES_IDX_MAP]
    if ordinary or not rows:
        rows[ORDINARY] = ormsgpack.packb(ordinary)
    return [PackedWrites(idx, body) for idx, body in rows.items()]


def read_writes(serde: SerializerProtocol, body: bytes) -> list[tuple[str, Any]]:
    """[(channel, value)] of one row."""
    return [(channel, load_value(serde, data)) for channel, data in ormsgpack.unpackb(body)]


@dataclass(frozen=True, slots=True)
class WriteRow:
    """A row of checkpoint_write.

    owner  the node execution whose work it is; ZERO: the run's own (input, resume values)
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
    def is_kept(self) -> bool:
        """Whether it stays where it is there already. Control writes and the run's own, which LangGraph always hands
        over whole, are replaced; of a task's ordinary writes the first stay, or two attempts would mix."""
        return self.idx == ORDINARY and self.task_id != ZERO


def decode_writes(serde: SerializerProtocol, rows: Iterable[WriteRow]) -> list[tuple[str, str, Any]]:
    """(task id, channel, value) in the order in which a live superstep applies them."""
    ordered = sorted(rows, key=lambda row: writes_sort_key(row.path, str(row.task_id), row.idx))
    return [(str(row.task_id), *write) for row in ordered for write in read_writes(serde, row.body)]
