"""The detour: what died, got lost or stands still goes on.

Runs in beat, once a second, and may run in several places at once: every step is a transaction that skips what another
healer holds. Bounded work a sweep; what remains is the next one's. What is over and only takes up room is cleaned up
beside it, so that no dead worker's node waits for the deletion of a large thread.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar
from uuid import UUID

from agentfarm.errors import AgentFarmError, Unavailable
from agentfarm.flow.dispatch import dispatch
from agentfarm.flow.farm import Farm
from agentfarm.flow.settle import announce
from agentfarm.messages import ExecuteNode
from agentfarm.records import Delayed, Ended
from agentfarm.tenancy import Tenant

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Items of a tenant's store that one cleaning removes. Nobody sees them any more, so that those left can wait.
EXPIRED_A_TENANT = 500

#: Tenants whose items one cleaning removes, a transaction each.
EXPIRED_TENANTS = 50


@dataclass(frozen=True, slots=True)
class Healed:
    """How much one sweep found; all zero on a quiet farm. soon: what is to be published at its time (publish_due)."""

    taken_over: int = 0
    advanced: int = 0
    published_again: int = 0
    buried: int = 0
    announced: int = 0
    soon: tuple[Delayed, ...] = field(default=(), compare=False)

    @property
    def is_quiet(self) -> bool:
        return self == Healed()

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "soon"}


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How much that was over is gone now."""

    forgotten: int = 0
    expired: int = 0
    expired_threads: int = 0
    names_forgotten: int = 0


def sweep_once(farm: Farm) -> Healed:
    """One sweep over a home. What gets work going comes first, what only tells of it last, since that may have to wait.

    Each station sends what it has marked as sent before anything else can fail, and none keeps those after it from
    their turn.

    raises  Unavailable when the database did not answer two of them in a row; the next sweep finds the same
    """
    sweep = _Sweep(farm)
    _in_turn(
        sweep.take_over,
        sweep.advance,
        sweep.publish_again,
        sweep.bury,
        sweep.start_waiting,
        sweep.look_into_redis,
        sweep.announce,
    )
    counts = sweep.counts
    healed = Healed(
        taken_over=counts["taken_over"],
        advanced=counts["advanced"],
        published_again=counts["published_again"],
        buried=counts["buried"],
        announced=counts["announced"],
        soon=sweep.soon,
    )
    if not healed.is_quiet:
        logger.info("healed", extra=healed.counts())
    return healed


def publish_due(farm: Farm, delayed: Sequence[Delayed]) -> None:
    """The delay of these retries is over. What another healer has sent, and what was cancelled, is left out.

    raises  Unavailable when the database did not answer; the next sweep finds them overdue
    """
    dispatch(farm, farm.healing.due(delayed))


class _Sweep:
    """One sweep while it is under way: its stations, and what they have found so far."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.counts: Counter[str] = Counter()
        self.spent: list[ExecuteNode] = []
        self.ended: list[Ended] = []
        self.soon: tuple[Delayed, ...] = ()

    def take_over(self) -> None:
        swept = self.farm.healing.sweep()
        self._send("taken_over", swept.again)
        self.counts["taken_over"] += swept.later
        self.spent += swept.spent

    def advance(self) -> None:
        stalled = self.farm.healing.stalled()
        self._send("advanced", stalled.again)
        self.spent += stalled.spent

    def publish_again(self) -> None:
        late = self.farm.healing.lost(self.farm.publisher.queue_length)
        self.soon = late.soon
        self._send("published_again", late.again)

    def bury(self) -> None:
        def bury(spent: ExecuteNode) -> None:
            if (buried := self.farm.healing.bury(spent)) is not None:
                dispatch(self.farm, buried.again)
                self.ended.append(buried.ended)
                self.counts["buried"] += 1

        _one_by_one(self.spent, bury, lambda spent: {"run_id": str(spent.run_id)})

    def start_waiting(self) -> None:
        _one_by_one(
            self.farm.healing.waiting(),
            lambda thread: self._send("published_again", self.farm.healing.start_waiting(*thread)),
            lambda thread: {"thread_id": str(thread[1])},
        )

    def look_into_redis(self) -> None:
        self._send("published_again", self.farm.healing.in_redis(self.farm.publisher.queue_length))

    def announce(self) -> None:
        announce(self.farm, self.ended)
        self.counts["announced"] += announce(self.farm, self.farm.healing.unannounced())

    def _send(self, what: str, messages: tuple[ExecuteNode, ...]) -> None:
        dispatch(self.farm, messages)
        self.counts[what] += len(messages)


# --------------------------------------------------------------------------- what is over


def clean_up_once(farm: Farm) -> Cleaned:
    """Remove some of what is over, and say what nobody serves.

    raises  Unavailable when the database did not answer two of its stations in a row; the next time finds the same
    """
    cleaning = _Cleaning(farm)
    _in_turn(
        cleaning.forget_threads,
        cleaning.expire_items,
        cleaning.expire_threads,
        cleaning.forget_names,
        cleaning.name_unserved,
    )
    cleaned = Cleaned(**cleaning.counts)
    if cleaned != Cleaned():
        logger.info("cleaned up", extra=asdict(cleaned))
    return cleaned


class _Cleaning:
    """One cleaning while it is under way: its stations, and what they have removed so far."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.counts: Counter[str] = Counter()

    def forget_threads(self) -> None:
        """Those of stateless runs whose answer has been there long enough to be read."""

        def forget(run: Ended) -> None:
            tenant = Tenant(id=run.tenant_id, slug="", home=run.home)
            self.counts["forgotten"] += self.farm.threads.forget(tenant, run.thread_id)

        _one_by_one(self.farm.healing.forgettable(), forget, lambda run: {"thread_id": str(run.thread_id)})

    def expire_items(self) -> None:
        def expire(tenant: Tenant) -> None:
            self.counts["expired"] += self.farm.stores.sweep(tenant, limit=EXPIRED_A_TENANT)

        tenants = self.farm.healing.expired(limit=EXPIRED_TENANTS)
        _one_by_one(tenants, expire, lambda tenant: {"tenant_id": str(tenant.id)})

    def expire_threads(self) -> None:
        def expire(thread: tuple[UUID, str, UUID]) -> None:
            tenant_id, home, thread_id = thread
            self.farm.threads.expire(Tenant(id=tenant_id, slug="", home=home), thread_id)
            self.counts["expired_threads"] += 1

        _one_by_one(self.farm.healing.expired_threads(), expire, lambda thread: {"thread_id": str(thread[2])})

    def forget_names(self) -> None:
        self.counts["names_forgotten"] += self.farm.healing.forget_names()

    def name_unserved(self) -> None:
        for use in self.farm.healing.unserved():
            # Nothing is lost, and nothing ends it: a worker of that build may come back, or an operator moves its runs.
            logger.warning(
                "work waits for a build that no worker serves",
                extra={"build": use.build, "waiting": use.waiting, "oldest_seconds": round(use.oldest_seconds)},
            )


# --------------------------------------------------------------------------- both


def _in_turn(*stations: Callable[[], None]) -> None:
    """Raises Unavailable, as _one_by_one."""
    _one_by_one(stations, lambda station: station(), lambda station: {"station": station.__name__})


def _one_by_one(these: Iterable[T], act: Callable[[T], None], told: Callable[[T], dict[str, str]]) -> None:
    """One that fails keeps none of the others from their turn.

    told    what the log says of one
    raises  Unavailable when the database did not answer for two in a row: it would not for the others either
    """
    missed = False
    for one in these:
        try:
            act(one)
        except Unavailable as error:
            if missed:
                raise
            missed = True
            logger.warning("healing goes on without one that had no answer", extra={"code": error.code, **told(one)})
        except AgentFarmError:
            logger.exception("healing goes on without one that failed", extra=told(one))
        else:
            missed = False
