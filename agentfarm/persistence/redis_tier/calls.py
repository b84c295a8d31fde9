"""The calls by which runs of Redis come to Postgres: what they are given, and what their answers mean."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agentfarm.messages import ExecuteNode
from agentfarm.persistence import wire
from agentfarm.persistence.execution_keys import start_message
from agentfarm.persistence.leases import Held
from agentfarm.persistence.redis_tier.entries import Batch
from agentfarm.persistence.redis_tier.leases import Holder
from agentfarm.persistence.redis_tier.scripts import Place, Waiting
from agentfarm.records import Committed, Ended

logger = logging.getLogger(__name__)

IS_FREE: Final = wire.function("is_free", "uuid uuid")
RECALL: Final = wire.function(
    "recall", "uuid uuid uuid int8 uuid[] uuid[] int8[] uuid[] uuid[] int8[] uuid uuid int8 int8"
)


def batch_of(place: Place, waiting: Waiting) -> Batch:
    return Batch(replace(place, run_id=waiting.run_id), waiting.before, waiting.entries)


def judge(batch: Batch, answer: wire.Answer) -> tuple[Committed, int, bool]:
    """(what came of it, up to which entry Redis may forget, whether it may forget all)."""
    place, verdict = batch.place, answer.text("verdict")
    if verdict == "other":
        logger.info("what Redis has of a run is of no line that counts", extra={"run_id": str(place.run_id)})
        return Committed(), batch.last.number, True
    if verdict == "known":
        return Committed(), min(answer.number("entry"), batch.last.number), False
    if batch.status is None:
        return Committed(), batch.last.number, False
    ready: tuple[ExecuteNode, ...] = ()
    if (next_run := answer.find_uuid("next_run")) is not None:
        place_of = (answer.text("next_graph"), answer.text("next_queue"))
        ready = (start_message(place.tenant_id, place.home, next_run, *place_of),)
    forget = answer.flag("forget")
    ended = Ended(place.tenant_id, place.home, place.run_id, place.thread_id, batch.status, None, forget)
    return Committed(ready=ready, ended=ended), batch.last.number, True


def recall_params(
    place: Place, keep: Held | None, needs: int, lost: Sequence[Holder], held: Sequence[Holder]
) -> list[wire.Param]:
    return [
        place.tenant_id.bytes,
        place.thread_id.bytes,
        place.run_id.bytes,
        wire.put_int8(place.epoch),
        *_holder_params(lost),
        *_holder_params(held),
        keep.checkpoint_id.bytes if keep else None,
        keep.execution_id.bytes if keep else None,
        wire.put_int8(keep.worker) if keep else None,
        wire.put_int8(needs),
    ]


def _holder_params(holders: Sequence[Holder]) -> list[wire.Param]:
    return [
        wire.put_uuids(one.checkpoint_id.bytes for one in holders),
        wire.put_uuids(one.execution_id.bytes for one in holders),
        wire.put_bigints(one.worker for one in holders),
    ]


def message_of(place: Place, answer: wire.Answer, at: int) -> ExecuteNode:
    return ExecuteNode(
        place.tenant_id,
        place.home,
        place.run_id,
        checkpoint_id=answer.uuid("checkpoint_id", at),
        execution_id=answer.uuid("execution_id", at),
        graph_id=answer.text("graph_id", at),
        node=answer.text("node", at),
        queue=answer.text("queue", at),
    )
