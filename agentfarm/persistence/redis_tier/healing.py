"""What stands still in Redis: seen by beat, over all tenants of a home.

Which runs are there is Postgres' to say (farm.ops_in_redis); how they stand is asked of Redis, in one pipeline. A
message that nobody took is sent again. Everything else, a dead worker, a server that was replaced, a line that is not
Postgres', a hash that is gone, ends in the same way: the run is recalled.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agentfarm.errors import RedisTierUnavailable
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.redis_tier.scripts import Look, Place, RedisScripts, message_of_open
from agentfarm.persistence.redis_tier.write_behind import Holder, WriteBehind

logger = logging.getLogger(__name__)

#: Runs that one sweep recalls: each is a transaction, and dead workers' nodes wait meanwhile.
RECALLS: Final = 200

#: Who claims the start of a run opens it. What is not open after so long was claimed by nobody, or by one who died.
OPENED_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Moved:
    """A run that Postgres says is moved by Redis. entry: the last that arrived"""

    place: Place
    graph_id: str
    entry: int
    started_seconds: float


class RedisHealing:
    """late_seconds   after which a message that nobody took is sent again
    lease_seconds  … and a worker that does not say that it works on something does not
    """

    def __init__(
        self, scripts: RedisScripts, behind: WriteBehind, *, late_seconds: float, lease_seconds: float
    ) -> None:
        self.scripts = scripts
        self.behind = behind
        self.late_ms, self.lease_ms = round(late_seconds * 1000), round(lease_seconds * 1000)

    def sweep(self, moved: Sequence[Moved], living: Callable[[], frozenset[int]]) -> tuple[ExecuteNode, ...]:
        """Messages to send again. What a recall makes ready is told by it.

        living  the processes that live, asked after Redis was: who has come since is among them
        raises  StoreUnavailable
        """
        again: list[ExecuteNode] = []
        recalls = RECALLS
        for server, there in self.scripts.by_server(moved, key=lambda run: run.place.key):
            try:
                asked = [(run.place.key, run.place.epoch) for run in there]
                looks = self.scripts.look_many(server, asked, late_ms=self.late_ms, lease_ms=self.lease_ms)
                identity = server.identity()  # after it, so that it is who answered
            except RedisTierUnavailable as error:
                logger.warning(
                    "Redis does not answer, and runs are there", extra={"code": error.code, "runs": len(there)}
                )
                recalls -= self._give_up(there, recalls)
                continue
            alive = living()
            for run, look in zip(there, looks, strict=True):
                lost = self._find_lost(run, look, identity, alive)
                if lost is not None and recalls:
                    self.behind.recall(run.place, lost=lost)
                    recalls -= 1
                elif lost is None and look is not None:
                    again += self._see_to(run, look)
        return tuple(again)

    def _find_lost(
        self, run: Moved, look: Look | None, identity: str, alive: frozenset[int]
    ) -> Sequence[Holder] | None:
        """Of a run that is to be recalled, what was lost with its holders, if anything; None: it goes well."""
        if look is None or look.epoch < run.place.epoch:
            return () if run.started_seconds >= OPENED_SECONDS or run.entry else None
        if look.epoch > run.place.epoch:  # it has been recalled meanwhile, and another one begun
            return None
        lost = [
            Holder(one.checkpoint_id, one.execution_id, one.worker)
            for one in look.open
            if one.worker is not None and (one.is_late or one.worker not in alive)
        ]
        is_odd = look.state == "recalled" or look.server != identity or look.last < run.entry
        return lost if lost or is_odd else None

    def _see_to(self, run: Moved, look: Look) -> list[ExecuteNode]:
        if look.epoch != run.place.epoch:
            return []
        if look.last > look.arrived:
            self.behind.touch(run.place)
        return [message_of_open(run.place, run.graph_id, one) for one in look.open if one.is_late]

    def _give_up(self, moved: Sequence[Moved], most: int) -> int:
        """Without their Redis nothing of these goes on: Postgres moves so many from here on. How many it were."""
        opened = [run for run in moved if run.started_seconds >= OPENED_SECONDS][:most]
        for run in opened:
            self.behind.recall(run.place, is_blind=True)
        return len(opened)
