"""From Redis to Postgres: soon, at the end of a run, before anybody reads, and when a run is recalled.

Whoever hands entries in asks Redis what Postgres lacks, applies it in one transaction, and lets Redis forget it. Any
process may, several at once: an entry counts once, in its place of the line, or not at all (farm.apply_entries).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Final
from uuid import UUID

from agentfarm.errors import AgentFarmError, RedisTierUnavailable, StoreUnavailable
from agentfarm.persistence.database import Database, Databases
from agentfarm.persistence.leases import Held
from agentfarm.persistence.redis_tier.calls import IS_FREE, RECALL, batch_of, judge, message_of, recall_params
from agentfarm.persistence.redis_tier.entries import APPLY, Batch
from agentfarm.persistence.redis_tier.leases import Holder, RedisHeld
from agentfarm.persistence.redis_tier.scripts import KEPT_MS, Place, RedisScripts, Waiting, thread_key
from agentfarm.persistence.redis_tier.servers import Server
from agentfarm.records import Committed

logger = logging.getLogger(__name__)

#: How long a commit may be in Redis alone: what a Redis that loses its memory costs is executed again. A node in full
#: flow costs Postgres 0.36 to 0.42 x the CPU that it costs where Postgres moves the run; 0.5 x with 0.2 s, and no less
#: with 1 s (benchmarks, table 1).
BEHIND_SECONDS: Final = 0.5

#: Threads that one transaction takes along, so that its one flush serves them all.
BATCH: Final = 64

#: For how long readers do without Redis after it did not answer.
SILENT_SECONDS: Final = 5.0

#: After Redis or Postgres did not answer.
PAUSE_SECONDS: Final = 1.0


#: A thread's key, and an epoch of it.
Epoch = tuple[str, int]


class WriteBehind:
    """One a process.

    tell           what became ready or ended by what nobody waits for here: it is to be published and announced
    when_recalled  the run of what was given back is Postgres', which may have leased it to this process
    """

    def __init__(self, scripts: RedisScripts, databases: Databases, *, seconds: float = BEHIND_SECONDS) -> None:
        self.scripts = scripts
        self.databases = databases
        self.tell: Callable[[Committed], None] = lambda committed: None
        self.when_recalled: Callable[[Held], None] = lambda held: None
        self._brings_again_at = 0.0
        self._seconds = seconds
        self._lock = threading.Lock()
        self._dirty: dict[str, Place] = {}
        self._recalls: deque[RedisHeld] = deque()
        self._left: dict[Epoch, float] = {}
        self._forgets_again_at = 0.0
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # ----------------------------------------------------------------------- one thread

    def complete(self, place: Place, waiting: Waiting | None = None) -> Committed:
        """Hand in all that Postgres lacks of a run, now.

        waiting  what Redis was just found to have of it
        raises   StoreUnavailable: it may have been applied; RedisTierUnavailable
        """
        done = Committed()
        waiting = waiting or self.scripts.peek(place.key)
        while waiting is not None and waiting.entries and waiting.epoch == place.epoch:
            done, is_last = self._hand_in(place, waiting)
            waiting = None if is_last else self.scripts.peek(place.key)
        return done

    def bring(self, tenant_id: UUID, home: str, thread_id: UUID, *, is_last: bool = False) -> None:
        """The same for whatever run is on a thread: before somebody reads it. Never raises: what Postgres has is whole
        and in order, and late at most.

        is_last  the run is about to be ended: what is not brought now is lost. So Redis is asked even if it was silent
                 a moment ago
        """
        if not is_last and time.monotonic() < self._brings_again_at:
            return
        try:
            waiting = self.scripts.peek(thread_key(tenant_id, thread_id))
            if waiting is not None and waiting.entries:
                place = Place(tenant_id, home, thread_id, waiting.run_id, waiting.epoch)
                self._tell(self.complete(place, waiting))
        except (RedisTierUnavailable, StoreUnavailable) as error:
            self._brings_again_at = time.monotonic() + SILENT_SECONDS  # or each reader would wait as long
            logger.warning("threads are read as Postgres has them", extra={"code": error.code})
        except AgentFarmError as error:  # Postgres refuses it; whoever hands it in next recalls the run
            logger.warning(
                "a thread is read as Postgres has it", extra={"code": error.code, "thread_id": str(thread_id)}
            )

    def forget(self, tenant_id: UUID, thread_id: UUID, epoch: int) -> None:
        """The run that Redis moved under this epoch was recalled, or ended in Postgres: its workers hear of it by their
        next commit, and nobody begins it there. Never raises: a Redis that is silent is told later, and what is
        committed there until then is of no line that counts."""
        key = thread_key(tenant_id, thread_id)
        try:
            self.scripts.trim(key, epoch, 0, is_over=True)
        except RedisTierUnavailable:
            self._forget_later({(key, epoch): time.monotonic()})

    def recall(
        self,
        place: Place,
        *,
        keep: Held | None = None,
        needs: int = 0,
        lost: Sequence[Holder] = (),
        given_back: Sequence[Held] = (),
        is_blind: bool = False,
    ) -> int | None:
        """The run goes on in Postgres, from its last commit as far as Redis can tell of it. What is ready is told.

        What other workers hold stays theirs, as far as Redis can tell of it: they commit it in Postgres.

        keep        lease this one to its holder, who executes it and could not save something
        needs       … if this entry has arrived: the last that it could
        lost        whose holders are dead, or silent
        given_back  whose holders do not work on them any more
        is_blind    Redis is known to be silent, and is not asked
        returns     the fence of what is kept; None where nothing is
        raises      StoreUnavailable: it may have been recalled, and the healer publishes what is ready
        """
        held: list[Holder] = []
        if not is_blind:
            self._bring_last(place)
            known: list[Holder | Held] = [*lost, *given_back, *([keep] if keep else [])]
            decided = {(one.checkpoint_id, one.execution_id) for one in known}
            held = [one for one in self._holders(place) if (one.checkpoint_id, one.execution_id) not in decided]
        database = self.databases.at(place.home)
        answer = database.call(RECALL, recall_params(place, keep, needs, lost, held), again=True)
        if is_blind:
            self._forget_later({(place.key, place.epoch): time.monotonic()})
        else:
            self.forget(place.tenant_id, place.thread_id, place.epoch)
        ready, fence = [], None
        for at in range(answer.rows):
            if answer.flag("is_kept", at):
                fence = answer.number("fence", at)
            else:
                ready.append(message_of(place, answer, at))
        if answer.rows:
            logger.info("a run was recalled from Redis", extra=_ids(place))
        self._tell(Committed(ready=tuple(ready)))
        return fence

    def is_free(self, place: Place) -> bool:
        """Whether nobody has the thread in Postgres right now. Raises StoreUnavailable."""
        answer = self.databases.at(place.home).call(IS_FREE, [place.tenant_id.bytes, place.thread_id.bytes], again=True)
        return answer.flag("is_free")

    def _bring_last(self, place: Place) -> None:
        """What Postgres lacks of a run that is to be recalled, as far as it can be had. Raises StoreUnavailable."""
        try:
            waiting = self.scripts.peek(place.key, recall=place.epoch)
            while waiting is not None and waiting.entries and waiting.epoch == place.epoch:
                done, is_last = self._hand_in(place, waiting)
                self._tell(done)
                waiting = None if is_last else self.scripts.peek(place.key, recall=place.epoch)
        except StoreUnavailable:
            raise
        except AgentFarmError as error:  # Redis is silent; or Postgres refuses what it has, which is executed again
            logger.warning("a run goes on without what Redis has of it", extra={"code": error.code, **_ids(place)})

    def _holders(self, place: Place) -> list[Holder]:
        """Who works on what of the run; nobody, where Redis does not answer, or has not the memory that it had."""
        try:
            server = self.scripts.servers.of(place.key)
            look = self.scripts.look(place)
            if look is None or look.epoch != place.epoch or look.server != server.identity():
                return []
        except RedisTierUnavailable:
            logger.warning("what a run's workers hold is executed again", extra=_ids(place))
            return []
        return [Holder(one.checkpoint_id, one.execution_id, one.worker) for one in look.open if one.worker is not None]

    def _hand_in(self, place: Place, waiting: Waiting) -> tuple[Committed, bool]:
        """What came of it, and whether that was all that there will be."""
        batch = batch_of(place, waiting)
        answer = self.databases.at(place.home).call(APPLY, batch.params(waits=True))
        done, trimmed, is_over = judge(batch, answer)
        try:
            self.scripts.trim(place.key, place.epoch, trimmed, is_over=is_over)
        except RedisTierUnavailable:  # it arrived, which is to be told; Redis forgets it when it is handed in again
            logger.debug("Redis keeps what Postgres has for a while", extra=_ids(place))
        return done, is_over or trimmed >= waiting.last

    def _forget_later(self, left: Mapping[Epoch, float]) -> None:
        """left  since when (monotonic seconds)"""
        with self._lock:
            if not self._left:
                self._forgets_again_at = time.monotonic() + SILENT_SECONDS
            self._left.update(left)
        self.begin()

    # ----------------------------------------------------------------------- the thread

    def give_back(self, held: RedisHeld) -> None:
        """This process will not finish it: its run goes on in Postgres, where another has it at once.

        Takes no lock: the garbage collector calls it.
        """
        self._recalls.append(held)

    def recall_later(self, held: RedisHeld) -> None:
        """Nobody knows what a commit of it has done there. Never blocks, never raises."""
        self._recalls.append(held)
        self.begin()

    def touch(self, place: Place) -> None:
        """There is something new in Redis: Postgres gets it soon."""
        with self._lock:
            self._dirty[place.key] = place
        self.begin()

    def begin(self) -> None:
        """Before anything is leased to this process: what it gives back must find somebody."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="farm-write-behind", daemon=True)
                self._thread.start()

    def clean(self, place: Place) -> None:
        """Postgres has all of it."""
        with self._lock:
            self._dirty.pop(place.key, None)

    def close(self, *, seconds: float = PAUSE_SECONDS * 5) -> None:
        """Hand in what waits, and end. Back after so long at most."""
        self._stopping = True
        self._wake.set()
        if self._recalls:
            self.begin()
        if self._thread is not None:
            self._thread.join(seconds)

    def _live(self) -> None:
        while not self._stopping:
            self._wake.wait(self._seconds)
            if not self._round():
                self._wake.wait(PAUSE_SECONDS)
        self._round()

    def _round(self) -> bool:
        """One transaction a home and batch. Whether all answered; what did not is tried again."""
        with self._lock:
            places = list(self._dirty.values())
            self._dirty.clear()
        places.sort(key=lambda place: place.key)  # as in every process: none waits for another in a circle
        answered = self._try(self._recall_all, [])
        for server, there in self.scripts.by_server(places, key=lambda place: place.key):
            answered &= self._try(partial(self._hand_in_all, server, there), there)
        return self._try(self._forget_left, []) and answered

    def _forget_left(self) -> None:
        """What Redis could not be told while it was silent; until it has forgotten that by itself."""
        now = time.monotonic()
        if not self._left or now < self._forgets_again_at:
            return
        with self._lock:
            found, self._left = self._left, {}
        left = {one: since for one, since in found.items() if now - since < KEPT_MS / 1000}
        for server, there in self.scripts.by_server(left, key=itemgetter(0)):
            for at in range(0, len(there), BATCH):
                asked = there[at : at + BATCH]
                missed = self._not_told(server, asked)
                is_silent = len(missed) == len(asked)  # … and is not asked for the rest
                self._forget_later({one: left[one] for one in (there[at:] if is_silent else missed)})
                if is_silent:
                    break

    def _not_told(self, server: Server, ended: Sequence[Epoch]) -> Sequence[Epoch]:
        try:
            told = self.scripts.trim_many(server, [(key, epoch, 0, True) for key, epoch in ended])
        except RedisTierUnavailable:
            return ended
        return [one for one, is_told in zip(ended, told, strict=True) if not is_told]

    def _try(self, act: Callable[[], None], places: Sequence[Place]) -> bool:
        """Whether it is done. What it was about is tried again."""
        try:
            act()
        except AgentFarmError as error:
            logger.warning("Postgres lags behind Redis", extra={"code": error.code, "threads": len(places)})
        except Exception:  # a bug of ours: without this thread nothing would arrive before its run ends
            logger.exception("Postgres lags behind Redis")
        else:
            return True
        with self._lock:
            self._dirty = {**{place.key: place for place in places}, **self._dirty}
        return False

    def _recall_all(self) -> None:
        """All that is given back of a run at once, so that none of it is left to this process. Where Postgres does not
        answer, it is tried again."""
        by_place: dict[Place, list[RedisHeld]] = {}
        while self._recalls:
            held = self._recalls.popleft()
            by_place.setdefault(held.place, []).append(held)
        while by_place:
            place, given_back = next(iter(by_place.items()))
            try:
                is_free = self.is_free(place)
                if is_free:
                    self.recall(place, given_back=given_back)
            except BaseException:
                self._recalls.extend(held for others in by_place.values() for held in others)
                raise
            for held in by_place.pop(place):
                if is_free:
                    self.when_recalled(held)
                else:  # somebody has its thread, for whom the others' recalls are not to wait
                    self._recalls.append(held)

    def _hand_in_all(self, server: Server, places: Sequence[Place]) -> None:
        for at in range(0, len(places), BATCH):
            self._hand_in_many(server, places[at : at + BATCH])

    def _hand_in_many(self, server: Server, places: Sequence[Place]) -> None:
        by_home: dict[str, list[Batch]] = {}
        for place, waiting in zip(places, self.scripts.peek_many(server, [one.key for one in places]), strict=True):
            if isinstance(waiting, RedisTierUnavailable):
                self.touch(place)
            elif waiting is not None and waiting.entries and waiting.epoch == place.epoch:
                by_home.setdefault(place.home, []).append(batch_of(place, waiting))
                if waiting.entries[-1].number < waiting.last:
                    self.touch(place)  # an answer has no room for all
        for home, of_home in by_home.items():
            self._apply_all(server, self.databases.at(home), of_home)

    def _apply_all(self, server: Server, database: Database, batches: Sequence[Batch]) -> None:
        try:
            answers = database.call_all(APPLY, [batch.params(waits=False) for batch in batches])
        except StoreUnavailable:
            raise
        except AgentFarmError as error:
            if len(batches) > 1:  # nothing of them was done. Who is refused must not keep the others from arriving
                for batch in batches:
                    self._apply_all(server, database, [batch])
                return
            logger.warning(
                "Postgres refuses what Redis has of a run", extra={"code": error.code, **_ids(batches[0].place)}
            )
            self.recall(batches[0].place)
            return
        trimmed = []
        for batch, answer in zip(batches, answers, strict=True):
            if answer.text("verdict") == "later":
                self.touch(batch.place)
                continue
            done, number, is_over = judge(batch, answer)
            trimmed.append((batch.place.key, batch.place.epoch, number, is_over))
            self._tell(done)
        self.scripts.trim_many(server, trimmed)

    def _tell(self, committed: Committed) -> None:
        if committed.ready or committed.ended is not None:
            self.tell(committed)


def _ids(place: Place) -> dict[str, str]:
    return {"run_id": str(place.run_id)}
