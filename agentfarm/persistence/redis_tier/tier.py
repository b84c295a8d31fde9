"""The tier of a run that Redis moves (persistence/tier.py): claim, commit, settle and advance are one script each.

It does what nearly every commit of a conversation does. What is rare is Postgres' alone, so that it is written, and
proved, once: a run that fails, a node that is tried again later, a state too large for scripts. Then the run is
recalled, this worker keeps its lease on what it has executed, and commits there.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast
from uuid import UUID

from agentfarm.engine.steps import NodeCall, SegmentResult
from agentfarm.errors import LeaseLost, RedisTierUnavailable, StoreUnavailable
from agentfarm.messages import at_build
from agentfarm.persistence.bodies import ORDINARY, WriteRow
from agentfarm.persistence.commits import POSTGRES, status_of, width_of
from agentfarm.persistence.execution_saver import ExecutionSaver
from agentfarm.persistence.leases import Held
from agentfarm.persistence.redis_tier.entries import Draft
from agentfarm.persistence.redis_tier.leases import RedisHeld
from agentfarm.persistence.redis_tier.scripts import Place, RedisScripts, Siblings, dump_row, name_of
from agentfarm.persistence.redis_tier.write_behind import WriteBehind
from agentfarm.persistence.segment_rows import SegmentRows
from agentfarm.persistence.specs import dump_call
from agentfarm.persistence.tier import Finished, Finishing, Settled, Settling, Step, Taken

if TYPE_CHECKING:
    from agentfarm.persistence.redis_tier.saver import RedisSaver

logger = logging.getLogger(__name__)

#: Bytes of new state in one commit. More keeps everybody else's scripts waiting, and Postgres is no slower with it.
MAX_BYTES: Final = 1 << 20

#: A commit is asked for so often. It carries its id, so that one whose answer got lost is not made twice.
TRIES: Final = 2
PAUSE_SECONDS: Final = 0.05


class RedisTier:
    """One a process."""

    def __init__(self, scripts: RedisScripts, behind: WriteBehind) -> None:
        self.scripts = scripts
        self.behind = behind

    # ----------------------------------------------------------------------- Tier

    def finish(self, saver: ExecutionSaver, result: SegmentResult, rows: SegmentRows, how: Finishing) -> Finished:
        here = cast("RedisSaver", saver)
        made = _Finish.of(here, result, rows, build=how.build)
        if made is None or made.draft.size > MAX_BYTES:
            self._adopt(here)
            return POSTGRES.finish(saver, result, rows, how)
        token = new_token() if how.leases_next else None
        lease = {"lease": str(token) if token else "", "sent": list(how.sent or ())}
        header = {**made.header, **here.saved_header, **lease}
        leases = False

        def ask() -> str:
            nonlocal leases
            verdict, leases = self.scripts.finish(here.place, here.held, header, made.parts)
            return verdict

        if self._commit(here, ask) == "adopted":
            return POSTGRES.finish(saver, result, rows, how)
        if not made.is_over:
            self.behind.touch(here.place)
            return Finished(leased_fence=token if leases else None)
        return self._end(here.place)

    def settle(self, saver: ExecutionSaver, result: SegmentResult, rows: SegmentRows, how: Settling) -> Settled:
        here = cast("RedisSaver", saver)
        draft = _draft(here, result, rows)
        if result.took_scalar:
            draft.set_answered()
        if draft.size > MAX_BYTES or any(ns for ns, _ in rows.checkpoints):
            self._adopt(here)
            return POSTGRES.settle(saver, result, rows, how)
        advance, taken = new_token(), new_token()
        writes = list(_writes_at(rows, here, here.held.checkpoint_id))
        header = {
            **here.saved_header,
            "id": new_id().hex,
            "out": result.outcome or "",
            "wn": [name_of(row) for row in writes],
            "taken": result.took_scalar,
            "adv": str(advance),
            "take": str(taken) if how.take_next else "",
            "stops": how.stops,
        }
        parts = [draft.to_bytes(), *(dump_row(row) for row in writes)]
        answers: list[Siblings] = []

        def ask() -> str:
            answers.append(self.scripts.settle(here.place, here.held, header, parts))
            return answers[-1].verdict

        verdict = self._commit(here, ask)
        if verdict == "adopted":
            return POSTGRES.settle(saver, result, rows, how)
        self.behind.touch(here.place)
        if verdict == "done":  # what it leased to this worker is in an answer that nobody has
            self._lose(here)
        done = answers[-1]
        return Settled(
            released=done.released,
            taken=Taken(done.taken, taken, done.call, is_answered=done.is_answered) if done.taken else None,
            advance_fence=advance if done.is_last else None,
        )

    def rest_of_wave(self, saver: ExecutionSaver, most: int) -> Sequence[tuple[UUID, str, str]]:
        here = cast("RedisSaver", saver)
        try:
            return self.scripts.rest_of_wave(here.place, here.held.checkpoint_id, most)
        except RedisTierUnavailable as error:
            raise StoreUnavailable from error

    def load_step(self, saver: ExecutionSaver, held: Held) -> Step:
        here = cast("RedisSaver", saver)
        try:
            head, writes, settled = self.scripts.step(here.place, held, has_head=here.head is not None)
        except RedisTierUnavailable as error:
            raise StoreUnavailable from error
        known = head or here.head
        if known is None:
            raise LeaseLost(execution_id=str(held.execution_id))
        return Step(known, writes, settled)

    def retry_later(self, saver: ExecutionSaver, result: SegmentResult, call: NodeCall) -> None:
        self._adopt(cast("RedisSaver", saver))
        POSTGRES.retry_later(saver, result, call)

    # ----------------------------------------------------------------------- while a node runs

    def put(self, saver: "RedisSaver", draft: Draft, *, is_whole: bool = False) -> bool:
        """Save at once. False: the run was recalled, and this is to be saved in Postgres.

        raises  LeaseLost; StoreUnavailable: Postgres lacks too much of the run, and does not answer
        """
        # One after the other, though LangGraph saves from several threads: whether all is there that was saved before
        # can be told of a line only.
        with saver.saving:
            if saver.tier is POSTGRES:
                return False
            if is_whole or draft.size > MAX_BYTES:
                self._adopt(saver)
                return False
            entry_id, body = new_id(), draft.to_bytes()
            header = {"id": entry_id.hex, **saver.saved_header}

            def ask() -> str:
                verdict, number = self.scripts.put(saver.place, saver.held, header, body)
                while verdict == "full":
                    self.behind.complete(saver.place)
                    verdict, number = self.scripts.put(saver.place, saver.held, header, body)
                saver.saved(number, entry_id)
                return verdict

            verdict = self._commit(saver, ask)
            if verdict == "done":  # … and of this one nobody has told the number
                self._lose(saver)
        if verdict == "adopted":
            return False
        self.behind.touch(saver.place)
        return True

    def bring(self, place: Place) -> None:
        """Before the execution reads elsewhere than where it stands: Postgres has it all."""
        self.behind.bring(place.tenant_id, place.home, place.thread_id)

    # ----------------------------------------------------------------------- how it goes

    def _commit(self, saver: "RedisSaver", ask: Callable[[], str]) -> str:
        """ok, done (it was made at the first try), or adopted: commit it in Postgres. Raises LeaseLost."""
        for attempt in range(1, TRIES + 1):
            try:
                verdict = ask()
            except RedisTierUnavailable as error:
                logger.warning("Redis did not take a commit", extra={"code": error.code, "attempt": attempt})
                if attempt < TRIES:
                    time.sleep(PAUSE_SECONDS)
                continue
            if verdict in ("ok", "done"):
                return verdict
            if verdict == "forgot":
                self._lose(saver)
            if verdict == "fenced" and attempt == 1:
                raise LeaseLost(execution_id=str(saver.held.execution_id))
            break  # lost, stale, over: whoever recalled the run may have left the lease to this worker
        self._adopt(saver)
        return "adopted"

    def _lose(self, saver: "RedisSaver") -> NoReturn:
        """Recall the run. Whatever Redis has leased of it to this worker unnoticed is given back with it: nobody works
        on that, and while this process lives nobody else would look for it. Raises LeaseLost."""
        self.behind.recall_later(cast("RedisHeld", saver.held))
        raise LeaseLost(execution_id=str(saver.held.execution_id))

    def _adopt(self, saver: "RedisSaver") -> None:
        """Recall the run, and keep the lease on what this worker executes.

        raises  LeaseLost: Postgres has never heard of this execution, or lacks what it has saved: it is executed again
                StoreUnavailable
        """
        with saver.saving:
            if saver.tier is POSTGRES:
                return
            fence = self.behind.recall(saver.place, keep=saver.held, needs=saver.saved_last)
            if fence is None:
                self.behind.when_recalled(saver.held)
                raise LeaseLost(execution_id=str(saver.held.execution_id))
            saver.adopted(fence)

    def _end(self, place: Place) -> Finished:
        """The run's last entry is in Redis: Postgres' now, since its end is told after this.

        Where Postgres is away it is told when it is back: what is in Redis is not lost with this worker.
        """
        self.behind.clean(place)
        try:
            done = self.behind.complete(place)
        except (StoreUnavailable, RedisTierUnavailable) as error:
            logger.warning("the end of a run is told later", extra={"code": error.code, "run_id": str(place.run_id)})
            self.behind.touch(place)
            return Finished(is_told=False)
        if done.ended is None:  # somebody else has handed it in, and tells
            return Finished(is_told=False)
        following = done.ready[0] if done.ready else None
        return Finished(
            forget=done.ended.forget_thread,
            next_run=following.run_id if following else None,
            next_graph=following.graph_id if following else "",
            next_queue=following.queue if following else "",
        )


def new_token() -> int:
    """Of a lease: no two are the same, also where a Redis has lost its memory and counts from the beginning."""
    return random.getrandbits(62)  # no secret


def new_id() -> UUID:
    return UUID(int=random.getrandbits(128))


# --------------------------------------------------------------------------- what a segment wrote, as Redis takes it


def _draft(saver: "RedisSaver", result: SegmentResult, rows: SegmentRows) -> Draft:
    """Its entry, without what is next."""
    draft, held = Draft(), saver.held
    for ns, made in rows.checkpoints:
        draft.add_checkpoint(ns, made)
    if rows.own is not None:
        draft.add_write("", held.checkpoint_id, _own(saver, rows))
    for ((ns, at), _), row in rows.writes.items():
        draft.add_write(ns, UUID(at), row)
    call = saver.call
    draft.set_done(
        held.checkpoint_id,
        held.execution_id,
        node=call.name if call else "__start__",
        queue=at_build((call.queue if call else None) or "", saver.build),
        alone=call.sole if call else True,
        outcome=result.outcome,
        error=type(result.error).__name__ if result.error is not None else None,
    )
    return draft


def _own(saver: "RedisSaver", rows: SegmentRows) -> WriteRow:
    execution = saver.held.execution_id
    return WriteRow(execution, execution, ORDINARY, rows.own_path, rows.own or b"")


def _writes_at(rows: SegmentRows, saver: "RedisSaver", at: UUID) -> Iterator[WriteRow]:
    """What of it stands at this checkpoint, and so will be read there."""
    if rows.own is not None and at == saver.held.checkpoint_id:
        yield _own(saver, rows)
    yield from rows.writes_at(at)


class _Finish:
    """A commit that says what is next: header and parts of lua/finish.lua."""

    def __init__(self, draft: Draft, header: dict[str, Any], parts: Sequence[bytes], *, is_over: bool) -> None:
        self.draft, self.header, self.parts, self.is_over = draft, header, parts, is_over

    @classmethod
    def of(cls, saver: "RedisSaver", result: SegmentResult, rows: SegmentRows, *, build: str) -> "_Finish | None":
        """None for what Redis does not do: a run that fails, a head that goes back, what has several heads."""
        status = status_of(result)
        next_at = UUID(result.next[0].checkpoint_id) if result.next else None
        new_head = rows.new_head or (next_at if next_at != saver.head_id else None)
        made = next((made for ns, made in reversed(rows.checkpoints) if ns == ""), None)
        if status == "error" or (new_head is not None and made is None):
            return None
        if next_at is not None and next_at != (new_head or saver.head_id):
            return None
        draft = _draft(saver, result, rows)
        blobs: dict[str, bytes] = {}
        if made is not None:
            for ns, one in rows.checkpoints:
                blobs.update(one.blobs if ns == "" else {})
            blobs = {key: blobs[key] for key in made.refs if key in blobs}
        head = new_head or saver.head_id
        writes = list(_writes_at(rows, saver, head)) if head is not None else []
        following = [
            (UUID(call.execution_id), call.name, at_build(call.queue or "", build), dump_call(call, saver.serde))
            for call in result.next
        ]
        if next_at is not None:
            draft.set_next(next_at, following, alone=result.next[0].sole, width=width_of(result))
        draft.set_after(
            head=made.checkpoint_id if made else None,
            status=status,
            root=UUID(result.root_run_id) if result.root_run_id else None,
        )
        header = {
            "id": new_id().hex,
            "hd": new_head.hex if new_head else "",
            "rf": list(made.refs) if made else [],
            "nb": list(blobs),
            "wn": [name_of(row) for row in writes],
            "at": next_at.hex if next_at else "",
            "nx": [one.hex for one, _, _, _ in following],
            "wd": width_of(result),
            "over": status is not None,
        }
        parts = [draft.to_bytes(), made.body if made else b"", *blobs.values(), *(dump_row(row) for row in writes)]
        for _, node, queue, call in following:
            parts += [call, f"{node}\0{queue}".encode()]
        return cls(draft, header, parts, is_over=status is not None)
