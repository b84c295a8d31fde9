"""The detour: what died, got lost or stands still goes on.

Runs in beat, once a second, and may run in several places at once: every step is a transaction that skips what another
healer holds. Bounded work a sweep; what remains is the next one's.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from agentfarm.errors import Unavailable
from agentfarm.flow.dispatch import dispatch
from agentfarm.flow.farm import Farm
from agentfarm.flow.settle import announce
from agentfarm.records import Delayed
from agentfarm.tenancy import Tenant

logger = logging.getLogger(__name__)

#: Items of a tenant's store that one sweep removes. Nobody sees them any more, so that those left can wait.
EXPIRED_A_TENANT = 500

#: Tenants whose items one sweep removes, a transaction each: the next sweep, which finds the dead, waits for them.
EXPIRED_TENANTS = 50


@dataclass(frozen=True, slots=True)
class Healed:
    """How much one sweep found; all zero on a quiet farm. soon: what is to be published at its time (publish_due)."""

    taken_over: int = 0
    buried: int = 0
    published_again: int = 0
    advanced: int = 0
    announced: int = 0
    forgotten: int = 0
    expired: int = 0
    expired_threads: int = 0
    names_forgotten: int = 0
    soon: tuple[Delayed, ...] = field(default=(), compare=False)

    @property
    def is_quiet(self) -> bool:
        return self == Healed()

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "soon"}


def sweep_once(farm: Farm) -> Healed:
    """One sweep over a home. What gets work going comes first, what only tells of it last, since that may have to wait.

    raises  Unavailable when the database did not answer; the next sweep finds the same
    """
    sweep = farm.healing.sweep()
    dispatch(farm, sweep.again)
    stalled = farm.healing.stalled()
    dispatch(farm, stalled)
    in_redis = farm.healing.in_redis()
    dispatch(farm, in_redis)
    late = farm.healing.lost(farm.publisher.queue_length)
    dispatch(farm, late.again)
    announce(farm, sweep.ended)
    announced = announce(farm, farm.healing.unannounced())
    healed = Healed(
        taken_over=len(sweep.again) + sweep.later,
        buried=len(sweep.dead),
        published_again=len(late.again) + len(in_redis),
        advanced=len(stalled),
        announced=announced,
        forgotten=_forget(farm),
        expired=_expire_items(farm),
        expired_threads=_expire(farm),
        names_forgotten=farm.healing.forget_names(),
        soon=late.soon,
    )
    for use in farm.healing.unserved():
        # Nothing is lost, and nothing ends it: a worker of that build may come back, or an operator moves its runs.
        logger.warning(
            "work waits for a build that no worker serves",
            extra={"build": use.build, "waiting": use.waiting, "oldest_seconds": round(use.oldest_seconds)},
        )
    if not healed.is_quiet:
        logger.info("healed", extra=healed.counts())
    return healed


def publish_due(farm: Farm, delayed: Sequence[Delayed]) -> None:
    """The delay of these retries is over. What another healer has sent, and what was cancelled, is left out.

    raises  Unavailable when the database did not answer; the next sweep finds them overdue
    """
    dispatch(farm, farm.healing.due(delayed))


def _forget(farm: Farm) -> int:
    """Remove the threads of stateless runs whose answer has been there long enough to be read."""
    threads = ((Tenant(id=run.tenant_id, slug="", home=run.home), run.thread_id) for run in farm.healing.forgettable())
    return _thread_by_thread(threads, farm.threads.forget)


def _expire_items(farm: Farm) -> int:
    tenants = farm.healing.expired(limit=EXPIRED_TENANTS)
    return sum(farm.stores.sweep(tenant, limit=EXPIRED_A_TENANT) for tenant in tenants)


def _expire(farm: Farm) -> int:
    """See to the threads whose time is over."""

    def expire(tenant: Tenant, thread_id: UUID) -> bool:
        farm.threads.expire(tenant, thread_id)
        return True

    found = farm.healing.expired_threads()
    return _thread_by_thread(
        ((Tenant(id=tenant, slug="", home=home), thread) for tenant, home, thread in found), expire
    )


def _thread_by_thread(threads: Iterable[tuple[Tenant, UUID]], end: Callable[[Tenant, UUID], bool]) -> int:
    """How many were ended. One that takes longer than a statement may keeps none of the others.

    raises  Unavailable when the database did not answer for two in a row
    """
    done, missed = 0, False
    for tenant, thread_id in threads:
        try:
            done += end(tenant, thread_id)
        except Unavailable as error:
            if missed:
                raise
            missed = True
            logger.warning("a thread outlives its time", extra={"thread_id": str(thread_id), "code": error.code})
        else:
            missed = False
    return done
