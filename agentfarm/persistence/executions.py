"""Node executions: claimed, committed, settled. Fits flow's port `Executions`; the SQL is sql/hot.sql.

Two round trips a node. The claim takes the lease (fence + 1) and answers with all that the node needs; the commit asks
for the fence and makes everything durable that the segment wrote, or nothing. A worker keeps specs of runs and
checkpoints as bytes, so that the next claim of a thread which stays here need not bring them.

A lease that nobody works on would stop its run for ever. So whatever leaves this module without a commit (an exception,
a claim that nobody used) is given back: by `release`, or when the claim's saver is collected.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, cast
from uuid import UUID

import orjson
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.conf import Settings
from agentfarm.engine.steps import NodeCall, RunSpec, SegmentResult
from agentfarm.errors import HeadMoved, LeaseLost, StoreUnavailable
from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode
from agentfarm.persistence import commits, wire
from agentfarm.persistence.bodies import Head, WriteRow, make_head
from agentfarm.persistence.caches import Cache
from agentfarm.persistence.database import Database, Databases
from agentfarm.persistence.execution_keys import head_key, held_of, key_of, message_of, run_key, start_message
from agentfarm.persistence.execution_saver import ExecutionSaver
from agentfarm.persistence.leases import Held, WorkerLease
from agentfarm.persistence.run_errors import describe_error
from agentfarm.persistence.segment_rows import SegmentRows
from agentfarm.persistence.specs import load_call, load_spec
from agentfarm.persistence.working import Working
from agentfarm.records import Claimed, Committed, Ended, Refused

CLAIM: Final = wire.function("claim", "uuid uuid uuid uuid int8 interval int4 bool bool uuid")
CLAIM_ADVANCE: Final = wire.function("claim_advance", "uuid uuid uuid int8 interval int4 bool bool uuid")
LOAD_STEP: Final = wire.function("load_step", "uuid uuid uuid uuid uuid")
OPEN_AT_HEAD: Final = wire.function("open_at_head", "uuid uuid")

#: What a process keeps of runs' specs and of checkpoints: a hit saves the read, and Postgres the blobs.
RUN_CACHE_BYTES: Final = 16 << 20
HEAD_CACHE_BYTES: Final = 64 << 20


class PostgresExecutions:
    """serde_for  the serializer of a graph's threads, by the graph's id
    lease      of this process: under whose id it claims
    """

    def __init__(
        self,
        databases: Databases,
        serde_for: Callable[[str], SerializerProtocol],
        lease: WorkerLease,
        settings: Settings,
    ) -> None:
        self.databases = databases
        self.serde_for = serde_for
        self.lease = lease
        self._lease_seconds = wire.put_seconds(settings.lease_seconds)
        self._max_attempts = wire.put_int4(settings.max_attempts)
        self._runs: Cache[RunSpec] = Cache(RUN_CACHE_BYTES)
        self._heads: Cache[Head] = Cache(HEAD_CACHE_BYTES)
        self._working = Working()

    # ----------------------------------------------------------------------- claim

    def claim(self, message: ExecuteNode) -> Claimed | Refused:
        """Take the lease. Raises StoreUnavailable."""
        key = key_of(message)
        is_idle = self._working.begin(key)
        try:
            claimed = self._claim(message, retake=is_idle)
        except BaseException:
            self._working.end(key)
            raise
        if isinstance(claimed, Refused):
            self._working.end(key)
        return claimed

    def _claim(self, message: ExecuteNode, *, retake: bool) -> Claimed | Refused:
        worker = self.lease.worker_id()
        database = self.databases.at(message.home)
        run = self._runs.get(run_key(message))
        head = None if message.kind == "start" else self._heads.get(head_key(message, message.checkpoint_id))
        is_advance = message.kind == "advance"
        params: list[wire.Param] = [
            message.tenant_id.bytes,
            message.run_id.bytes,
            message.checkpoint_id.bytes,
            *([] if is_advance else [message.execution_id.bytes]),
            wire.put_int8(worker),
            self._lease_seconds,
            self._max_attempts,
            wire.put_bool(retake),
            wire.put_bool(run is not None),
            message.checkpoint_id.bytes if head else None,
        ]
        answer = database.call(CLAIM_ADVANCE if is_advance else CLAIM, params, again=True)
        verdict = answer.text("verdict")
        if verdict != "ok":
            return Refused("busy" if verdict == "busy" else "gone")
        held = held_of(message, answer.number("fence"), worker)
        try:
            return self._claimed(database, message, held, answer, run, head)
        except BaseException:
            self.lease.give_back(held)
            raise

    def _claimed(
        self,
        database: Database,
        message: ExecuteNode,
        held: Held,
        answer: wire.Answer,
        run: RunSpec | None,
        head: Head | None,
    ) -> Claimed:
        serde = self.serde_for(answer.text("graph"))
        if run is None:
            spec = answer.data("run_spec")
            run = load_spec(spec, serde)
            self._runs.put(run_key(message), run, len(spec))
        call = load_call(answer.data("spec"), serde)
        if message.kind == "node" and call is not None and answer.flag("taken"):
            call = replace(call, answered=False)  # a sibling has got the answer that has no id
        at_id = answer.find_uuid("head") if message.kind == "start" else message.checkpoint_id
        if head is None and at_id is not None:
            head = self._keep(message, at_id, make_head(answer.data("body"), answer.items("blobs")))
        saver = ExecutionSaver(
            database, held, answer.uuid("thread"), serde, at_id=at_id, head=head, writes=_writes(answer)
        )
        settled = _settled(answer) if message.kind == "advance" else {}
        return self._hand_out(message, saver, run, call, attempt=answer.number("attempts"), settled=settled)

    def _hand_out(
        self,
        message: ExecuteNode,
        saver: ExecutionSaver,
        run: RunSpec,
        call: NodeCall | None,
        *,
        attempt: int,
        settled: Mapping[str, str] | None = None,
        failed: BaseException | None = None,
    ) -> Claimed:
        """A claim that is watched: whoever drops it without a commit drops its saver, too."""
        saver.when_dropped = weakref.finalize(saver, self._dropped, key_of(message), saver.held)
        saver.when_dropped.atexit = False
        return Claimed(
            message=replace(message, graph_id=run.graph_id, node=call.name if call and message.kind == "node" else ""),
            kind=message.kind,
            thread_id=saver.thread_id,
            run=run,
            call=call,
            fence=saver.held.fence,
            attempt=attempt,
            saver=saver,
            settled=settled or {},
            failed=failed,
        )

    def _dropped(self, key: bytes, held: Held) -> None:
        """Called by the garbage collector, in the middle of anything: takes no lock."""
        self._working.end_later(key)
        self.lease.give_back(held, at_once=False)

    def release(self, claimed: Claimed) -> None:
        """Give a claim back without a commit: another worker may have it at once. Never raises."""
        saver = _saver(claimed)
        if self._is_open(saver):
            self._working.end(key_of(claimed.message))
            self.lease.give_back(saver.held)

    def _is_open(self, saver: ExecutionSaver) -> bool:
        """Whether nobody has committed it or given it back; from now on somebody has."""
        return saver.when_dropped is not None and saver.when_dropped.detach() is not None

    # ----------------------------------------------------------------------- commit

    def commit(self, claimed: Claimed, result: SegmentResult, *, lease_next: bool = False) -> Committed:
        """Make a segment durable, or nothing of it.

        lease_next  lease the first of the next executions to this worker
        raises      LeaseLost; ValueLost and StoreFailed, after which an error may be committed instead;
                    StoreUnavailable: it may have been carried out, and is given back if it was not
        """
        saver = _saver(claimed)
        try:
            committed = self._commit(claimed, saver, result, lease_next=lease_next)
        except HeadMoved as error:
            # The lease is ours, and yet the head is not where it was: somebody wrote to the thread past its run. Nobody
            # can go on with that, so the run ends here and says why.
            moved = SegmentResult(status="error", error=error, root_run_id=result.root_run_id)
            committed = self._commit(claimed, saver, moved, lease_next=False)
        except StoreUnavailable:
            self.release(claimed)
            raise
        except LeaseLost:
            self._done(claimed, saver)
            raise
        self._done(claimed, saver)
        return committed

    def _done(self, claimed: Claimed, saver: ExecutionSaver) -> None:
        if self._is_open(saver):
            self._working.end(key_of(claimed.message))

    def _commit(self, claimed: Claimed, saver: ExecutionSaver, result: SegmentResult, *, lease_next: bool) -> Committed:
        if result.outcome == "retry":
            return self._retry_later(claimed, saver, result)
        rows = SegmentRows(
            saver.serde,
            at_id=saver.at_id,
            owner=saver.held.execution_id if claimed.kind == "node" else None,
            head=saver.head,
            parts=saver.parts if result.ops else None,
        )
        rows.add(result.ops)
        if result.outcome is None or result.outcome == "error":
            return self._finish(claimed, saver, result, rows, lease_next=lease_next)
        return self._settle(claimed, saver, result, rows, take_next=lease_next)

    def _finish(
        self, claimed: Claimed, saver: ExecutionSaver, result: SegmentResult, rows: SegmentRows, *, lease_next: bool
    ) -> Committed:
        """The segment decides what is next, or ends the run."""
        message, status = claimed.message, commits.status_of(result)
        if status is None and not result.next:
            raise ValueError("a segment neither ends its run nor says what is next")
        error = describe_error(result.error, claimed) if status == "error" else None
        next_head = rows.head_at(UUID(result.next[0].checkpoint_id)) if result.next else None
        leases_next = lease_next and next_head is not None
        answer = commits.commit(saver, result, rows, leases_next=leases_next, error=error)
        ready = [message_of(message, claimed.run, call) for call in result.next[: commits.width_of(result)]]
        if (next_run := answer.find_uuid("next_run")) is not None:
            ready.append(start_message(message.tenant_id, message.home, next_run, answer.text("next_graph")))
        if status is not None:
            self._runs.drop(run_key(message))
            forget = answer.flag("forget")
            ended = Ended(message.tenant_id, message.home, message.run_id, saver.thread_id, status, error, forget)
            return Committed(ready=tuple(ready), ended=ended)
        if next_head is not None:
            self._replace(message, saver.at_id, UUID(result.next[0].checkpoint_id), next_head)
        if not leases_next or next_head is None:
            return Committed(ready=tuple(ready))
        leased = self._leased(claimed, saver, rows, ready[0], result.next[0], next_head)
        return Committed(ready=tuple(ready[1:]), leased=leased)

    def _leased(
        self,
        claimed: Claimed,
        saver: ExecutionSaver,
        rows: SegmentRows,
        message: ExecuteNode,
        call: NodeCall,
        head: Head,
    ) -> Claimed:
        """The next execution, which the commit leased to this worker: what its claim would bring is here."""
        at_id = message.checkpoint_id
        here = dict(saver.writes) if at_id == saver.at_id else {}
        here.update({row.key: row for row in rows.writes_at(at_id)})
        mine = [row for row in here.values() if row.owner in (message.execution_id, ZERO)]
        held = held_of(message, 1, saver.held.worker)
        next_saver = ExecutionSaver(
            saver.database, held, saver.thread_id, saver.serde, at_id=at_id, head=head, writes=mine
        )
        self._working.begin(key_of(message))
        return self._hand_out(message, next_saver, claimed.run, call, attempt=1)

    def _settle(
        self, claimed: Claimed, saver: ExecutionSaver, result: SegmentResult, rows: SegmentRows, *, take_next: bool
    ) -> Committed:
        """One of several siblings. The last one gets the advance."""
        message = claimed.message
        are_held = bool(claimed.run.config.get("max_concurrency"))
        answer = commits.settle(saver, result, rows, are_held=are_held, take_next=take_next)
        ready: tuple[ExecuteNode, ...] = ()
        if (released := answer.find_uuid("h_exec")) is not None:
            node, queue = answer.text("h_node"), answer.text("h_queue")
            ready = (replace(message, execution_id=released, node=node, queue=queue),)
        if (taken := answer.find_uuid("n_exec")) is not None:
            return Committed(ready=ready, leased=self._taken(claimed, saver, answer, taken))
        if answer.raw("s_fence") is None:
            return Committed(ready=ready)
        failed = result.error if result.outcome == "invalid" else None
        return Committed(ready=ready, advance=self._elected(claimed, saver, answer.number("s_fence"), failed))

    def _taken(self, claimed: Claimed, saver: ExecutionSaver, answer: wire.Answer, execution_id: UUID) -> Claimed:
        """A sibling that this worker goes on with. Of the writes there it gets the run's own: those of its own could
        only be of a lost attempt, and such an execution is claimed, not taken."""
        call = load_call(answer.data("n_spec"), saver.serde)
        if call is not None and answer.flag("taken"):
            call = replace(call, answered=False)
        message = replace(claimed.message, execution_id=execution_id, queue=(call.queue if call else None) or "")
        held = held_of(message, answer.number("n_fence"), saver.held.worker)
        shared = [row for row in saver.writes.values() if row.owner == ZERO]
        next_saver = ExecutionSaver(
            saver.database, held, saver.thread_id, saver.serde, at_id=saver.at_id, head=saver.head, writes=shared
        )
        self._working.begin(key_of(message))
        return self._hand_out(message, next_saver, claimed.run, call, attempt=answer.number("n_attempts"))

    def _elected(self, claimed: Claimed, saver: ExecutionSaver, fence: int, failed: BaseException | None) -> Claimed:
        """This worker advances the superstep, under a lease of its own."""
        message = replace(claimed.message, execution_id=ZERO, node="", queue="")
        held = held_of(message, fence, saver.held.worker)
        known = message.checkpoint_id.bytes if saver.head else None
        params: list[wire.Param] = [message.tenant_id.bytes, message.run_id.bytes, saver.thread_id.bytes]
        try:
            answer = saver.database.call(LOAD_STEP, [*params, message.checkpoint_id.bytes, known], again=True)
            head = saver.head or make_head(answer.data("body"), answer.items("blobs"))
            advancing = ExecutionSaver(
                saver.database, held, saver.thread_id, saver.serde,
                at_id=saver.at_id, head=head, writes=_writes(answer),
            )  # fmt: skip
        except BaseException:
            self.lease.give_back(held)
            raise
        self._working.begin(key_of(message))
        return self._hand_out(
            message, advancing, claimed.run, claimed.call, attempt=1, settled=_settled(answer), failed=failed
        )

    def _retry_later(self, claimed: Claimed, saver: ExecutionSaver, result: SegmentResult) -> Committed:
        """Nothing is saved but that it is to be tried again. Published now if it is due now, else by the healer."""
        call = result.call or claimed.call
        if call is None:
            raise ValueError("a retry of nothing")
        commits.retry_later(saver, result, call)
        is_due = result.retry_in <= 0
        return Committed(ready=(message_of(claimed.message, claimed.run, call),) if is_due else ())

    # ----------------------------------------------------------------------- after a delivery that came again

    def open_at_head(self, message: ExecuteNode) -> tuple[ExecuteNode, ...]:
        """The ready executions of a run, for a message that came again. Raises StoreUnavailable."""
        database = self.databases.at(message.home)
        answer = database.call(OPEN_AT_HEAD, [message.tenant_id.bytes, message.run_id.bytes], again=True)
        return tuple(
            replace(
                message,
                checkpoint_id=answer.uuid("checkpoint_id", at),
                execution_id=answer.uuid("execution_id", at),
                graph_id=answer.text("graph_id", at),
                node=answer.text("node", at),
                queue=answer.text("queue", at),
            )
            for at in range(answer.rows)
        )

    # ----------------------------------------------------------------------- caches

    def _keep(self, message: ExecuteNode, checkpoint_id: UUID, head: Head) -> Head:
        self._heads.put(head_key(message, checkpoint_id), head, head.size)
        return head

    def _replace(self, message: ExecuteNode, gone: UUID | None, checkpoint_id: UUID, head: Head) -> None:
        if gone is not None and gone != checkpoint_id:
            self._heads.drop(head_key(message, gone))
        self._keep(message, checkpoint_id, head)


def _saver(claimed: Claimed) -> ExecutionSaver:
    return cast("ExecutionSaver", claimed.saver)


# --------------------------------------------------------------------------- answers


def _writes(answer: wire.Answer) -> list[WriteRow]:
    columns = (answer.items(name) for name in ("w_owner", "w_task", "w_idx", "w_path", "w_body"))
    return [
        WriteRow(UUID(bytes=owner), UUID(bytes=task), int.from_bytes(idx, signed=True), path.decode(), body)
        for owner, task, idx, path, body in zip(*columns, strict=True)
    ]


def _settled(answer: wire.Answer) -> Mapping[str, str]:
    settled: dict[str, str] = orjson.loads(answer.raw("settled") or b"{}")
    return settled
