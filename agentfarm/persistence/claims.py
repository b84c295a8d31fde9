"""Claims: the right to execute, with all that the execution needs, and its way back.

A lease that nobody works on would stop its run for ever. So every claim is watched: what is neither committed nor given
back is found when the claim's saver is collected. What a commit does is executions.py's.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Final, cast
from uuid import UUID

from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm import clock
from agentfarm.conf import Settings
from agentfarm.engine.steps import NodeCall, RunSpec
from agentfarm.errors import StateUnreadable, StoreUnavailable
from agentfarm.messages import ExecuteNode
from agentfarm.persistence import wire
from agentfarm.persistence.bodies import Head, make_head
from agentfarm.persistence.caches import Cache
from agentfarm.persistence.commits import POSTGRES, settled_of, writes_of
from agentfarm.persistence.database import Database, Databases
from agentfarm.persistence.execution_keys import head_key, held_of, key_of, run_key
from agentfarm.persistence.execution_saver import ExecutionSaver
from agentfarm.persistence.leases import Held, LostAnswer, WorkerLease
from agentfarm.persistence.redis_tier.claims import Brought, RedisClaims
from agentfarm.persistence.redis_tier.leases import RedisHeld
from agentfarm.persistence.redis_tier.saver import RedisSaver
from agentfarm.persistence.specs import load_call, load_spec
from agentfarm.persistence.working import Working
from agentfarm.records import Claimed, Refused

CLAIM: Final = wire.function("claim", "uuid uuid uuid uuid int8 interval int4 bool bool uuid")
CLAIM_ADVANCE: Final = wire.function("claim_advance", "uuid uuid uuid int8 interval int4 bool bool uuid")

#: What a process keeps of runs' specs and of checkpoints: a hit saves the read, and Postgres the blobs.
RUN_CACHE_BYTES: Final = 16 << 20
HEAD_CACHE_BYTES: Final = 64 << 20

#: … and for how long it is kept unused. Another worker may have gone on with the run: then nobody asks for it again,
#: and a worker filled both caches with what was over. A node that takes longer costs its thread one more read.
IDLE_SECONDS: Final = 300.0

#: What an entry takes beyond its bytes: key, containers, objects' heads (388 bytes, tracemalloc, Python 3.11).
ENTRY_BYTES: Final = 400

#: What a decoded spec takes of each of its bytes (3.4, measured alike).
DECODED: Final = 4


class Claims:
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
        self.redis = redis
        self.databases = databases
        self.serde_for = serde_for
        self.worker = lease
        self._lease_seconds = wire.put_seconds(settings.lease_seconds)
        self._max_attempts = wire.put_int4(settings.max_attempts)
        self._runs: Cache[RunSpec] = Cache(RUN_CACHE_BYTES, idle_seconds=IDLE_SECONDS)
        self._heads: Cache[Head] = Cache(HEAD_CACHE_BYTES, idle_seconds=IDLE_SECONDS)
        self._working = Working()
        self._savers: weakref.WeakSet[ExecutionSaver] = weakref.WeakSet()  # of claims that may be open
        self._savers_lock = threading.Lock()  # a set that is added to meanwhile cannot be read
        if redis is not None:
            redis.renewal.holding = self._held_in_redis
            redis.behind.when_recalled = self._give_back_strays
        self._committing = Working()  # by run: what such a commit leases is in `_working` only at its end

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
        worker = self.worker.worker_id()
        if message.epoch:
            found = self._claim_in_redis(message, worker, retake=retake)
            if found is not None:
                return found
            message = message.in_postgres()
        return self._claim_in_postgres(message, worker, retake=retake)

    def _claim_in_redis(self, message: ExecuteNode, worker: int, *, retake: bool) -> Claimed | Refused | None:
        """None: the run is not there any more, as far as this message knows."""
        if self.redis is None:
            return None
        run = None if message.kind == "start" else self._runs.get(run_key(message))
        head = None if message.kind == "start" else self._heads.get(head_key(message, message.checkpoint_id))
        brought = self.redis.claim(message, worker, retake=retake, has_run=run is not None, has_head=head is not None)
        if not isinstance(brought, Brought):
            return brought
        with self.giving_back(brought.held):
            return self._claimed(message, brought, run, head)

    def _open_in_redis(
        self, message: ExecuteNode, worker: int, brought: Brought, epoch: int, *, retake: bool, asked_at: float
    ) -> Claimed | Refused:
        """The start of a run that is to be moved by Redis."""
        if self.redis is None:
            raise StoreUnavailable("This process does not know the Redis that moves this run.")
        opened = self.redis.open(message, worker, brought, epoch, asked_at=asked_at)
        if opened is None:  # it was opened before, by whoever got this message first, or was recalled
            again = message.in_redis(brought.thread_id, epoch)
            found = self._claim_in_redis(again, worker, retake=retake)
            return found if found is not None else self._claim_in_postgres(message, worker, retake=retake)
        with self.giving_back(opened.held):
            return self._claimed(message.in_redis(brought.thread_id, epoch), opened, None, None)

    def _claim_in_postgres(self, message: ExecuteNode, worker: int, *, retake: bool) -> Claimed | Refused:
        database = self.databases.at(message.home)
        run = None if message.kind == "start" else self._runs.get(run_key(message))
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
        asked_at = clock.monotonic_seconds()
        try:
            answer = database.call(CLAIM_ADVANCE if is_advance else CLAIM, params, again=True)
        except StoreUnavailable:
            self._give_back_strays(held_of(message, 0, worker))
            raise
        verdict = answer.text("verdict")
        if verdict == "redis":
            found = _brought(message, answer, 0, worker)
            epoch = answer.number("epoch")
            return self._open_in_redis(message, worker, found, epoch, retake=retake, asked_at=asked_at)
        if verdict != "ok":
            return Refused("busy" if verdict == "busy" else "gone")
        brought = _brought(message, answer, answer.number("fence"), worker)
        with self.giving_back(brought.held):
            return self._claimed(message, brought, run, head)

    def _claimed(self, message: ExecuteNode, brought: Brought, run: RunSpec | None, head: Head | None) -> Claimed:
        database, serde = self.databases.at(message.home), self.serde_for(brought.graph_id)
        message = replace(message, build=brought.build)
        call, unreadable = None, None
        try:
            if run is None:
                spec = brought.run_spec
                run = load_spec(spec, serde)
                # A start's graph gets the input itself, and may change it: what is kept of one is read anew, where the
                # run's next nodes are likely to be executed here.
                if message.kind != "start":
                    kept = _copy_for_one(run)
                else:
                    kept = load_spec(spec, serde) if run.options.run_ahead_nodes else None
                if kept is not None:
                    self._runs.put(run_key(message), kept, len(spec) * DECODED + ENTRY_BYTES)
            else:
                run = _copy_for_one(run) or run
            call = load_call(brought.call, serde)
        except StateUnreadable as error:
            # Not this message's fault, and no other worker of this build will do better: the run ends and says why.
            run, unreadable = run or _unreadable_run(message, brought), error
        if message.kind == "node" and call is not None and brought.is_answered:
            call = replace(call, answered=False)  # a sibling has got the answer that has no id
        at_id = brought.head_id if message.kind == "start" else message.checkpoint_id
        if head is None and at_id is not None:
            if brought.head is None:
                raise StoreUnavailable("The checkpoint that a node execution stands at was not to be had.")
            head = self.keep(message, at_id, brought.head)
        saver = self._saver(database, serde, message, brought, at_id, head)
        claimed = self.hand_out(message, saver, run, call, attempt=brought.attempt, settled=brought.settled)
        claimed.unreadable = unreadable
        claimed.in_wave = brought.in_wave
        return claimed

    def _saver(
        self,
        database: Database,
        serde: SerializerProtocol,
        message: ExecuteNode,
        brought: Brought,
        at_id: UUID | None,
        head: Head | None,
    ) -> ExecutionSaver:
        if isinstance(brought.held, RedisHeld) and self.redis is not None:
            return RedisSaver(
                database, brought.held, brought.thread_id, serde, self.redis.tier, brought.held.place, message.build,
                at_id=at_id, head=head, writes=brought.writes,
            )  # fmt: skip
        return ExecutionSaver(
            database, brought.held, brought.thread_id, serde, POSTGRES, at_id=at_id, head=head, writes=brought.writes
        )

    def hand_out(
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
        """A claim that is watched: whoever drops it without a commit drops its saver, too.

        Its key is counted already: by `claim`, or by `lease` for what a commit has leased.
        """
        saver.when_dropped = weakref.finalize(saver, self._dropped, key_of(message), saver.held)
        saver.when_dropped.atexit = False
        with self._savers_lock:
            self._savers.add(saver)
        # A node that is alone in its superstep goes on from the checkpoint, for which all is needed.
        saver.call = call if message.kind == "node" else None
        saver.packet = call.packet if message.kind == "node" and call and not call.sole else None
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
        self._give_back(held, at_once=False)

    def _give_back(self, held: Held, *, at_once: bool = True) -> None:
        if isinstance(held, RedisHeld) and self.redis is not None:
            self.redis.behind.give_back(held)
        else:
            self.worker.give_back(held, at_once=at_once)

    def release(self, claimed: Claimed) -> None:
        """Give a claim back without a commit: another worker may have it at once. Never raises."""
        saver = saver_of(claimed)
        if self._is_open(saver):
            self._working.end(key_of(claimed.message))
            self._give_back(saver.held)

    def _held_in_redis(self) -> list[RedisHeld]:
        held = (saver.held for saver in self._open_savers() if saver.when_dropped and saver.when_dropped.alive)
        return [one for one in held if isinstance(one, RedisHeld)]

    def _open_savers(self) -> list[ExecutionSaver]:
        """Of claims that may be open."""
        with self._savers_lock:
            return list(self._savers)

    def release_all(self) -> None:
        """Give all back that this process works on: at its end. What is committed later is fenced out. Never raises."""
        for saver in self._open_savers():
            if self._is_open(saver):
                self._working.end(key_of(saver.held))
                self._give_back(saver.held)

    @contextmanager
    def giving_back(self, held: Held) -> Iterator[None]:
        """Postgres has leased this to us: what fails before it is a claim gives it back."""
        try:
            yield
        except BaseException:
            self._give_back(held)
            raise

    @contextmanager
    def committing(self, claimed: Claimed) -> Iterator[None]:
        """While a commit is under way, what its run's leases are is not known here."""
        key = run_key(claimed.message)
        self._committing.begin(key)
        try:
            yield
        finally:
            self._committing.end(key)

    def lost_answer(self, claimed: Claimed) -> None:
        """A commit may have been carried out: give back its claim, or else what it has leased to us. Never raises."""
        saver = saver_of(claimed)
        if self._is_open(saver):
            self._working.end(key_of(claimed.message))
        if isinstance(saver.held, RedisHeld) and self.redis is not None:
            self.redis.behind.recall_later(saver.held)
        else:
            self._give_back_strays(saver.held, saver.held)

    def _give_back_strays(self, lost: Held, first: Held | None = None) -> None:
        """What Postgres has leased of this run to this process, and nobody here works on. Never raises."""
        key = run_key(lost)

        def judge(found: Sequence[Held]) -> list[Held] | None:
            # A commit that was under way when these were looked for has either ended, and what it leased is known; or
            # it has not, and one of these may be its. What is begun later has a later fence.
            if self._committing.has(key):
                return None
            return [held for held in found if not self._working.has(key_of(held))]

        self.worker.give_back_strays(LostAnswer(lost.tenant_id, lost.run_id, lost.worker, first, judge))

    def done(self, claimed: Claimed) -> None:
        """Committed, or lost: nothing is to be given back."""
        if self._is_open(saver_of(claimed)):
            self._working.end(key_of(claimed.message))

    def lease(
        self,
        message: ExecuteNode,
        saver: ExecutionSaver,
        claimed: Claimed,
        call: NodeCall | None,
        *,
        settled: Mapping[str, str] | None = None,
        failed: BaseException | None = None,
    ) -> Claimed:
        """What a commit of `claimed` has leased to this worker."""
        self._working.begin(key_of(message))
        kept = self._runs.get(run_key(message))
        run = (kept and _copy_for_one(kept)) or claimed.run
        return self.hand_out(message, saver, run, call, attempt=1, settled=settled, failed=failed)

    def forget_run(self, message: ExecuteNode, at: UUID | None) -> None:
        """It is over: neither its spec nor the checkpoint where its last segment was will be asked for again."""
        self._runs.drop(run_key(message))
        if at is not None:
            self._heads.drop(head_key(message, at))

    def _is_open(self, saver: ExecutionSaver) -> bool:
        """Whether nobody has committed it or given it back; from now on somebody has."""
        return saver.when_dropped is not None and saver.when_dropped.detach() is not None

    # ----------------------------------------------------------------------- caches

    def keep(self, message: ExecuteNode, checkpoint_id: UUID, head: Head) -> Head:
        self._heads.put(head_key(message, checkpoint_id), head, head.size + ENTRY_BYTES)
        return head

    def replace_head(self, message: ExecuteNode, gone: UUID | None, checkpoint_id: UUID, head: Head) -> None:
        if gone is not None and gone != checkpoint_id:
            self._heads.drop(head_key(message, gone))
        self.keep(message, checkpoint_id, head)


def saver_of(claimed: Claimed) -> ExecutionSaver:
    return cast("ExecutionSaver", claimed.saver)


def _copy_for_one(run: RunSpec) -> RunSpec | None:
    """For one execution: a node may change what it is given in place, and the next attempt is to find it as it was.
    The input is for a start alone, which no other execution shares.

    None where a value, such as one with a lock, is serialised well and cannot be copied: it is read anew each time.
    """
    try:
        return replace(run, config=deepcopy(run.config), kwargs=deepcopy(run.kwargs))
    except Exception:  # a value's class is a user's code
        return None


def _unreadable_run(message: ExecuteNode, brought: Brought) -> RunSpec:
    """What is known of a run without its spec."""
    return RunSpec(str(message.run_id), str(brought.thread_id), brought.graph_id, None, {}, {})


def _brought(message: ExecuteNode, answer: wire.Answer, fence: int, worker: int) -> Brought:
    body = answer.raw("body")
    return Brought(
        held=held_of(message, fence, worker),
        thread_id=answer.uuid("thread"),
        graph_id=answer.text("graph"),
        build=answer.text("build"),
        run_spec=answer.raw("run_spec") or b"",
        call=answer.data("spec"),
        attempt=answer.number("attempt"),
        is_answered=message.kind != "advance" and answer.flag("taken"),
        in_wave=message.kind == "node" and answer.flag("wave"),
        head_id=None if message.kind == "advance" else answer.find_uuid("head"),
        head=None if body is None else make_head(body, answer.items("blobs")),
        writes=writes_of(answer),
        settled=settled_of(answer) if message.kind == "advance" else {},
    )
