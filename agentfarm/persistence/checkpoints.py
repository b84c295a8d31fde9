"""LangGraph's saver over a tenant's checkpoints, outside of any run: state, history, update_state.

Bound to the tenant at birth: there is no call that names another. A put becomes the thread's head, by compare-and-swap
from the head that this saver has read. A node execution has a saver of its own (execution_saver.py), which reads other
places through this one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy import Connection

from agentfarm.ids import ZERO
from agentfarm.persistence import checkpoint_reads, checkpoint_upkeep, checkpoint_writes
from agentfarm.persistence.blocking_saver import BlockingSaver
from agentfarm.persistence.bodies import encode_writes
from agentfarm.persistence.checkpoint_reads import Found, Place
from agentfarm.persistence.database import Database

T = TypeVar("T")

#: Checkpoints a round trip when listing. A page of the API is 10.
PAGE = 20


class TenantSaver(BlockingSaver):
    """guard_idle  writing raises ThreadBusy when a run of the thread is not over, in the same transaction
    known       a checkpoint that was read with its run's end: `get_tuple` answers with that, as it was then
    before_read is told which thread will be read
    """

    def __init__(
        self,
        database: Database,
        tenant_id: UUID,
        serde: SerializerProtocol,
        *,
        guard_idle: bool = False,
        known: Found | None = None,
        before_read: Callable[[UUID], None] | None = None,
    ) -> None:
        super().__init__(serde=serde)
        self._before_read = before_read or _nothing
        self.database = database
        self.tenant_id = tenant_id
        self.guard_idle = guard_idle
        self.known = known
        self._seen_head: tuple[UUID, UUID | None] | None = None  # (thread, head): what a put moves the head from

    def _read(self, work: Callable[[Connection], T]) -> T:
        """State is bytes: as text they would be twice as long on their way."""
        with self.database.transaction(self.tenant_id, binary=True) as connection:
            return work(connection)

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        with self.database.transaction(self.tenant_id) as connection:
            return work(connection)

    # ----------------------------------------------------------------------- reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint named, else the thread's head; in a subgraph's namespace the newest.

        raises  InvalidId (of thread or checkpoint), StoreUnavailable
        """
        place = Place.of(config)
        if self.known is not None and place == self.known.place:
            return self.known.to_tuple(self.serde)
        self._before_read(place.thread_id)
        found = self._read(lambda connection: checkpoint_reads.find(connection, self.tenant_id, place))
        if found is None:
            return None
        if place.ns == "":
            self._seen_head = (place.thread_id, found.head)
        return found.to_tuple(self.serde)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Newest first: of a thread (and namespace, where the config names one), or of all the tenant's threads.

        filter  what the metadata must contain; compared after reading, since it is stored as LangGraph's serde makes it
        """
        for page in self._pages(config, filter, before, limit):
            yield from page

    def _pages(
        self,
        config: RunnableConfig | None,
        wanted: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Iterator[Sequence[CheckpointTuple]]:
        """No transaction stays open between two pages."""
        if config is not None:
            self._before_read(Place.of(config).thread_id)
        cursor = checkpoint_reads.Cursor.of(config, before, page=PAGE if wanted or not limit else min(PAGE, limit))
        left = limit
        while not cursor.is_done and (left is None or left > 0):
            found = self._read(
                lambda connection: checkpoint_reads.next_page(connection, self.tenant_id, cursor, wanted or {})
            )
            page = [one.to_tuple(self.serde) for one in found[:left]]
            left = None if left is None else left - len(page)
            yield page

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        pages = self._pages(config, filter, before, limit)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            for one in page:
                yield one

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Writes to these channels since each was last stored whole, along the line of parents; see the base class."""
        if not channels:
            return {}
        place = Place.of(config)
        self._before_read(place.thread_id)
        return self._read(
            lambda connection: checkpoint_reads.delta_history(connection, self.tenant_id, place, channels, self.serde)
        )

    # ----------------------------------------------------------------------- writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint; it becomes the thread's head.

        returns  its config, with a higher id than given where a clock was behind: ids grow along the line
        raises   HeadMoved (somebody else has advanced the thread since this saver read it), ThreadBusy, NotFound
                 (guard_idle, and there is no such thread), ValueLost, StoreUnavailable
        """
        put = checkpoint_writes.Put(Place.of(config), config, checkpoint, metadata, new_versions)
        seen = self._seen_head if self._seen_head and self._seen_head[0] == put.place.thread_id else None
        with self.database.transaction(self.tenant_id) as connection:
            new_id = checkpoint_writes.put(
                connection, self.tenant_id, put, self.serde, seen=seen, guard_idle=self.guard_idle
            )
        if put.place.ns == "":
            self._seen_head = (put.place.thread_id, new_id)
        return put.place.at(new_id).config()

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save what a task wrote at a checkpoint. A task's ordinary writes are saved once: the first stay, as in stock.

        raises  ThreadBusy, NotFound (as put), ValueLost, StoreUnavailable
        """
        place, rows = Place.of(config), encode_writes(self.serde, ZERO, task_id, task_path, writes)
        with self.database.transaction(self.tenant_id) as connection:
            checkpoint_writes.put_writes(connection, self.tenant_id, place, rows, guard_idle=self.guard_idle)

    # ----------------------------------------------------------------------- upkeep

    def delete_thread(self, thread_id: str) -> None:
        """The thread's checkpoints, blobs and writes. Its row and its runs stay: threads.py forgets a thread whole."""
        place = Place.of_thread(thread_id)
        self._in_transaction(
            lambda connection: checkpoint_upkeep.delete_state(connection, self.tenant_id, place.thread_id)
        )

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """All checkpoints, blobs and writes, and the head. The target keeps what it has."""
        source, target = Place.of_thread(source_thread_id), Place.of_thread(target_thread_id)
        self._in_transaction(
            lambda connection: checkpoint_upkeep.copy_state(
                connection, self.tenant_id, source.thread_id, target.thread_id
            )
        )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """keep_latest: the head (of a namespace the newest) and the ancestors that delta channels need. delete: all.

        raises  TypeError for one id as a str, which is a sequence of letters; ValueError, InvalidId, StoreUnavailable
        """
        if isinstance(thread_ids, str):
            raise TypeError("thread_ids must be a list of ids, not a str")
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy is {strategy!r}; it is 'keep_latest' or 'delete'")
        prune = checkpoint_upkeep.keep_latest if strategy == "keep_latest" else checkpoint_upkeep.delete_state
        for place in map(Place.of_thread, thread_ids):
            with self.database.transaction(self.tenant_id) as connection:
                prune(connection, self.tenant_id, place.thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """The checkpoints that these runs made; a head among them goes back to the newest ancestor that is left."""
        runs = [UUID(run_id) for run_id in run_ids]
        if runs:
            self._in_transaction(lambda connection: checkpoint_upkeep.delete_of_runs(connection, self.tenant_id, runs))


def _nothing(thread_id: UUID) -> None:
    """Nobody else has anything of it."""
