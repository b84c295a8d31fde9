"""The calls that make a segment durable in Postgres: farm.commit, farm.settle, farm.retry_later. Fits `Tier`.

What a commit means for the claim, for caches and for what is published is executions.py's.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import orjson
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.engine.steps import NodeCall, SegmentResult, Status
from agentfarm.messages import at_build
from agentfarm.persistence import wire
from agentfarm.persistence.bodies import WriteRow, make_head
from agentfarm.persistence.execution_saver import HELD_TYPES, ExecutionSaver, held_params
from agentfarm.persistence.leases import Held
from agentfarm.persistence.segment_rows import CHECKPOINT_TYPES, WRITE_TYPES, SegmentRows
from agentfarm.persistence.specs import dump_call
from agentfarm.persistence.tier import Finished, Finishing, Settled, Settling, Step, Taken

COMMIT: Final = wire.function(
    "commit",
    f"{HELD_TYPES} uuid uuid uuid text text bytea text {CHECKPOINT_TYPES} {WRITE_TYPES}"
    " uuid uuid[] text[] text[] bytea[] bool int4 bool bool[] text jsonb uuid bool",
)
SETTLE: Final = wire.procedure(
    "settle", f"{HELD_TYPES} uuid text text bool bytea text {WRITE_TYPES} bool bool bool bool", answers=8
)
REST_OF_WAVE: Final = wire.function("rest_of_wave", "uuid uuid uuid int4")
RETRY_LATER: Final = wire.function("retry_later", f"{HELD_TYPES} text bytea int4 interval")
LOAD_STEP: Final = wire.function("load_step", "uuid uuid uuid uuid uuid")


def status_of(result: SegmentResult) -> Status | None:
    """The run's, if it is over. The error of a sibling ends it at once; what the others have finished stays."""
    return "error" if result.outcome == "error" else result.status


def width_of(result: SegmentResult) -> int:
    """How many of the next executions may be worked on at once."""
    return min(result.max_concurrency or len(result.next), len(result.next))


class PostgresTier:
    """The tier of every run that asks for no other. Has no state: where to write is the saver's."""

    def finish(self, saver: ExecutionSaver, result: SegmentResult, rows: SegmentRows, how: Finishing) -> Finished:
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
            *_next_params(result.next, next_at, saver.serde, how.build),
            wire.put_int4(width_of(result)),
            wire.put_bool(how.leases_next),
            None if how.sent is None else wire.put_bools(how.sent),
            wire.put_text(status_of(result)),
            wire.put_jsonb(orjson.dumps(how.error)) if how.error else None,
            UUID(result.root_run_id).bytes if result.root_run_id else None,
            wire.put_bool(how.waits),
        ]
        answer = saver.database.call(COMMIT, params)
        return Finished(
            forget=answer.flag("forget"),
            next_run=answer.find_uuid("next_run"),
            next_graph=answer.text("next_graph"),
            next_queue=answer.text("next_queue"),
            leased_fence=1 if how.leases_next else None,
        )

    def settle(self, saver: ExecutionSaver, result: SegmentResult, rows: SegmentRows, how: Settling) -> Settled:
        params = [
            *held_params(saver.held),
            saver.thread_id.bytes,
            wire.put_text(result.outcome),
            _error_type(result),
            wire.put_bool(result.took_scalar),
            rows.own,
            rows.own_path.encode(),
            *rows.write_params(),
            wire.put_bool(how.are_held),
            wire.put_bool(how.take_next),
            wire.put_bool(how.stops),
            wire.put_bool(how.waits),
        ]
        answer = saver.database.call(SETTLE, params)
        released, taken = answer.find_uuid("h_exec"), answer.find_uuid("n_exec")
        return Settled(
            released=None if released is None else (released, answer.text("h_node"), answer.text("h_queue")),
            taken=None
            if taken is None
            else Taken(taken, answer.number("n_fence"), answer.data("n_spec"), is_answered=answer.flag("taken")),
            advance_fence=None if answer.raw("s_fence") is None else answer.number("s_fence"),
        )

    def rest_of_wave(self, saver: ExecutionSaver, most: int) -> Sequence[tuple[UUID, str, str]]:
        held = saver.held
        params = [held.tenant_id.bytes, held.run_id.bytes, held.checkpoint_id.bytes, wire.put_int4(most)]
        answer = saver.database.call(REST_OF_WAVE, params, again=True)
        return [
            (answer.uuid("execution_id", at), answer.text("node", at), answer.text("queue", at))
            for at in range(answer.rows)
        ]

    def load_step(self, saver: ExecutionSaver, held: Held) -> Step:
        known = held.checkpoint_id.bytes if saver.head else None
        params = [held.tenant_id.bytes, held.run_id.bytes, saver.thread_id.bytes, held.checkpoint_id.bytes, known]
        answer = saver.database.call(LOAD_STEP, params, again=True)
        head = saver.head or make_head(answer.data("body"), answer.items("blobs"))
        return Step(head, writes_of(answer), settled_of(answer))

    def retry_later(self, saver: ExecutionSaver, result: SegmentResult, call: NodeCall) -> None:
        delay = wire.put_seconds(max(0.0, result.retry_in))
        spec, tries = dump_call(call, saver.serde), wire.put_int4(call.tries)
        params = [*held_params(saver.held), _error_type(result), spec, tries, delay]
        saver.database.call(RETRY_LATER, params)


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


def _error_type(result: SegmentResult) -> wire.Param:
    return type(result.error).__name__.encode() if result.error is not None else None


def writes_of(answer: wire.Answer) -> list[WriteRow]:
    columns = (answer.items(name) for name in ("w_owner", "w_task", "w_idx", "w_path", "w_body"))
    return [
        WriteRow(UUID(bytes=owner), UUID(bytes=task), int.from_bytes(idx, signed=True), path.decode(), body)
        for owner, task, idx, path, body in zip(*columns, strict=True)
    ]


def settled_of(answer: wire.Answer) -> Mapping[str, str]:
    settled: dict[str, str] = orjson.loads(answer.raw("settled") or b"{}")
    return settled


POSTGRES: Final = PostgresTier()
