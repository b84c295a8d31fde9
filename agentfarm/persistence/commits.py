"""The calls that make a segment durable: farm.commit, farm.settle, farm.retry_later. Parameters in, answers out.

What a commit means for the claim, for caches and for what is published is executions.py's.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import orjson
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.engine.steps import NodeCall, SegmentResult, Status
from agentfarm.messages import at_build
from agentfarm.persistence import wire
from agentfarm.persistence.execution_saver import ExecutionSaver, held_params
from agentfarm.persistence.segment_rows import CHECKPOINT_TYPES, WRITE_TYPES, SegmentRows
from agentfarm.persistence.specs import dump_call

_HELD: Final = "uuid uuid uuid uuid int8 int8"

COMMIT: Final = wire.function(
    "commit",
    f"{_HELD} uuid uuid uuid text text bytea text {CHECKPOINT_TYPES} {WRITE_TYPES}"
    " uuid uuid[] text[] text[] bytea[] bool int4 bool text jsonb uuid",
)
SETTLE: Final = wire.procedure("settle", f"{_HELD} uuid text text bool bytea text {WRITE_TYPES} bool bool", answers=8)
RETRY_LATER: Final = wire.function("retry_later", f"{_HELD} text bytea int4 interval")


def status_of(result: SegmentResult) -> Status | None:
    """The run's, if it is over. The error of a sibling ends it at once; what the others have finished stays."""
    return "error" if result.outcome == "error" else result.status


def width_of(result: SegmentResult) -> int:
    """How many of the next executions may be worked on at once."""
    return min(result.max_concurrency or len(result.next), len(result.next))


def commit(
    saver: ExecutionSaver,
    result: SegmentResult,
    rows: SegmentRows,
    *,
    build: str,
    leases_next: bool,
    error: dict[str, Any] | None,
) -> wire.Answer:
    """The segment decides what is next, or ends the run. Answers {forget, next_run, next_graph, next_queue}.

    build  of the run: whose workers are to execute what is next
    """
    next_at = UUID(result.next[0].checkpoint_id) if result.next else None
    new_head = rows.new_head or (next_at if next_at != saver.head_id else None)
    params = [
        *held_params(saver.held),
        saver.thread_id.bytes,
        wire.put_uuid(saver.head_id),
        wire.put_uuid(new_head),
        wire.put_text(result.outcome),
        _error_type(result),
        rows.own,
        rows.own_path.encode(),
        *rows.checkpoint_params(),
        *rows.write_params(),
        *_next_params(result.next, next_at, saver.serde, build),
        wire.put_int4(width_of(result)),
        wire.put_bool(leases_next),
        wire.put_text(status_of(result)),
        wire.put_jsonb(orjson.dumps(error)) if error else None,
        UUID(result.root_run_id).bytes if result.root_run_id else None,
    ]
    return saver.database.call(COMMIT, params)


def _next_params(calls: Sequence[NodeCall], at: UUID | None, serde: SerializerProtocol, build: str) -> list[wire.Param]:
    """p_at, p_next, n_node, n_queue, n_spec, p_alone."""
    if not calls:
        return [None, None, None, None, None, wire.TRUE]
    return [
        wire.put_uuid(at),
        wire.put_uuids(UUID(call.execution_id).bytes for call in calls),
        wire.put_texts(call.name for call in calls),
        wire.put_texts(at_build(call.queue or "", build) for call in calls),
        wire.put_blobs(dump_call(call, serde) for call in calls),
        wire.put_bool(calls[0].sole),
    ]


def settle(
    saver: ExecutionSaver, result: SegmentResult, rows: SegmentRows, *, are_held: bool, take_next: bool
) -> wire.Answer:
    """One of several siblings is settled.

    Answers {s_fence: it was the last, h_exec, h_node, h_queue: a held one let go, n_exec, n_fence, n_spec:
    the next one, taken by this worker, taken: the answer without an id is gone}.
    """
    params = [
        *held_params(saver.held),
        saver.thread_id.bytes,
        wire.put_text(result.outcome),
        _error_type(result),
        wire.put_bool(result.took_scalar),
        rows.own,
        rows.own_path.encode(),
        *rows.write_params(),
        wire.put_bool(are_held),
        wire.put_bool(take_next),
    ]
    return saver.database.call(SETTLE, params)


def retry_later(saver: ExecutionSaver, result: SegmentResult, call: NodeCall) -> None:
    """The node is executed again after a delay, as this call."""
    delay = wire.put_seconds(max(0.0, result.retry_in))
    spec, tries = dump_call(call, saver.serde), wire.put_int4(call.tries)
    params = [*held_params(saver.held), _error_type(result), spec, tries, delay]
    saver.database.call(RETRY_LATER, params)


def _error_type(result: SegmentResult) -> wire.Param:
    return type(result.error).__name__.encode() if result.error is not None else None
