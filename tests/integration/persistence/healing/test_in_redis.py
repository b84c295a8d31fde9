"""Runs that Redis moves, as the healer comes to them."""

from collections.abc import Callable

import pytest

from agentfarm.messages import ExecuteNode
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.redis_tier.healing import RedisHealing
from agentfarm.run_options import Persistence
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand, start
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
        healer.in_redis(limit=2)
        found.append(recalled())
    assert found == [[], [], [4]]

    declare_dead(home, healthy)  # from the first one on again
    healer.in_redis(limit=2)
    assert recalled() == [0, 1, 4]
    del held
