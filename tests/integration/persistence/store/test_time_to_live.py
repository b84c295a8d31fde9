"""How long an item lives, who lets it live on, and who removes it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from langgraph.store.base import (
    TTLConfig,
)

from agentfarm.engine.store_config import StoreConfig
from agentfarm.errors import InvalidInput
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.store import TenantStore
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.store.parts import NS, by_letters, keys, stores

MINUTE = TTLConfig(default_ttl=1, refresh_on_read=True)


def expiry(home: Home, key: str = "k") -> datetime | None:
    ((found,),) = home.query("SELECT expires_at FROM farm.store_item WHERE key = %s", key)
    assert found is None or isinstance(found, datetime)
    return found


def move_expiry(home: Home, seconds: float, key: str = "k") -> datetime | None:
    """To so many seconds from now."""
    home.query(
        "UPDATE farm.store_item SET expires_at = now() + make_interval(secs => %s) WHERE key = %s RETURNING 1",
        seconds,
        key,
    )
    return expiry(home, key)


def test_an_item_lives_for_its_ttl_or_the_default_one(home: Home, acme: Tenant) -> None:
    store = stores(home, StoreConfig(ttl=MINUTE)).of(acme)

    store.put(NS, "default", {})
    store.put(NS, "own", {}, ttl=0.5)
    store.put(NS, "ever", {}, ttl=None)

    rows = home.query(
        "SELECT key, ttl_minutes, round(extract(epoch FROM expires_at - updated_at)) FROM farm.store_item ORDER BY key"
    )
    assert rows == [("default", 1.0, 60), ("ever", None, None), ("own", 0.5, 30)]


def test_what_is_over_is_seen_by_nobody(home: Home, acme: Tenant) -> None:
    store = stores(home, StoreConfig(by_letters().index, MINUTE)).of(acme)
    store.put(("gone",), "k", {"text": "aaa"})
    store.put(("here",), "other", {"text": "aaa"}, ttl=None)

    over = move_expiry(home, -1)

    assert store.get(("gone",), "k") is None
    assert keys(store.search(())) == keys(store.search((), query="aaa")) == ["other"]
    assert store.list_namespaces() == [("here",)]
    assert expiry(home) == over  # no read brings it back


def test_an_item_put_where_one_is_over_is_a_new_one(home: Home, acme: Tenant) -> None:
    store = stores(home, StoreConfig(ttl=MINUTE)).of(acme)
    store.put(NS, "k", {"n": 1})
    first = store.get(NS, "k")
    move_expiry(home, -1)

    store.put(NS, "k", {"n": 2})

    second = store.get(NS, "k")
    assert first is not None
    assert second is not None
    assert second.value == {"n": 2}
    assert second.created_at > first.created_at


READS: dict[str, Callable[..., Any]] = {
    "get": lambda store, **refresh: store.get(NS, "k", **refresh),
    "search": lambda store, **refresh: store.search(("users",), **refresh),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize(
    ("configured", "asked", "is_refreshed"),
    [(True, {}, True), (True, {"refresh_ttl": False}, False), (False, {}, False), (False, {"refresh_ttl": True}, True)],
)
def test_a_read_lets_an_item_live_on_where_that_is_asked(
    home: Home, acme: Tenant, read: Callable[..., Any], configured: bool, asked: dict[str, bool], is_refreshed: bool
) -> None:
    store = stores(home, StoreConfig(ttl=TTLConfig(default_ttl=1, refresh_on_read=configured))).of(acme)
    store.put(NS, "k", {})
    before = move_expiry(home, 10)

    assert read(store, **asked)

    after = expiry(home)
    assert before is not None
    assert after is not None
    assert (after > before) == is_refreshed


def test_a_put_without_ttl_lets_the_item_stay(home: Home, store: TenantStore) -> None:
    store.put(NS, "k", {}, ttl=1)
    store.put(NS, "k", {})

    assert expiry(home) is None


@pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf"), 1e12, "5", True])
def test_a_ttl_that_is_none_is_refused(store: TenantStore, ttl: Any) -> None:
    with pytest.raises(InvalidInput, match="ttl"):
        store.put(NS, "k", {}, ttl=ttl)


def test_the_healer_removes_what_is_over_so_many_at_a_time(home: Home, acme: Tenant, globex: Tenant) -> None:
    both, healing = stores(home, by_letters()), PostgresHealing(home.ops, home.app, home.settings)
    for tenant in (acme, globex):
        for n in range(5):
            both.of(tenant).put(NS, f"k{n}", {"text": "abc"}, ttl=1 if n < 4 else None)
    assert healing.expired() == ()
    home.query(
        "UPDATE farm.store_item SET expires_at = now() - interval '1 s' WHERE ttl_minutes IS NOT NULL RETURNING 1"
    )

    assert set(healing.expired()) == {Tenant(acme.id, ""), Tenant(globex.id, "")}
    assert [both.sweep(acme, limit=3), both.sweep(acme, limit=3), both.sweep(acme, limit=3)] == [3, 1, 0]

    assert healing.expired() == (Tenant(globex.id, ""),)
    assert home.query("SELECT count(*) FROM farm.store_item WHERE tenant_id = %s", acme.id) == [(1,)]
    assert home.query("SELECT count(*) FROM farm.store_vector WHERE tenant_id = %s", acme.id) == [(1,)]
    assert home.query("SELECT count(*) FROM farm.store_item WHERE tenant_id = %s", globex.id) == [(5,)]
