"""P5, the second wall, with the others off: what one tenant's nodes cached is not there for another's.

Redis itself is the judge: a user of it who may reach the keys of one tenant and no others.
"""

from uuid import UUID

import pytest
from langgraph.cache.base import FullKey
from redis import Redis
from redis.exceptions import NoPermissionError

from agentfarm.errors import CacheUnavailable
from agentfarm.persistence.node_cache import NodeCache, RedisNodeCaches
from agentfarm.persistence.serde import FaithfulSerializer
from tests.isolation.redis_users import ACME, GLOBEX

KEY: FullKey = (("__pregel_ns_writes", "graphs.node", "node"), "the same input")


def cache(url: str, tenant_id: UUID) -> NodeCache:
    return RedisNodeCaches(url, lambda _: FaithfulSerializer(), max_bytes=1000, max_seconds=60).of(tenant_id, "g")


def test_a_tenant_s_cache_reaches_the_keys_of_that_tenant_alone(redis_url: str, url_of_globex: str) -> None:
    cache(redis_url, ACME).set({KEY: ([("log", "of acme")], None)})
    globex = cache(url_of_globex, GLOBEX)

    globex.set({KEY: ([("log", "of globex")], None)})

    assert globex.get([KEY]) == {KEY: [("log", "of globex")]}
    globex.clear()
    assert globex.get([KEY]) == {}
    assert cache(redis_url, ACME).get([KEY]) == {KEY: [("log", "of acme")]}


def test_the_judge_refuses_another_tenant_s_keys(redis_url: str, url_of_globex: str, server: Redis) -> None:
    cache(redis_url, ACME).set({KEY: ([("log", "of acme")], None)})
    (key,) = server.keys()

    with Redis.from_url(url_of_globex) as client, pytest.raises(NoPermissionError):
        client.get(key)
    with pytest.raises(CacheUnavailable):
        cache(url_of_globex, ACME).clear()

    assert cache(url_of_globex, ACME).get([KEY]) == {}
    assert cache(redis_url, ACME).get([KEY]) != {}
