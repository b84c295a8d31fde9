"""LangGraph's saver as a node execution has it whose run is moved by Redis.

Reads the checkpoint that the claim brought, as every execution's saver does. What it saves at once goes to Redis under
the execution's lease; what else of the thread it reads is read in Postgres, which is given all of it before.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.bodies import Encoded, Head, WriteRow
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.commits import POSTGRES
from agentfarm.persistence.database import Database
from agentfarm.persistence.execution_saver import ExecutionSaver
from agentfarm.persistence.leases import Held
from agentfarm.persistence.redis_tier.entries import Draft
from agentfarm.persistence.redis_tier.leases import redis_held
from agentfarm.persistence.redis_tier.scripts import Place
from agentfarm.persistence.segment_rows import Address

if TYPE_CHECKING:
    from agentfarm.persistence.redis_tier.tier import RedisTier


class RedisSaver(ExecutionSaver):
    """place  where the run is in Redis
    build  of the run
    """

    def __init__(
        self,
        database: Database,
        held: Held,
        thread_id: UUID,
        serde: SerializerProtocol,
        tier: "RedisTier",
        place: Place,
        build: str,
        *,
        at_id: UUID | None,
        head: Head | None,
        writes: Iterable[WriteRow] = (),
    ) -> None:
        super().__init__(database, held, thread_id, serde, tier, at_id=at_id, head=head, writes=writes)
        self.place = place
        self.build = build
        self._redis = tier
        self.saving = threading.RLock()
        #: Number and id of the last entry that this execution has saved before its commit.
        self.saved_last, self.saved_id = 0, ZERO

    def next_saver(
        self, held: Held, *, at_id: UUID | None, head: Head | None, writes: Iterable[WriteRow]
    ) -> ExecutionSaver:
        if self.tier is POSTGRES:
            return ExecutionSaver(
                self.database, held, self.thread_id, self.serde, POSTGRES, at_id=at_id, head=head, writes=writes
            )
        return RedisSaver(
            self.database, held, self.thread_id, self.serde, self._redis, self.place, self.build,
            at_id=at_id, head=head, writes=writes,
        )  # fmt: skip

    def lease_of(self, message: ExecuteNode, fence: int) -> Held:
        if self.tier is POSTGRES:
            return super().lease_of(message, fence)
        return redis_held(self.place, message, fence, self.held.worker)

    def addressed(self, message: ExecuteNode) -> ExecuteNode:
        if self.tier is POSTGRES:
            return super().addressed(message)
        return message.in_redis(self.thread_id, self.place.epoch)

    def saved(self, number: int, entry_id: UUID) -> None:
        if number:
            self.saved_last, self.saved_id = number, entry_id

    @property
    def saved_header(self) -> dict[str, Any]:
        return {"sn": self.saved_last, "si": self.saved_id.hex}

    def adopted(self, fence: int) -> None:
        """Its lease is one of Postgres from here on, and its run is moved there."""
        held = self.held
        self.tier = POSTGRES
        self.held = Held(held.tenant_id, held.run_id, held.checkpoint_id, held.execution_id, fence, held.worker)

    @property
    def _reader(self) -> TenantSaver:
        if self.tier is not POSTGRES:
            self._redis.bring(self.place)
        return super()._reader

    # ----------------------------------------------------------------------- writing

    def _save_checkpoint(self, ns: str, encoded: Encoded) -> None:
        if self.tier is not POSTGRES:
            draft = Draft()
            draft.add_checkpoint(ns, encoded)
            # One of the graph itself: this worker executes the run whole, for which there is one script too few.
            if self._redis.put(self, draft, is_whole=ns == ""):
                return
        super()._save_checkpoint(ns, encoded)

    def _save_writes(self, address: Address, rows: Sequence[WriteRow]) -> None:
        if self.tier is not POSTGRES:
            draft = Draft()
            for row in rows:
                draft.add_write(address[0], UUID(address[1]), row, keeps=not row.replaces)
            if self._redis.put(self, draft):
                return
        super()._save_writes(address, rows)
