"""LangGraph's saver as one node execution has it.

Reads the checkpoint that the claim brought, without asking the database; what else of the thread is asked for (history,
other namespaces) is read through checkpoints.py. Its writes are real and at once: results of `@task` calls, the
checkpoints of subgraphs inside the node, and all of a run that one worker executes whole. Each carries the execution's
fence and is refused in the same statement when another worker has taken over.
"""

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self
from uuid import UUID

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.engine.fenced import FencedOut
from agentfarm.engine.steps import NodeCall
from agentfarm.errors import LeaseLost, StoreUnavailable
from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode
from agentfarm.persistence import wire
from agentfarm.persistence.blocking_saver import BlockingSaver
from agentfarm.persistence.bodies import (
    Encoded,
    Head,
    Parts,
    WriteRow,
    config_of,
    decode_checkpoint,
    encode_checkpoint,
    encode_writes,
    read_parts,
)
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Database
from agentfarm.persistence.execution_keys import held_of
from agentfarm.persistence.leases import Held
from agentfarm.persistence.segment_rows import WRITE_TYPES, Address, stored_write, write_params
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.persistence.tier import Tier

logger = logging.getLogger(__name__)

#: Of held_params.
HELD_TYPES: Final = "uuid uuid uuid uuid int8 int8"
PUT_CHECKPOINT: Final = wire.function(
    "put_checkpoint", f"{HELD_TYPES} uuid uuid text uuid uuid int4 text[] bytea text[] bytea[]"
)
PUT_WRITES: Final = wire.function("put_writes", f"{HELD_TYPES} uuid {WRITE_TYPES} bool[]")
NOTE_WARNINGS: Final = wire.function("note_warnings", "uuid uuid jsonb")


class ExecutionSaver(BlockingSaver):
    """held   the lease under which it writes
    at_id  the checkpoint that the execution stands at, which is the thread's head; None for the start of a new thread
    head   its bytes, and writes: the rows there that concern this execution
    tier   which makes durable what the execution commits
    """

    def __init__(
        self,
        database: Database,
        held: Held,
        thread_id: UUID,
        serde: SerializerProtocol,
        tier: Tier,
        *,
        at_id: UUID | None,
        head: Head | None,
        writes: Iterable[WriteRow] = (),
    ) -> None:
        super().__init__(serde=serde)
        self.database = database
        self.tier = tier
        self.held = held
        self.thread_id = thread_id
        self.at_id = at_id
        #: What the commit moves the thread's head from: moves with the puts of this saver.
        self.head_id = at_id
        #: Gives the lease back when this is collected; executions.py takes it off.
        self.when_dropped: weakref.finalize[..., Any] | None = None
        self.head = head
        self.writes = {row.key: row for row in writes}
        #: Where the execution's own Send is among all. LangGraph's loop, which reads first, needs no other; what a node
        #: asks for later is whole.
        self.packet: int | None = None
        #: Messages of the checkpoint, by channel, as the start had them that this worker goes on from: no node has seen
        #: them, and LangGraph's loop, which reads first, may have them. What a node asks for later is read.
        self.values: Mapping[str, Any] = {}
        #: What is executed; None for a start, and before it is known.
        self.call: NodeCall | None = None
        self._deltas: Mapping[str, Any] = {}
        self._moved = False
        self._parts: dict[str, tuple[str, Parts]] = {}  # of what was put here last in each namespace, and its id

    def next_saver(
        self, held: Held, *, at_id: UUID | None, head: Head | None, writes: Iterable[WriteRow]
    ) -> "ExecutionSaver":
        """Of what a commit of this one has leased: the same thread."""
        return type(self)(
            self.database, held, self.thread_id, self.serde, self.tier, at_id=at_id, head=head, writes=writes
        )

    def lease_of(self, message: ExecuteNode, fence: int) -> Held:
        """What a commit of this one has leased to the same worker."""
        return held_of(message, fence, self.held.worker)

    def addressed(self, message: ExecuteNode) -> ExecuteNode:
        """The message, as who claims it finds it."""
        return message.in_postgres()

    def use_serde(self, serde: SerializerProtocol) -> None:
        """Read and write by this one from now on. Nothing is decoded before a graph asks for it; and what the start had
        is of the classes of another graph."""
        self.serde, self.values = serde, {}

    @property
    def _reader(self) -> TenantSaver:
        """Of what is elsewhere than where the execution stands. Few ask for it, and LangGraph's base class takes 9 µs
        to find that a serializer is one: made when it is asked for."""
        return TenantSaver(self.database, self.held.tenant_id, self.serde)

    @property
    def parts(self) -> Parts | None:
        """The serialised values of the checkpoint that the execution stands at."""
        return read_parts(self.head.body, self.head.blobs) if self.head else None

    # ----------------------------------------------------------------------- reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the execution stands at, decoded afresh; another where the config names one."""
        if not self._is_here(config):
            return self._reader.get_tuple(config)
        if self.head is None:
            return None
        packet, self.packet = self.packet, None
        known, self.values = self.values, {}
        found = decode_checkpoint(
            self.serde, str(self.thread_id), "", self.head, self.writes.values(), packet=packet, known=known
        )
        stored = found.checkpoint["channel_values"]
        self._deltas = {channel: value for channel, value in known.items() if channel not in stored}
        return found

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Without an OS thread where nothing waits."""
        return self.get_tuple(config) if self._is_here(config) else await super().aget_tuple(config)

    def _is_here(self, config: RunnableConfig) -> bool:
        given = config.get("configurable", {})
        if given.get("checkpoint_ns") or str(given.get("thread_id")) != str(self.thread_id):
            return False
        checkpoint_id = given.get("checkpoint_id")
        return not self._moved if not checkpoint_id else str(checkpoint_id) == str(self.at_id) and not self._moved

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        return self._reader.list(config, filter=filter, before=before, limit=limit)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        reader = await asyncio.to_thread(lambda: self._reader)  # a run that Redis moves has to be asked for there first
        async for found in reader.alist(config, filter=filter, before=before, limit=limit):
            yield found

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        known, self._deltas = self._deltas, {}
        if self._is_here(config) and known.keys() >= set(channels):
            return {channel: {"writes": [], "seed": known[channel]} for channel in channels}
        return self._reader.get_delta_channel_history(config=config, channels=channels)

    # ----------------------------------------------------------------------- writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint at once. Raises FencedOut, HeadMoved, ValueLost, StoreUnavailable."""
        given = config.get("configurable", {})
        ns, parent_id = given.get("checkpoint_ns") or "", given.get("checkpoint_id") or None
        self.forget_warnings()
        encoded = encode_checkpoint(
            self.serde,
            config,
            checkpoint,
            metadata,
            new_versions,
            parent_id=parent_id,
            parent=self._parts_of(ns, parent_id),
        )
        with _fenced():
            self._save_checkpoint(ns, encoded)
        self._parts[ns] = checkpoint["id"], encoded.parts
        if ns == "":
            self.head_id, self._moved = encoded.checkpoint_id, True
        self.note_warnings()
        return config_of(str(self.thread_id), ns, checkpoint["id"])

    def _parts_of(self, ns: str, parent_id: str | None) -> Parts | None:
        if parent_id is None:
            return None
        if ns == "" and parent_id == str(self.at_id):
            return self.parts
        put_id, parts = self._parts.get(ns, ("", None))
        return parts if parent_id == put_id else None

    def _save_checkpoint(self, ns: str, encoded: Encoded) -> None:
        self.database.call(PUT_CHECKPOINT, self._checkpoint_params(ns, encoded))

    def _checkpoint_params(self, ns: str, encoded: Encoded) -> Sequence[wire.Param]:
        return [
            *held_params(self.held),
            self.thread_id.bytes,
            wire.put_uuid(self.head_id),
            ns.encode(),
            encoded.checkpoint_id.bytes,
            wire.put_uuid(encoded.parent_id),
            wire.put_int4(encoded.step),
            wire.put_texts(encoded.refs),
            encoded.body,
            wire.put_texts(encoded.blobs) if encoded.blobs else None,
            wire.put_blobs(encoded.blobs.values()) if encoded.blobs else None,
        ]

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save writes at once. Raises FencedOut, ValueLost, StoreUnavailable."""
        given = config["configurable"]
        self.forget_warnings()
        rows = encode_writes(self.serde, self._owner_of(task_id), task_id, task_path, writes)
        with _fenced():
            self._save_writes((given.get("checkpoint_ns") or "", given["checkpoint_id"]), rows)
        self.note_warnings()

    def _save_writes(self, address: Address, rows: Sequence[WriteRow]) -> None:
        kept = wire.put_bools(not row.replaces for row in rows)
        params = write_params([stored_write(address, row) for row in rows])
        self.database.call(PUT_WRITES, [*held_params(self.held), self.thread_id.bytes, *params, kept])

    @property
    def is_lossy(self) -> bool:
        return isinstance(self.serde, FaithfulSerializer) and self.serde.softens

    def forget_warnings(self) -> None:
        """What this thread wrote before may have been another run's, which was not saved."""
        if isinstance(self.serde, FaithfulSerializer) and self.serde.softens:
            self.serde.softened.take()

    def note_warnings(self) -> None:
        """Keep in the run's record which values this thread has just saved as plain data. Nothing for most graphs.

        What is saved is saved: a record that is late to tell of plain data must not undo it.
        """
        if isinstance(self.serde, FaithfulSerializer) and (places := self.serde.softened.take()):
            params = [self.held.tenant_id.bytes, self.held.run_id.bytes, wire.put_jsonb(orjson.dumps(places))]
            try:
                self.database.call(NOTE_WARNINGS, params, again=True)
            except StoreUnavailable:
                logger.warning("the warnings of a run are lost", extra={"run_id": str(self.held.run_id)})

    def _owner_of(self, task_id: str) -> UUID:
        """The node execution; in a run that is executed whole each task is its own, and the run's are the run's."""
        task = UUID(task_id)
        if task == ZERO:
            return ZERO
        return task if self.held.execution_id in (self.held.run_id, ZERO) else self.held.execution_id

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """This saver: its serializer knows the graph's classes. Stock asks in every segment, and would clone both."""
        return self


@contextmanager
def _fenced() -> Iterator[None]:
    """The graph is told in a way that none of its own handlers takes for an error of a node."""
    try:
        yield
    except LeaseLost as error:
        raise FencedOut(str(error), **error.facts) from error


def held_params(held: Held) -> list[wire.Param]:
    """p_tenant, p_run, p_ckpt, p_exec, p_fence, p_worker of the functions that ask for a lease."""
    return [
        held.tenant_id.bytes,
        held.run_id.bytes,
        held.checkpoint_id.bytes,
        held.execution_id.bytes,
        wire.put_int8(held.fence),
        wire.put_int8(held.worker),
    ]
