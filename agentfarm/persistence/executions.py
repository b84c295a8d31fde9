"""Node executions: claimed, committed, settled. Fits flow's port `Executions`; the SQL is sql/hot.sql.

Two round trips a node. The claim (claims.py) takes the lease and answers with all that the node needs; the commit asks
for the fence and makes everything durable that the segment wrote, or nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.conf import Settings
from agentfarm.engine.steps import NodeCall, SegmentResult
from agentfarm.errors import FanOutTooWide, HeadMoved, LeaseLost, StateTooLarge, StoreUnavailable
from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode, at_build
from agentfarm.persistence import wire
from agentfarm.persistence.bodies import Head
from agentfarm.persistence.claims import Claims, saver_of
from agentfarm.persistence.commits import status_of, width_of
from agentfarm.persistence.database import Databases
from agentfarm.persistence.execution_keys import message_of, start_message
from agentfarm.persistence.execution_saver import ExecutionSaver
from agentfarm.persistence.leases import Held, WorkerLease
from agentfarm.persistence.redis_tier.claims import RedisClaims
from agentfarm.persistence.run_errors import describe_error
from agentfarm.persistence.segment_rows import SegmentRows
from agentfarm.persistence.serde import serde_of
from agentfarm.persistence.specs import load_call
from agentfarm.persistence.tier import Finishing, Settling, Taken
from agentfarm.records import Claimed, Committed, Ended, Refused

OPEN_AT_HEAD: Final = wire.function("open_at_head", "uuid uuid")


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
        redis: RedisClaims | None = None,
    ) -> None:
        self.claims = Claims(databases, serde_for, lease, settings, redis)
        self._max_bytes, self._max_width = settings.max_state_bytes, settings.max_fan_out

    def claim(self, message: ExecuteNode) -> Claimed | Refused:
        """Take the lease. Raises StoreUnavailable."""
        return self.claims.claim(message)

    def know_types(self, claimed: Claimed, graph: Any) -> None:
        """The graph was made for this claim: its values are read and written as the classes that this graph names."""
        saver = saver_of(claimed)
        saver.use_serde(serde_of(graph, lossy=saver.is_lossy))

    def release(self, claimed: Claimed) -> None:
        """Give a claim back without a commit: another worker may have it at once. Never raises."""
        self.claims.release(claimed)

    def release_all(self) -> None:
        """The same for all that this process works on, at its end."""
        self.claims.release_all()

    # ----------------------------------------------------------------------- commit

    def commit(
        self, claimed: Claimed, result: SegmentResult, *, lease_next: bool = False, wake: int | None = None
    ) -> Committed:
        """Make a segment durable, or nothing of it.

        lease_next  lease the first of the next executions to this worker, if it is of the same queue; of a sibling in a
                    wave: the next one that has no message
        wake        the next executions are a wave: so many of them, beside the leased one, have a message
        raises      LeaseLost; ValueLost, StateTooLarge, FanOutTooWide and StoreFailed, after which an error may be
                    committed instead;
                    StoreUnavailable: it may have been carried out; given back is the claim if it was not, else what
                    it has leased to this worker
        """
        saver = saver_of(claimed)
        saver.forget_warnings()
        try:
            with self.claims.committing(claimed):
                committed = self._commit_or_end(claimed, saver, result, lease_next=lease_next, wake=wake)
        except StoreUnavailable:
            self.claims.lost_answer(claimed)
            raise
        except LeaseLost:
            self.claims.done(claimed)
            raise
        self.claims.done(claimed)
        saver.note_warnings()
        return committed

    def _commit_or_end(
        self, claimed: Claimed, saver: ExecutionSaver, result: SegmentResult, *, lease_next: bool, wake: int | None
    ) -> Committed:
        try:
            return self._commit(claimed, saver, result, lease_next=lease_next, wake=wake)
        except HeadMoved as error:
            # The lease is ours, and yet the head is not where it was: somebody wrote to the thread past its run. Nobody
            # can go on with that, so the run ends here and says why.
            moved = SegmentResult(status="error", error=error, root_run_id=result.root_run_id)
            return self._commit(claimed, saver, moved, lease_next=False, wake=None)

    def _commit(
        self, claimed: Claimed, saver: ExecutionSaver, result: SegmentResult, *, lease_next: bool, wake: int | None
    ) -> Committed:
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
        if rows.size > self._max_bytes:
            raise StateTooLarge(size=rows.size, most=self._max_bytes)
        if len(result.next) > self._max_width:
            raise FanOutTooWide(width=len(result.next), most=self._max_width)
        # Under an id that Postgres has lost, the next one would be taken over while it is executed.
        lease_next = lease_next and self.claims.worker.is_known_as(saver.held.worker)
        if result.outcome is None or result.outcome == "error":
            return self._finish(claimed, saver, result, rows, lease_next=lease_next, wake=wake)
        return self._settle(claimed, saver, result, rows, take_next=lease_next)

    def _finish(
        self,
        claimed: Claimed,
        saver: ExecutionSaver,
        result: SegmentResult,
        rows: SegmentRows,
        *,
        lease_next: bool,
        wake: int | None,
    ) -> Committed:
        """The segment decides what is next, or ends the run."""
        message, status = claimed.message, status_of(result)
        if status is None and not result.next:
            raise ValueError("a segment neither ends its run nor says what is next")
        error = describe_error(result.error, claimed) if status == "error" else None
        next_head = rows.head_at(UUID(result.next[0].checkpoint_id)) if result.next else None
        # A node that names another queue is for the workers of that queue. A start was taken from the default one.
        is_for_us = bool(result.next) and result.next[0].queue == (claimed.call.queue if claimed.call else None)
        leases_next = lease_next and is_for_us and next_head is not None
        # A superstep that is entered again has writes of each sibling, such as its answers: a claim brings them along.
        is_new = bool(result.next) and rows.new_head == UUID(result.next[0].checkpoint_id)
        may_wait = leases_next and wake is not None and is_new
        sent = _sent(result.next, width_of(result), wake or 0) if may_wait else None
        waits = claimed.run.options.waits_for_disk
        done = saver.tier.finish(saver, result, rows, Finishing(message.build, leases_next, sent, error, waits))
        message = saver.addressed(message)
        ready = [
            message_of(message, claimed.run, call)
            for at, call in enumerate(result.next[: width_of(result)])
            if sent is None or sent[at]
        ]
        if done.next_run is not None:
            ready.append(
                start_message(message.tenant_id, message.home, done.next_run, done.next_graph, done.next_queue)
            )
        if status is not None:
            self.claims.forget_run(message, saver.at_id)
            if not done.is_told:
                return Committed(ready=tuple(ready))
            ended = Ended(message.tenant_id, message.home, message.run_id, saver.thread_id, status, error, done.forget)
            return Committed(ready=tuple(ready), ended=ended)
        if next_head is not None:
            self.claims.replace_head(message, saver.at_id, UUID(result.next[0].checkpoint_id), next_head)
        if done.leased_fence is None or next_head is None:
            return Committed(ready=tuple(ready))
        held = saver.lease_of(ready[0], done.leased_fence)
        with self.claims.giving_back(held):
            leased = self._leased(claimed, saver, rows, ready[0], held, result.next[0], next_head)
            leased.in_wave = sent is not None
        return Committed(ready=tuple(ready[1:]), leased=leased)

    def _leased(
        self,
        claimed: Claimed,
        saver: ExecutionSaver,
        rows: SegmentRows,
        message: ExecuteNode,
        held: Held,
        call: NodeCall,
        head: Head,
    ) -> Claimed:
        """The next execution, which the commit leased to this worker: what its claim would bring is here."""
        at_id = message.checkpoint_id
        here = dict(saver.writes) if at_id == saver.at_id else {}
        here.update({row.key: row for row in rows.writes_at(at_id)})
        mine = [row for row in here.values() if row.owner in (message.execution_id, ZERO)]
        following = saver.next_saver(held, at_id=at_id, head=head, writes=mine)
        if claimed.kind == "start" and at_id == rows.new_head and not saver.is_lossy:
            following.values = rows.last_conversations
        return self.claims.lease(message, following, claimed, call)

    def _settle(
        self, claimed: Claimed, saver: ExecutionSaver, result: SegmentResult, rows: SegmentRows, *, take_next: bool
    ) -> Committed:
        """One of several siblings. The last one gets the advance."""
        message = claimed.message
        stops, waits = claimed.in_wave and not take_next, claimed.run.options.waits_for_disk
        how = Settling(bool(result.max_concurrency), take_next, stops, waits)
        settled = saver.tier.settle(saver, result, rows, how)
        message = saver.addressed(message)
        ready = () if settled.released is None else (_sibling(message, *settled.released),)
        if settled.taken is not None:
            return Committed(ready=ready, leased=self._taken(claimed, saver, settled.taken))
        if settled.advance_fence is None:
            return Committed(ready=ready)
        failed = result.error if result.outcome == "invalid" else None
        return Committed(ready=ready, advance=self._elected(claimed, saver, settled.advance_fence, failed))

    def _taken(self, claimed: Claimed, saver: ExecutionSaver, taken: Taken) -> Claimed:
        """A sibling that this worker goes on with. Of the writes there it gets the run's own: it has none itself, since
        what was lost, is tried again or is of a superstep that was entered again is claimed, not taken."""
        message = saver.addressed(replace(claimed.message, execution_id=taken.execution_id))
        held = saver.lease_of(message, taken.fence)
        with self.claims.giving_back(held):
            call = load_call(taken.spec, saver.serde)
            if call is not None and taken.is_answered:
                call = replace(call, answered=False)
            message = replace(message, queue=at_build((call.queue if call else None) or "", message.build))
            shared = [row for row in saver.writes.values() if row.owner == ZERO]
            next_saver = saver.next_saver(held, at_id=saver.at_id, head=saver.head, writes=shared)
            leased = self.claims.lease(message, next_saver, claimed, call)
            leased.in_wave = True
            return leased

    def _elected(self, claimed: Claimed, saver: ExecutionSaver, fence: int, failed: BaseException | None) -> Claimed:
        """This worker advances the superstep, under a lease of its own."""
        advance = replace(claimed.message, execution_id=ZERO, node="", queue=at_build("", claimed.message.build))
        message = saver.addressed(advance)
        held = saver.lease_of(message, fence)
        with self.claims.giving_back(held):
            step = saver.tier.load_step(saver, held)
            advancing = saver.next_saver(held, at_id=saver.at_id, head=step.head, writes=step.writes)
            return self.claims.lease(message, advancing, claimed, claimed.call, settled=step.settled, failed=failed)

    def _retry_later(self, claimed: Claimed, saver: ExecutionSaver, result: SegmentResult) -> Committed:
        """Nothing is saved but that it is to be tried again. Published now if it is due now, else by the healer."""
        call = result.call or claimed.call
        if call is None:
            raise ValueError("a retry of nothing")
        saver.tier.retry_later(saver, result, call)
        message = saver.addressed(claimed.message)
        again = (message_of(message, claimed.run, call),) if result.retry_in <= 0 else ()
        return Committed(ready=(*again, *self.rest_of_wave(claimed)))  # another takes this worker's part

    def rest_of_wave(self, claimed: Claimed, most: int = 1) -> tuple[ExecuteNode, ...]:
        """Messages for so many siblings that wait without one, of an execution in a wave. Raises StoreUnavailable."""
        if not claimed.in_wave:
            return ()
        saver = saver_of(claimed)
        message = saver.addressed(claimed.message)
        return tuple(_sibling(message, *place) for place in saver.tier.rest_of_wave(saver, most))

    # ----------------------------------------------------------------------- after a delivery that came again

    def open_at_head(self, message: ExecuteNode) -> tuple[ExecuteNode, ...]:
        """The ready executions of a run, for a message that came again. Raises StoreUnavailable."""
        if message.epoch and self.claims.redis is not None:
            return self.claims.redis.ready(message)
        database = self.claims.databases.at(message.home)
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


def _sibling(message: ExecuteNode, execution_id: UUID, node: str, queue: str) -> ExecuteNode:
    return replace(message, execution_id=execution_id, node=node, queue=queue)


def _sent(calls: Sequence[NodeCall], width: int, wake: int) -> list[bool]:
    """Which executions of a wave have a message: the first, which is leased, and so many others, as far from each other
    as may be in the order in which they are taken, so that workers do not meet."""
    order = sorted(range(width), key=lambda at: calls[at].execution_id)
    first = order.index(0)
    chosen = {order[(first + place * width // (wake + 1)) % width] for place in range(wake + 1)}
    return [at in chosen for at in range(len(calls))]
