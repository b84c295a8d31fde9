"""What stands still in Redis: seen by beat, over all tenants of a home.

Which runs are there is Postgres' to say (farm.ops_in_redis); how they stand is asked of Redis, in one pipeline a
server. A message that is lost (persistence/overdue.py) is sent again. Everything else, a dead worker, a server that was
replaced, a line that is not Postgres', a hash that is gone, ends in the same way: the run is recalled.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from agentfarm import clock
from agentfarm.errors import RedisTierUnavailable, StoreUnavailable
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.execution_keys import start_message
from agentfarm.persistence.overdue import judge_lost
from agentfarm.persistence.redis_tier.leases import Holder
from agentfarm.persistence.redis_tier.scripts import UNSENT, Look, Open, Place, RedisScripts, message_of_open
from agentfarm.persistence.redis_tier.servers import Server
from agentfarm.persistence.redis_tier.write_behind import WriteBehind

logger = logging.getLogger(__name__)

#: Runs that one sweep recalls: each is a transaction, and dead workers' nodes wait meanwhile.
RECALLS: Final = 200

#: A message that was sent again waits twice as long for the next time, so often.
MOST_DOUBLINGS: Final = 6

#: For how long it is remembered that a start was sent again.
STARTS_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Moved:
    """A run that Postgres says is moved by Redis.

    queue  of its start
    entry  the last that arrived; 0: none, and maybe nobody has claimed the start
    """

    place: Place
    graph_id: str
    queue: str
    entry: int
    started_seconds: float


@dataclass(frozen=True, slots=True)
class _Late:
    """A message that nobody has taken for long. one: None: that of the run's start, of which Redis knows nothing"""

    run: Moved
    one: Open | None
    queue: str
    age_seconds: float
    why: str = "old"


class RedisHealing:
    """late_seconds   after which a message that nobody took may be lost
    lease_seconds  … and a worker that does not say that it works on something does not
    """

    def __init__(
        self, scripts: RedisScripts, behind: WriteBehind, *, late_seconds: float, lease_seconds: float
    ) -> None:
        self.scripts = scripts
        self.behind = behind
        self.late_seconds, self.lease_seconds = late_seconds, lease_seconds
        self._silent: set[int] = set()  # servers that did not answer the last sweep
        self._starts: dict[UUID, tuple[int, float]] = {}  # how often those were sent again, and when (monotonic)

    def sweep(
        self,
        moved: Sequence[Moved],
        living: Callable[[], frozenset[int]],
        length_of: Callable[[str], int | None],
    ) -> tuple[ExecuteNode, ...]:
        """Messages to send again. What a recall makes ready is told by it.

        living     the processes that live, asked after Redis was: who has come since is among them
        length_of  how many messages wait in a queue; None: it cannot be told now
        """
        again: list[ExecuteNode] = []
        recalls = RECALLS
        self._forget_starts()
        for server, there in self.scripts.by_server(moved, key=lambda run: run.place.key):
            try:
                looks = self.scripts.look_many(server, [run.place for run in there])
                identity = server.identity()  # after it, so that it is who answered
            except RedisTierUnavailable as error:
                logger.warning(
                    "Redis does not answer, and runs are there", extra={"code": error.code, "runs": len(there)}
                )
                if id(server) in self._silent:  # once is a stumble, and would cost every node that is in progress
                    recalls -= self._give_up(there, recalls)
                self._silent.add(id(server))
                continue
            self._silent.discard(id(server))
            alive = living()
            late: list[_Late] = []
            for run, look in zip(there, looks, strict=True):
                if isinstance(look, RedisTierUnavailable):
                    continue
                lost = self._find_lost(run, look, identity, alive)
                if lost is None:
                    late += self._find_late(run, look)
                elif recalls:
                    self._recall(run, lost)
                    recalls -= 1
            again += self._send_again(server, judge_lost(late, length_of))
        return tuple(again)

    def _find_lost(
        self, run: Moved, look: Look | None, identity: str, alive: frozenset[int]
    ) -> Sequence[Holder] | None:
        """Of a run that is to be recalled, what was lost with its holders, if anything; None: it goes well."""
        if look is None or look.epoch < run.place.epoch:
            # Who claims the start opens the run there. Where nothing of it has arrived, nobody may have claimed it yet;
            # and if somebody had, it is begun there once more.
            return () if run.entry else None
        if look.epoch > run.place.epoch:  # it has been recalled meanwhile, and another one begun
            return None
        lost = [
            Holder(one.checkpoint_id, one.execution_id, one.worker)
            for one in look.open
            if one.worker is not None and (one.age_seconds >= self.lease_seconds or one.worker not in alive)
        ]
        is_odd = look.state == "recalled" or look.server != identity or look.last < run.entry
        return lost if lost or is_odd else None

    def _find_late(self, run: Moved, look: Look | None) -> Iterator[_Late]:
        if look is None or look.epoch < run.place.epoch:
            times, sent = self._starts.get(run.place.run_id, (0, 0.0))
            age = clock.monotonic_seconds() - sent if times else run.started_seconds
            if self._is_late(age, times):
                yield _Late(run, None, run.queue, age)
        elif look.epoch == run.place.epoch:
            if look.last > look.arrived:
                self.behind.touch(run.place)
            # Of a wave, those without a message wait for who works on the others.
            is_going = any(one.worker is not None for one in look.open)
            for one in look.open:
                waits = one.worker is not None or (one.times == UNSENT and is_going)
                if not waits and self._is_late(one.age_seconds, one.times):
                    yield _Late(run, one, one.queue, one.age_seconds)

    def _is_late(self, age_seconds: float, times: int) -> bool:
        return age_seconds >= self.late_seconds * (1 << max(0, min(times, MOST_DOUBLINGS)))

    def _send_again(self, server: Server, late: Sequence[_Late]) -> list[ExecuteNode]:
        messages = []
        for one in late:
            if one.one is None:
                place = one.run.place
                times, _ = self._starts.get(place.run_id, (0, 0.0))
                self._starts[place.run_id] = times + 1, clock.monotonic_seconds()
                messages.append(
                    start_message(place.tenant_id, place.home, place.run_id, one.run.graph_id, one.run.queue)
                )
        opened = [(one.run, one.one) for one in late if one.one is not None]
        try:
            marked = self.scripts.send_again(server, [(run.place, one) for run, one in opened])
        except RedisTierUnavailable as error:
            logger.warning("lost messages are sent later", extra={"code": error.code, "messages": len(opened)})
            return messages
        due = (pair for pair, is_due in zip(opened, marked, strict=True) if is_due)
        return messages + [message_of_open(run.place, run.graph_id, one) for run, one in due]

    def _forget_starts(self) -> None:
        now = clock.monotonic_seconds()
        self._starts = {run: (n, at) for run, (n, at) in self._starts.items() if now - at < STARTS_SECONDS}

    def _recall(self, run: Moved, lost: Sequence[Holder], *, is_blind: bool = False) -> None:
        """One that cannot be recalled now keeps no other from it: the next sweep finds the same."""
        try:
            if self.behind.is_free(run.place):
                self.behind.recall(run.place, lost=lost, is_blind=is_blind)
        except StoreUnavailable as error:
            logger.warning("a run is recalled later", extra={"code": error.code, "run_id": str(run.place.run_id)})

    def _give_up(self, moved: Sequence[Moved], most: int) -> int:
        """Without their Redis nothing of these goes on: Postgres moves so many from here on. How many it were."""
        given_up = moved[:most]
        for run in given_up:
            self._recall(run, (), is_blind=True)
        return len(given_up)
