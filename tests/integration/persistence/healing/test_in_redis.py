"""Runs that Redis moves, as the healer comes to them."""

from collections.abc import Callable

import psycopg
import pytest

from agentfarm import clock
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.redis_tier.healing import RedisHealing
from agentfarm.persistence.redis_tier.scripts import thread_key
from agentfarm.run_options import Persistence
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand, begin, start
from tests.integration.persistence.healing.parts import declare_dead
from tests.integration.persistence.postgres import Home


@pytest.fixture
def tier() -> Persistence:
    return "redis"


def begun(home: Home, tenant: Tenant, *, seconds_ago: int) -> ExecuteNode:
    message = start(home, tenant, tier="redis")
    sql = "UPDATE farm.run SET started_at = now() - make_interval(secs => %s) WHERE run_id = %s RETURNING 1"
    home.query(sql, seconds_ago, message.run_id)
    return message


def test_however_many_runs_are_well_in_redis_one_that_is_not_has_its_turn(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    healthy, dying = hands("healthy"), hands("dying")
    redis = RedisHealing(healthy.scripts, healthy.behind, late_seconds=60, lease_seconds=15)
    healer = PostgresHealing(home.ops, home.app, home.settings, redis=redis)
    messages = [begun(home, acme, seconds_ago=100 - n) for n in range(5)]
    held = [(dying if n == 4 else healthy).claim(message) for n, message in enumerate(messages)]

    def recalled() -> list[int]:
        sql = """SELECT run_id FROM farm.run r WHERE NOT EXISTS (SELECT FROM farm.thread_head h
                  WHERE h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id AND h.redis_run = r.run_id)"""
        found = {run_id for (run_id,) in home.query(sql)}
        return [n for n, message in enumerate(messages) if message.run_id in found]

    declare_dead(home, dying)
    found = []
    for _ in range(3):
        healer.in_redis(lambda queue: 0, limit=2)
        found.append(recalled())
    assert found == [[], [], [4]]

    declare_dead(home, healthy)  # from the first one on again
    healer.in_redis(lambda queue: 0, limit=2)
    assert recalled() == [0, 1, 4]
    del held


SHORT, LONG = 0, 1000


def waited(message: ExecuteNode, hand: Hand, *, seconds: float) -> None:
    """As if the messages of this run had been sent so much longer ago."""
    assert message.thread_id is not None
    key = thread_key(message.tenant_id, message.thread_id)
    client = hand.scripts.servers.of(key).client
    stored: dict[bytes, bytes] = client.hgetall(key)  # type: ignore[assignment]  # of a sync client
    for name, value in stored.items():
        if name.startswith(b"x:") and value.startswith(b"r,"):
            _, sent, *times = value.decode().split(",")
            client.hset(key, name, ",".join(["r", str(int(sent) - round(seconds * 1000)), *times]))


def test_a_start_that_nobody_claimed_waits_in_a_long_queue_and_is_lost_from_a_short_one(
    home: Home, hand: Hand, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic_seconds", lambda: now)
    healer = healer_of(home, hand)
    message = begun(home, acme, seconds_ago=10)

    assert healer.in_redis(lambda queue: LONG) == ()
    assert healer.in_redis(lambda queue: SHORT) == (message,)
    assert healer.in_redis(lambda queue: SHORT) == ()
    now += 5  # of 3, and twice as long after each
    assert healer.in_redis(lambda queue: SHORT) == ()
    now += 2
    assert healer.in_redis(lambda queue: SHORT) == (message,)

    assert home.query("SELECT redis_run IS NOT NULL, lost_to FROM farm.thread_head, farm.node_execution") == [
        (True, None)
    ]
    assert hand.claim(message).attempt == 1


def test_a_node_that_nobody_took_waits_in_a_long_queue_and_is_lost_from_a_short_one(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    healer = healer_of(home, hand)
    claimed = hand.claim(begun(home, acme, seconds_ago=0))
    (message,) = hand.commit(claimed, begin(claimed, "one")).ready

    assert healer.in_redis(lambda queue: SHORT) == ()
    waited(message, hand, seconds=4)
    assert healer.in_redis(lambda queue: LONG) == ()
    assert healer.in_redis(lambda queue: SHORT) == (message,)
    waited(message, hand, seconds=4)
    assert healer.in_redis(lambda queue: SHORT) == ()
    waited(message, hand, seconds=3)
    assert healer.in_redis(lambda queue: SHORT) == (message,)
    waited(message, hand, seconds=100)
    assert healer.in_redis(lambda queue: LONG) == (message,), "it may be others' backlog by now"


def test_a_thread_that_somebody_has_keeps_no_other_from_its_turn(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    hand, dying = hands("hand"), hands("dying")
    healer = healer_of(home, hand)
    messages = [begun(home, acme, seconds_ago=seconds) for seconds in (2, 1)]
    held = [dying.claim(message) for message in messages]
    dying.lease.stop()
    recalled = "SELECT thread_id FROM farm.thread_head WHERE redis_run IS NULL"

    with psycopg.connect(home.own.root_url) as somebody:
        somebody.execute("SELECT FROM farm.thread WHERE thread_id = %s FOR UPDATE", [held[0].thread_id])
        healer.in_redis(lambda queue: LONG)
        assert home.query(recalled) == [(held[1].thread_id,)]

    healer.in_redis(lambda queue: LONG)
    assert len(home.query(recalled)) == 2


def healer_of(home: Home, hand: Hand) -> PostgresHealing:
    redis = RedisHealing(hand.scripts, hand.behind, late_seconds=3, lease_seconds=15)
    return PostgresHealing(home.ops, home.app, home.settings, redis=redis)
