"""Of a run in Redis, too: who has lost his lease saves nothing; what follows another line does not count."""

from uuid import uuid4

import pytest

from agentfarm.errors import LeaseLost
from agentfarm.persistence.redis_tier.saver import RedisSaver
from agentfarm.persistence.redis_tier.scripts import thread_key
from agentfarm.records import Claimed
from agentfarm.run_options import Persistence
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand, begin, execution, go_on, settled, start
from tests.integration.persistence.postgres import Home


@pytest.fixture
def tier() -> Persistence:
    return "redis"


@pytest.fixture
def hand(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> Hand:
    """What it commits arrives in Postgres, and what it gives back is recalled, when the test says so: `_round`."""
    monkeypatch.setattr(hand.behind, "begin", lambda: None)
    return hand


def claimed_siblings(hand: Hand, first: Claimed, *names: str) -> list[Claimed]:
    return [hand.claim(message) for message in hand.commit(first, begin(first, *names)).ready]


def test_a_lease_that_was_taken_again_is_another_lease(home: Home, hand: Hand, acme: Tenant) -> None:
    """By the same worker: of one that is lost, the run is recalled."""
    first = hand.claim(start(home, acme, tier="redis"))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    zombie = hand.claim(to_one)
    hand.executions.release(zombie)
    taken = hand.claim(to_one)

    with pytest.raises(LeaseLost):
        hand.commit(zombie, go_on(zombie))
    with pytest.raises(LeaseLost):
        zombie.saver.put_writes(
            {"configurable": {"thread_id": "x", "checkpoint_ns": "", "checkpoint_id": str(to_one.checkpoint_id)}},
            [("text", "late")],
            str(uuid4()),
        )

    assert hand.commit(taken, go_on(taken)).ended is not None


def test_what_follows_a_commit_that_postgres_has_never_had_is_refused(home: Home, hand: Hand, acme: Tenant) -> None:
    """A Redis that has found an older memory commits once more in the place of what had arrived already."""
    first = hand.claim(start(home, acme, tier="redis"))
    a, b, c = claimed_siblings(hand, first, "a", "b", "c")
    hand.behind._round()
    key = thread_key(acme.id, a.thread_id)
    redis = hand.scripts.servers.of(key).client
    memory = redis.dump(key)
    hand.commit(a, settled(a))
    hand.behind._round()

    redis.restore(key, 0, memory, replace=True)  # type: ignore[arg-type]  # bytes, of a sync client
    for sibling in (b, c):
        hand.commit(sibling, settled(sibling))
        hand.behind._round()

    assert [execution(home, one.message)["status"] for one in (a, b, c)] == ["done", "in_redis", "in_redis"]
    assert isinstance(c.saver, RedisSaver)
    hand.behind.recall(c.saver.place)
    assert [execution(home, one.message)["status"] for one in (a, b, c)] == ["done", "ready", "ready"]
