"""The node cache over a real server: shared, walled, bounded, and never a reason for a run to fail."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph.cache.base import FullKey
from redis import Redis

from agentfarm.errors import CacheUnavailable
from agentfarm.persistence import node_cache
from agentfarm.persistence.node_cache import NodeCache, RedisNodeCaches
from agentfarm.persistence.serde import FaithfulSerializer
from tests.integration.streaming.valkey import Valkey

ACME, GLOBEX = uuid4(), uuid4()
NS = ("__pregel_ns_writes", "graphs.node", "node")
KEY: FullKey = (NS, "0123")
WRITES = [("log", ["secret"]), ("branch:to:next", None)]

Make = Callable[..., NodeCache]


@dataclass(frozen=True)
class Note:
    """A class of the graph's state."""

    text: str
    at: tuple[int, int]


@pytest.fixture
def server(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def make(redis_url: str, server: Redis) -> Iterator[Make]:
    """The cache as another process has it: nothing is shared but the server."""
    opened: list[RedisNodeCaches] = []

    def made(tenant_id: UUID = ACME, graph_id: str = "g", *, url: str = redis_url, **given: Any) -> NodeCache:
        fingerprint = given.pop("fingerprint", "f")
        options = {"max_bytes": 1 << 20, "max_seconds": 3600, **given}
        opened.append(RedisNodeCaches(url, lambda _: FaithfulSerializer(types=[Note]), **options))
        return opened[-1].of(tenant_id, graph_id, fingerprint=fingerprint)

    yield made
    for caches in opened:
        caches.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, to be killed."""
    server = Valkey(tmp_path).start()
    yield server
    server.thaw()
    server.kill()


def test_what_one_process_cached_another_finds(make: Make) -> None:
    make().set({KEY: (WRITES, None)})

    assert make().get([KEY, (NS, "other")]) == {KEY: WRITES}
    assert asyncio.run(make().aget([KEY])) == {KEY: WRITES}


def test_a_value_comes_back_as_what_it_was(make: Make) -> None:
    asyncio.run(make().aset({KEY: ([("note", Note("a", (1, 2)))], 60)}))

    (((_, note),),) = make().get([KEY]).values()

    assert note == Note("a", (1, 2))
    assert type(note) is Note
    assert type(note.at) is tuple


@pytest.mark.parametrize(
    "other", [{"tenant_id": GLOBEX}, {"graph_id": "h"}, {"fingerprint": "changed"}], ids=["tenant", "graph", "shape"]
)
def test_another_tenant_another_graph_and_a_changed_one_find_nothing(make: Make, other: dict[str, Any]) -> None:
    make().set({KEY: (WRITES, None)})

    assert make(**other).get([KEY]) == {}


def test_no_key_tells_an_input_a_node_or_a_graph(make: Make, server: Redis) -> None:
    make(graph_id="payments").set({(("w", "module.function", "pay"), "raw input of the node"): (WRITES, None)})

    (key,) = server.keys()

    assert key.startswith(b"t:%s:cache:" % ACME.hex.encode())
    assert all(set(part) <= set(b"0123456789abcdef") for part in key.split(b":")[3:])


@pytest.mark.parametrize(("ttl", "kept"), [(60, 60), (None, 3600), (10**9, 3600)])
def test_redis_forgets_an_entry_in_time(make: Make, server: Redis, ttl: int | None, kept: int) -> None:
    make().set({KEY: (WRITES, ttl)})

    (key,) = server.keys()
    assert kept - 5 <= server.ttl(key) <= kept


def test_an_entry_that_is_kept_for_no_time_is_not_written(make: Make, server: Redis) -> None:
    make().set({KEY: (WRITES, 0)})

    assert server.keys() == []


def test_a_large_result_is_not_cached_and_the_log_says_so_once(
    make: Make, server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make(max_bytes=100)
    with caplog.at_level(logging.WARNING):
        for name in ("1", "2"):
            cache.set({(NS, name): ([("log", "x" * 200)], None)})
        cache.set({(NS, "3"): ([("log", "x" * 20)], None)})

    assert len(server.keys()) == 1
    assert [record.message for record in caplog.records if "AGENTFARM_NODE_CACHE_MAX_BYTES" in record.message] != []
    assert len(caplog.records) == 1
    assert "x" * 20 not in caplog.text


def test_nothing_is_cached_where_an_entry_may_have_no_bytes(make: Make, server: Redis) -> None:
    make(max_bytes=0).set({KEY: (WRITES, None)})
    make().set({KEY: (WRITES, None)})

    assert make(max_bytes=0).get([KEY]) == {}


def test_a_value_that_would_not_come_back_is_not_cached(make: Make, server: Redis) -> None:
    make().set({KEY: ([("live", object())], None)})

    assert server.keys() == []


@pytest.mark.parametrize("entry", [b"", b"msgpack:\xff\xff", b"pickle:cos\nsystem\n.", b"msgpack:\x01"])
def test_an_entry_that_cannot_be_read_is_as_none(make: Make, server: Redis, entry: bytes) -> None:
    make().set({KEY: (WRITES, None)})
    (key,) = server.keys()
    server.set(key, entry)

    assert make().get([KEY]) == {}


def test_clearing_removes_what_was_named_and_nothing_else(make: Make) -> None:
    other_node: FullKey = (("__pregel_ns_writes", "graphs.other", "other"), "0123")
    make().set({KEY: (WRITES, None), other_node: (WRITES, None)})
    make(GLOBEX).set({KEY: (WRITES, None)})
    make(graph_id="h").set({KEY: (WRITES, None)})

    make().clear([NS])
    assert make().get([KEY, other_node]) == {other_node: WRITES}
    asyncio.run(make().aclear())

    assert make().get([KEY, other_node]) == {}
    assert make(GLOBEX).get([KEY]) == {KEY: WRITES}
    assert make(graph_id="h").get([KEY]) == {KEY: WRITES}


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_redis_that_is_away_is_asked_once_and_then_left_alone(
    make: Make, own: Valkey, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make(url=own.url, answer_seconds=0.1)
    cache.set({KEY: (WRITES, None)})
    assert cache.get([KEY]) == {KEY: WRITES}

    getattr(own, how)()
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            assert cache.get([KEY]) == {}
            cache.set({KEY: (WRITES, None)})
    with pytest.raises(CacheUnavailable):
        cache.clear()

    assert [record.message for record in caplog.records] == ["the node cache does not answer: nodes are executed"]
    if how == "freeze":
        own.thaw()
        monkeypatch.setattr(node_cache, "PAUSE_SECONDS", 0.0)
        cache._caches._asks_again_at = 0.0
        assert cache.get([KEY]) == {KEY: WRITES}
