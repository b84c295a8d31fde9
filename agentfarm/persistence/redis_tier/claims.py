"""Claims in Redis: whoever claims the start of a run opens it there; its executions are claimed there after that."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from agentfarm import clock
from agentfarm.errors import RedisTierUnavailable, StoreUnavailable
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.bodies import Head, WriteRow
from agentfarm.persistence.leases import Held
from agentfarm.persistence.redis_tier.leases import RedisHeld, redis_held
from agentfarm.persistence.redis_tier.renewal import Renewal
from agentfarm.persistence.redis_tier.scripts import OPEN_SECONDS, Place, RedisScripts, message_of_open
from agentfarm.persistence.redis_tier.tier import RedisTier, new_token
from agentfarm.persistence.redis_tier.write_behind import WriteBehind
from agentfarm.records import Refused

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Brought:
    """What a claim brings, whoever answered it.

    run_spec    empty where it is known here; head None: likewise, or there is none
    is_answered the answer without an id is gone
    settled     for an advance: {execution id: outcome}
    in_wave     siblings of it may wait without a message
    """

    held: Held
    thread_id: UUID
    graph_id: str
    build: str
    run_spec: bytes
    call: bytes
    attempt: int
    is_answered: bool
    head_id: UUID | None
    head: Head | None
    writes: Sequence[WriteRow]
    settled: Mapping[str, str] = field(default_factory=dict)
    in_wave: bool = False


class RedisClaims:
    """One a process."""

    def __init__(self, scripts: RedisScripts, behind: WriteBehind, *, lease_seconds: float) -> None:
        self.scripts = scripts
        self.behind = behind
        self.tier = RedisTier(scripts, behind)
        self.renewal = Renewal(scripts, seconds=lease_seconds / 3)

    def begin(self) -> None:
        """Before anything is leased to this process: it is renewed, and what is given back finds somebody."""
        self.behind.begin()
        self.renewal.begin()

    def close(self) -> None:
        self.renewal.close()
        self.behind.close()

    def open(self, message: ExecuteNode, worker: int, found: Brought, epoch: int, *, asked_at: float) -> Brought | None:
        """Begin the run of a start that Postgres says is Redis' to move; its start is leased.

        asked_at  monotonic seconds: Postgres was not asked before
        returns  None: it was begun before, or cannot be begun there and was recalled
        raises   StoreUnavailable
        """
        self.begin()
        place = Place(message.tenant_id, message.home, found.thread_id, message.run_id, epoch)
        held = redis_held(place, message, new_token(), worker)
        try:
            verdict = self.scripts.open(
                place,
                held,
                graph_id=found.graph_id,
                build=found.build,
                run_spec=found.run_spec,
                head_id=found.head_id,
                head=found.head,
                writes=found.writes,
            )
        except RedisTierUnavailable as error:
            logger.warning("a run begins in Postgres", extra={"code": error.code, "run_id": str(message.run_id)})
            self._recall(place, [held])  # it may have been opened by that
            return None
        is_late = clock.monotonic_seconds() - asked_at > OPEN_SECONDS
        if verdict == "ok" and not is_late:
            return replace(found, held=held)
        if verdict != "known":
            self._recall(place, [held] if verdict == "ok" else [])
        return None

    def ready(self, message: ExecuteNode) -> tuple[ExecuteNode, ...]:
        """What of the run waits for a worker: for a message that came again after its own execution was done."""
        place = _place(message)
        try:
            server = self.scripts.servers.of(place.key)
            look = self.scripts.look(place)
            found = [one for one in (look.open if look and look.epoch == place.epoch else ()) if one.worker is None]
            sent = self.scripts.send_again(server, [(place, one) for one in found])
        except RedisTierUnavailable as error:  # the healer sends them
            logger.warning(
                "what follows a node is sent later", extra={"code": error.code, "run_id": str(message.run_id)}
            )
            return ()
        due = (one for one, is_due in zip(found, sent, strict=True) if is_due)
        return tuple(message_of_open(place, message.graph_id, one) for one in due)

    def claim(
        self, message: ExecuteNode, worker: int, *, retake: bool, has_run: bool, has_head: bool
    ) -> Brought | Refused | None:
        """Take the lease. None: the run is not there any more, and Postgres knows. Raises StoreUnavailable."""
        self.begin()
        place = _place(message)
        held = redis_held(place, message, new_token(), worker)
        known = message.checkpoint_id if has_head else None
        try:
            loaded = self.scripts.claim(place, held, retake=retake, has_run=has_run, known_head=known)
            if loaded.verdict == "full":
                self.behind.complete(place)
                loaded = self.scripts.claim(place, held, retake=retake, has_run=has_run, known_head=known)
        except RedisTierUnavailable as error:
            logger.warning("a claim was not answered", extra={"code": error.code, "run_id": str(message.run_id)})
            # It may have been leased by that. Who executes it in another thread of this process keeps it.
            self._recall(place, [held] if retake else [])
            return None
        if loaded.verdict == "ok":
            return Brought(
                held=held,
                thread_id=place.thread_id,
                graph_id=loaded.graph_id,
                build=loaded.build,
                run_spec=loaded.run_spec,
                call=loaded.call,
                attempt=1,
                is_answered=loaded.is_answered,
                in_wave=loaded.in_wave,
                head_id=loaded.head_id,
                head=loaded.head,
                writes=loaded.writes,
            )
        if loaded.verdict == "lost":
            self.behind.recall(place)
        return None if loaded.verdict in ("lost", "stale") else Refused("busy" if loaded.verdict == "busy" else "gone")

    def _recall(self, place: Place, given_back: Sequence[RedisHeld]) -> None:
        """Raises StoreUnavailable: it is tried again, as what is given back is nobody's work."""
        try:
            self.behind.recall(place, given_back=given_back)
        except StoreUnavailable:
            for held in given_back:
                self.behind.recall_later(held)
            raise


def _place(message: ExecuteNode) -> Place:
    assert message.thread_id is not None  # who has an epoch has a thread
    return Place(message.tenant_id, message.home, message.thread_id, message.run_id, message.epoch)
