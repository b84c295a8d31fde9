"""The store over Postgres: what comes back, who sees it, and for how long."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
    TTLConfig,
)

from agentfarm.engine.store_config import StoreConfig, StoreIndex
from agentfarm.errors import InvalidInput, Misconfigured, TooLarge
from agentfarm.local.services import Services
from agentfarm.persistence.database import Databases
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.store import PostgresStores, TenantStore
from agentfarm.tenancy import Tenant
from tests.integration.persistence.conftest import home_of
from tests.integration.persistence.postgres import Home, wait_for

MAX_VALUE_BYTES = 10_000

NS = ("users", "alice")


def stores(home: Home, config: StoreConfig | None = None) -> PostgresStores:
    return PostgresStores(Databases(home.app), config or StoreConfig(), max_value_bytes=MAX_VALUE_BYTES)


@pytest.fixture(scope="module")
def shared_home(servers: Services) -> Iterator[Home]:
    with home_of(servers) as made:
        yield made


@pytest.fixture
def home(shared_home: Home) -> Home:
    """The module's own, its store emptied: a database a test costs a second."""
    with shared_home.connect() as connection:
        connection.execute("TRUNCATE farm.store_item, farm.store_vector")
    return shared_home


@pytest.fixture
def store(home: Home, acme: Tenant) -> TenantStore:
    return stores(home).of(acme)


def keys(found: Any) -> list[str]:
    return [item.key for item in found]


# --------------------------------------------------------------------------- one item


VALUES = {
    "empty": {},
    "text": {"a": "ß𝄞\n\\u0000 \"'", "": "empty key", "ключ": 1},
    "numbers": {
        "n": [0, -1, 2**63, -(2**63), 2**64, 10**30, 0.1, 1.0, -0.0, 5e-324, 1e16, 1e22, 1e23, 1.7976931348623157e308]
    },
    "nested": {"a": {"b": [{"c": [[], {}, None, True, False]}]}},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_comes_back_equal(store: TenantStore, value: dict[str, Any]) -> None:
    store.put(NS, "k", value)

    item = store.get(NS, "k")

    assert item is not None
    assert item.value == value
    assert (item.namespace, item.key) == (NS, "k")
    assert item.created_at == item.updated_at
    assert item.created_at.utcoffset() is not None


def test_floats_stay_floats_and_integers_integers(store: TenantStore) -> None:
    store.put(NS, "k", VALUES["numbers"])

    item = store.get(NS, "k")

    assert item is not None
    assert [type(n) for n in item.value["n"]] == [type(n) for n in VALUES["numbers"]["n"]]


def test_tuples_come_back_as_lists(store: TenantStore) -> None:
    store.put(NS, "k", {"a": (1, (2,))})

    item = store.get(NS, "k")

    assert item is not None
    assert item.value == {"a": [1, [2]]}


def _loop() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


REFUSED: dict[str, tuple[Any, str]] = {
    "datetime": ({"born": {"at": datetime(2026, 1, 1, tzinfo=UTC)}}, r"value\.born\.at: is a datetime"),
    "date": ({"a": [0, date(2026, 1, 1)]}, r"value\.a\[1\]: is a date"),
    "UUID": ({"a": uuid4()}, r"value\.a: is an? UUID"),
    "bytes": ({"a": b"secret"}, r"value\.a: is a bytes"),
    "Decimal": ({"a": Decimal(1)}, r"value\.a: is a Decimal"),
    "set": ({"a": {1}}, r"value\.a: is a set"),
    "NaN": ({"a": float("nan")}, r"value\.a: is NaN"),
    "a number as key": ({"a": {1: "secret"}}, r"value\.a: has a key that is an int"),
    "NUL": ({"a": "\x00 secret"}, r"value\.a: has a NUL"),
    "NUL in a key": ({"\x00": 1}, "NUL"),
    "half a surrogate pair": ({"a": "\ud800"}, r"value\.a: has half"),
    "itself": (_loop(), "contains itself"),
    "a list": ([1], "value: is a list"),
    "text": ("secret", "value: is a str"),
}


@pytest.mark.parametrize(("value", "why"), REFUSED.values(), ids=REFUSED)
def test_what_json_cannot_carry_is_refused_by_place_and_type(store: TenantStore, value: Any, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as refused:
        store.batch([PutOp(NS, "good", {"a": 1}), PutOp(NS, "bad", value)])

    assert "secret" not in str(refused.value)
    assert store.search(()) == []


def test_a_value_larger_than_the_setting_is_refused(store: TenantStore) -> None:
    store.put(NS, "most", {"a": "x" * (MAX_VALUE_BYTES - 8)})

    with pytest.raises(TooLarge, match=str(MAX_VALUE_BYTES)):
        store.put(NS, "more", {"a": "x" * (MAX_VALUE_BYTES - 7)})
    with pytest.raises(TooLarge):
        store.put(NS, "bytes", {"a": "ß" * (MAX_VALUE_BYTES // 2)})


@pytest.mark.parametrize(
    ("namespace", "key"), [(("x" * 1001,), "k"), (("ß" * 501,), "k"), (NS, "x" * 1001), (NS, "\x00"), (NS, "\ud800")]
)
def test_a_place_that_cannot_be_indexed_is_refused(store: TenantStore, namespace: tuple[str, ...], key: str) -> None:
    with pytest.raises(InvalidInput):
        store.put(namespace, key, {})


def test_the_longest_places_fit_into_every_index(home: Home, acme: Tenant) -> None:
    store = stores(home, by_letters()).of(acme)
    namespace, key, field = ("n" * 1000,), "k" * 1000, "f" * 500

    store.put(namespace, key, {field: "text"}, index=[field])

    assert keys(store.search(namespace, query="text")) == [key]


@pytest.mark.parametrize("namespace", [(), ("",), ("a", ""), ("a.b",), ("langgraph",), ("a", "\x00")])
def test_a_namespace_that_is_none_is_refused_as_by_langgraph(store: TenantStore, namespace: tuple[str, ...]) -> None:
    with pytest.raises(InvalidNamespaceError):
        store.put(namespace, "k", {})
    with pytest.raises(InvalidNamespaceError):
        store.batch([PutOp(("good",), "k", {}), PutOp(namespace if namespace != ("langgraph",) else ("",), "k", {})])
    assert store.list_namespaces() == []


def test_an_item_that_is_put_again_keeps_when_it_was_made(store: TenantStore) -> None:
    store.put(NS, "k", {"a": 1})
    first = store.get(NS, "k")
    store.put(NS, "k", {"b": 2})
    second = store.get(NS, "k")

    assert first is not None
    assert second is not None
    assert second.value == {"b": 2}
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at


def test_a_deleted_item_is_gone_and_may_be_deleted_again(store: TenantStore) -> None:
    store.put(NS, "k", {})
    store.put(NS, "other", {})
    store.delete(NS, "k")
    store.delete(NS, "k")

    assert store.get(NS, "k") is None
    assert keys(store.search(NS)) == ["other"]


# --------------------------------------------------------------------------- batches


def test_a_batch_reads_what_was_there_before_it_and_its_last_put_counts(store: TenantStore) -> None:
    store.put(NS, "k", {"n": 0})
    ops: list[Op] = [
        PutOp(NS, "k", {"n": 1}),
        GetOp(NS, "k"),
        PutOp(NS, "new", {"n": 1}),
        PutOp(NS, "k", None),
        SearchOp(NS),
        PutOp(NS, "k", {"n": 2}),
        ListNamespacesOp(),
        PutOp(NS, "new", None),
        GetOp(NS, "k"),
    ]

    results: list[Any] = store.batch(ops)

    assert [results[n] for n in (0, 2, 3, 5, 7)] == [None] * 5
    assert results[1].value == results[8].value == {"n": 0}
    assert keys(results[4]) == ["k"]
    assert results[6] == [NS]
    assert [(item.key, item.value) for item in store.search(())] == [("k", {"n": 2})]


async def test_the_async_way_does_the_same(store: TenantStore) -> None:
    await store.aput(NS, "k", {"n": 1})
    item = await store.aget(NS, "k")

    assert item == store.get(NS, "k")
    assert item is not None
    assert await store.asearch(("users",)) == store.search(("users",))
    assert await store.alist_namespaces() == [NS]
    await store.adelete(NS, "k")
    assert await store.aget(NS, "k") is None


def test_puts_of_one_key_at_the_same_time_leave_one_of_them_whole(home: Home, acme: Tenant) -> None:
    """Batches that name the same keys in opposite orders, as many at once as there are connections."""
    store = stores(home, by_letters()).of(acme)
    names = [f"k{n}" for n in range(10)]

    def put(n: int) -> None:
        order = names if n % 2 else names[::-1]
        ops: list[Op] = [PutOp(NS, key, {"by": n, "text": "abcdefgh"[n % 8] * 3}) for key in order]
        store.batch([*ops, GetOp(NS, order[0]), *([PutOp(NS, order[5], None)] if n % 3 == 0 else [])])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(48)))

    rows = home.query(
        "SELECT i.key, i.value ->> 'text', s.vector FROM farm.store_item i"
        " LEFT JOIN farm.store_vector s USING (tenant_id, namespace, key)"
    )
    assert {row[0] for row in rows} >= set(names) - {"k4", "k5"}
    for key, text, vector in rows:
        assert vector == pytest.approx(letters([text])[0]), key  # of the same put as the value


def test_a_delete_that_came_first_leaves_the_vectors_of_a_put_that_came_then(home: Home, acme: Tenant) -> None:
    """Vectors are locked while the delete is between the item, which is not there yet, and its vectors."""
    store = stores(home, by_letters()).of(acme)
    with home.connect() as root, ThreadPoolExecutor(1) as pool:
        root.execute("BEGIN; LOCK TABLE farm.store_vector IN EXCLUSIVE MODE")
        deleted = pool.submit(store.delete, NS, "k")
        waits = """SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
                    WHERE l.relation = 'farm.store_vector'::regclass AND NOT l.granted"""
        wait_for(lambda: deleted.done() or home.query(waits), what="the delete to be at the vectors")
        place = (acme.id, ".".join(NS))
        root.execute(
            "INSERT INTO farm.store_item (tenant_id, namespace, key, value, value_bytes) VALUES (%s, %s, 'k', '{}', 2)",
            place,
        )
        root.execute("INSERT INTO farm.store_vector VALUES (%s, %s, 'k', 'text', '{1,0,0,0,0,0,0,0}')", place)
        root.execute("COMMIT")
        deleted.result()

    assert keys(store.search(NS, query="a")) == ["k"]


# --------------------------------------------------------------------------- search


def test_a_prefix_ends_at_a_label(store: TenantStore) -> None:
    for namespace in (
        ("foo",),
        ("foo", "a"),
        ("foo", "a", "b"),
        ("foobar",),
        ("foo-bar",),
        ("foo bar", "a"),
        ("fo",),
        ("foo0",),
    ):
        store.put(namespace, "k", {})

    assert {item.namespace for item in store.search(("foo",))} == {("foo",), ("foo", "a"), ("foo", "a", "b")}
    assert {item.namespace for item in store.search(("foo", "a"))} == {("foo", "a"), ("foo", "a", "b")}
    assert [item.namespace for item in store.search(("f",))] == []
    assert len(store.search(())) == 8


def test_what_was_changed_last_comes_first_page_by_page(store: TenantStore) -> None:
    for n in range(5):
        store.put(NS, f"k{n}", {})
    store.put(NS, "k1", {"again": True})

    assert keys(store.search(())) == ["k1", "k4", "k3", "k2", "k0"]
    assert [keys(store.search((), limit=2, offset=n)) for n in (0, 2, 4, 6)] == [["k1", "k4"], ["k3", "k2"], ["k0"], []]
    assert store.search((), limit=0) == []


ITEMS: dict[str, dict[str, Any]] = {
    "five": {"n": 5, "s": "a", "deep": {"x": {"y": 1}}, "list": [1, 2]},
    "ten": {"n": 10, "s": "b", "deep": {"x": {"y": 2}}},
    "half": {"n": 4.5, "s": "B", "none": None},
    "text": {"n": "7", "s": "ä", "flag": True},
    "bare": {},
}

FILTERS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "equal": ({"n": 5}, {"five"}),
    "1 and 1.0 are one number": ({"deep": {"x": {"y": 1.0}}}, {"five"}),
    "$eq": ({"n": {"$eq": 10}}, {"ten"}),
    "a list": ({"list": [1, 2]}, {"five"}),
    "null": ({"none": None}, {"half"}),
    "$ne passes what is there": ({"s": {"$ne": "a"}}, {"ten", "half", "text"}),
    "numbers are compared as numbers": ({"n": {"$gt": 5}}, {"ten"}),
    "$gte": ({"n": {"$gte": 5}}, {"five", "ten"}),
    "$lt": ({"n": {"$lt": 5}}, {"half"}),
    "$lte": ({"n": {"$lte": 5}}, {"five", "half"}),
    "text is compared by code point": ({"s": {"$gt": "a"}}, {"ten", "text"}),
    "a text is no number": ({"n": {"$lt": "8"}}, {"text"}),
    "both ends": ({"n": {"$gt": 4, "$lt": 6}}, {"five", "half"}),
    "two fields": ({"n": {"$gt": 4}, "s": "b"}, {"ten"}),
    "inside": ({"deep": {"x": {"y": {"$gte": 2}}}}, {"ten"}),
    "a boolean has no order": ({"flag": {"$gt": 0}}, set()),
    "nothing": ({}, set(ITEMS)),
}


@pytest.mark.parametrize(("wanted", "found"), FILTERS.values(), ids=FILTERS)
def test_a_filter_finds(store: TenantStore, wanted: dict[str, Any], found: set[str]) -> None:
    for key, value in ITEMS.items():
        store.put(NS, key, value)

    assert set(keys(store.search((), filter=wanted))) == found


@pytest.mark.parametrize(
    "wanted",
    [
        {"a": {"$in": [1]}},
        {"a": {"$gt": 1, "b": 2}},
        {"a": {"$gt": None}},
        {"a": {"$gt": True}},
        {"a": {"$lt": [1]}},
        {"a": datetime(2026, 1, 1, tzinfo=UTC)},
        {"a": float("nan")},
        {"\x00": 1},
        {1: 1},
        {f"k{n}": 1 for n in range(101)},
    ],
    ids=lambda wanted: repr(wanted)[:40],
)
def test_a_filter_that_means_nothing_is_refused(store: TenantStore, wanted: dict[Any, Any]) -> None:
    with pytest.raises(InvalidInput, match="filter"):
        store.search((), filter=wanted)


@pytest.mark.parametrize(("limit", "offset"), [(-1, 0), (1, -1), (1 << 31, 0), ("1", 0)])
def test_a_page_that_is_none_is_refused(store: TenantStore, limit: Any, offset: Any) -> None:
    for op in (SearchOp((), limit=limit, offset=offset), ListNamespacesOp(limit=limit, offset=offset)):
        with pytest.raises(InvalidInput):
            store.batch([op])


def test_a_search_below_a_prefix_reads_a_range_of_the_index(home: Home, acme: Tenant, store: TenantStore) -> None:
    """Text is compared by functions that are leakproof: row-level security leaves the index of use."""
    home.query(
        """INSERT INTO farm.store_item (tenant_id, namespace, key, value, value_bytes)
           SELECT %s, 'n' || (i %% 2000) || '.x', 'k' || i, '{}', 2 FROM generate_series(1, 20000) i RETURNING 1""",
        acme.id,
    )
    with home.connect() as connection:
        connection.execute("ANALYZE farm.store_item")
    with home.app.transaction(acme) as connection:
        plan = "\n".join(
            connection.exec_driver_sql(
                "EXPLAIN SELECT key FROM farm.store_item i WHERE i.tenant_id = farm.tenant()"
                " AND (i.namespace = 'n7' OR i.namespace >= 'n7.' AND i.namespace < 'n7/')"
            ).scalars()
        )

    assert "namespace >= 'n7.'" in plan.split("Index Cond")[-1] or "Index Cond" in plan
    assert "Seq Scan" not in plan
    assert len(store.search(("n7",), limit=100)) == 10


# --------------------------------------------------------------------------- namespaces


SPACES = [("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "d", "e"), ("a", "x", "c"), ("a-b",), ("ab", "c"), ("z", "c")]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, SPACES),
        ({"prefix": ("a",)}, SPACES[:5]),
        ({"prefix": ("a", "b"), "max_depth": 3}, [("a", "b"), ("a", "b", "c"), ("a", "b", "d")]),
        ({"suffix": ("c",)}, [("a", "b", "c"), ("a", "x", "c"), ("ab", "c"), ("z", "c")]),
        ({"prefix": ("a",), "suffix": ("c",)}, [("a", "b", "c"), ("a", "x", "c")]),
        ({"prefix": ("a", "*", "c")}, [("a", "b", "c"), ("a", "x", "c")]),
        ({"prefix": ("*", "c")}, [("ab", "c"), ("z", "c")]),
        ({"suffix": ("b", "*")}, [("a", "b", "c")]),
        ({"suffix": ("*", "*", "*", "*")}, [("a", "b", "d", "e")]),
        ({"max_depth": 1}, [("a",), ("a-b",), ("ab",), ("z",)]),
        ({"limit": 2, "offset": 1}, SPACES[1:3]),
        ({"prefix": ("nothing",)}, []),
    ],
    ids=repr,
)
def test_namespaces_are_listed_by_their_labels(
    store: TenantStore, asked: dict[str, Any], found: list[tuple[str, ...]]
) -> None:
    for namespace in reversed(SPACES):
        for key in ("one", "two"):
            store.put(namespace, key, {})

    assert store.list_namespaces(**asked) == sorted(found)


def test_a_list_of_namespaces_takes_no_other_conditions(store: TenantStore) -> None:
    with pytest.raises(InvalidInput, match="match_type"):
        store.batch([ListNamespacesOp((MatchCondition("infix", ("a",)),))])  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="max_depth"):
        store.list_namespaces(max_depth=0)


# --------------------------------------------------------------------------- two tenants


def test_tenants_share_names_and_nothing_else(home: Home, acme: Tenant, globex: Tenant) -> None:
    both = stores(home, by_letters())
    ours, theirs = both.of(acme), both.of(globex)
    ours.put(NS, "k", {"of": "acme", "text": "aaa"})
    theirs.put(NS, "k", {"of": "globex", "text": "aaa"})
    theirs.put(("theirs",), "alone", {"text": "aaa"})

    for of, store in (("acme", ours), ("globex", theirs)):
        item = store.get(NS, "k")
        assert item is not None
        assert item.value["of"] == of
    assert ours.get(("theirs",), "alone") is None
    assert [item.value["of"] for item in ours.search(())] == ["acme"]
    assert [item.value["of"] for item in ours.search((), query="aaa")] == ["acme"]
    assert ours.search((), filter={"of": "globex"}) == []
    assert ours.list_namespaces() == [NS]
    ours.delete(("theirs",), "alone")
    ours.delete(NS, "k")
    assert keys(theirs.search(())) == ["alone", "k"]


@pytest.mark.parametrize("label", ["*", "%", "_", "..", "' OR true --", "alice' --"])
def test_no_label_reaches_beyond_its_tenant(home: Home, acme: Tenant, globex: Tenant, label: str) -> None:
    stores(home).of(globex).put(NS, "k", {"n": 1})
    store = stores(home).of(acme)

    for ask in (
        lambda: store.search((label,)),
        lambda: store.list_namespaces(prefix=(label,)),
        lambda: store.list_namespaces(suffix=(label,)),
        lambda: store.search((), filter={label: {"$ne": label}}),
    ):
        try:
            assert ask() == []
        except InvalidNamespaceError:
            assert "." in label


# --------------------------------------------------------------------------- time to live


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


# --------------------------------------------------------------------------- semantic search


def letters(texts: list[str]) -> list[list[float]]:
    """How much of a text each of the first letters is: what is alike has the same letters."""
    vectors = [[float(text.count(letter)) for letter in "abcdefgh"] for text in texts]
    lengths = [sum(number**2 for number in vector) ** 0.5 for vector in vectors]
    return [[n / length if length else 0.0 for n in v] for v, length in zip(vectors, lengths, strict=True)]


def by_letters(*fields: str, embed: Any = letters) -> StoreConfig:
    return StoreConfig(StoreIndex.of({"embed": embed, "dims": 8, "fields": list(fields) or ["text"]}))


@pytest.fixture
def library(home: Home, acme: Tenant) -> TenantStore:
    store = stores(home, by_letters()).of(acme)
    for key, text in {"a": "aaaa", "ab": "abab", "b": "bbbb", "h": "hhhh", "none": "xyz"}.items():
        store.put(("docs", key), key, {"text": text, "n": len(key)})
    store.put(("docs",), "bare", {"n": 1})
    return store


def test_what_is_most_alike_comes_first_with_its_cosine(library: TenantStore) -> None:
    found = library.search(("docs",), query="aaab")

    assert keys(found)[:3] == ["a", "ab", "b"]
    assert [item.score for item in found[:3]] == pytest.approx([0.948683, 0.894427, 0.316228], abs=1e-6)
    assert {item.key: item.score for item in found[3:]} == {"h": 0.0, "none": 0.0}
    assert [keys(library.search(("docs",), query="aaab", limit=1, offset=n)) for n in range(3)] == [
        ["a"],
        ["ab"],
        ["b"],
    ]


def test_a_search_by_likeness_keeps_to_prefix_and_filter(library: TenantStore) -> None:
    assert keys(library.search(("docs", "b"), query="a")) == ["b"]
    assert keys(library.search(("docs",), query="a", filter={"n": {"$gt": 1}})) == ["ab", "none"]
    assert library.search(("doc",), query="a") == []


def test_without_a_query_there_is_no_score_and_nothing_is_left_out(library: TenantStore) -> None:
    for asked in ({}, {"query": None}, {"query": ""}):
        found = library.search(("docs",), **asked)
        assert len(found) == 6
        assert {item.score for item in found} == {None}


def test_of_several_texts_the_nearest_counts(home: Home, acme: Tenant) -> None:
    store = stores(home, by_letters("title", "parts[*].text")).of(acme)
    store.put(NS, "k", {"title": "aaaa", "parts": [{"text": "bbbb"}, {"text": "cccc"}, {"other": 1}]})

    assert [item.score for item in store.search((), query="c")] == [1.0]
    assert [item.score for item in store.search((), query="a")] == [1.0]
    assert home.query("SELECT field FROM farm.store_vector ORDER BY 1") == [
        ("parts[*].text.0",), ("parts[*].text.1",), ("title",),
    ]  # fmt: skip


def test_a_put_says_what_of_it_is_found(home: Home, library: TenantStore) -> None:
    library.put(("docs", "a"), "a", {"text": "aaaa", "other": "hhhh"}, index=["other"])
    library.put(("docs", "b"), "b", {"text": "bbbb"}, index=False)
    library.delete(("docs", "h"), "h")

    first = library.search((), query="h")[0]
    assert (first.key, first.score) == ("a", 1.0)
    assert set(keys(library.search((), query="h"))) == {"a", "ab", "none"}
    assert home.query("SELECT count(*) FROM farm.store_vector") == [(3,)]


def test_an_index_left_out_leaves_a_query_without_effect(store: TenantStore) -> None:
    store.put(NS, "k", {"text": "a"}, index=["text"])

    found = store.search((), query="b")

    assert [(item.key, item.score) for item in found] == [("k", None)]


def test_vectors_of_another_length_are_not_compared(home: Home, acme: Tenant, library: TenantStore) -> None:
    other = StoreConfig(
        StoreIndex.of({"embed": lambda texts: [[1.0, 0.0] for _ in texts], "dims": 2, "fields": ["text"]})
    )
    store = stores(home, other).of(acme)
    store.put(("docs",), "new", {"text": "a"})

    assert keys(store.search((), query="a")) == ["new"]


@pytest.mark.parametrize("vector", [[1.0], [1.0] * 9, [float("nan")] * 8, [float("inf")] * 8])
def test_an_embedding_that_is_not_what_the_index_says_is_refused_and_nothing_put(
    home: Home, acme: Tenant, vector: list[float]
) -> None:
    store = stores(home, by_letters(embed=lambda texts: [vector for _ in texts])).of(acme)

    with pytest.raises(Misconfigured, match="8 dimensions"):
        store.put(NS, "k", {"text": "a"})
    assert home.query("SELECT count(*) FROM farm.store_item") == [(0,)]


@pytest.mark.parametrize("index", ["text", 5, [1], ["x" * 501], {"a": 1}])
def test_an_index_that_is_none_is_refused(library: TenantStore, index: Any) -> None:
    with pytest.raises(InvalidInput, match="index"):
        library.put(NS, "k", {"text": "a"}, index=index)


def test_an_item_of_too_many_texts_is_refused(library: TenantStore) -> None:
    with pytest.raises(InvalidInput, match="300 texts"):
        library.put(NS, "k", {"many": ["a"] * 300}, index=["many[*]"])


@pytest.mark.parametrize("index", [[f"a{n}" for n in range(65)], ["{" + ",".join("a" * 65) + "}"]])
def test_a_put_that_names_more_paths_than_an_item_needs_is_refused(library: TenantStore, index: list[str]) -> None:
    """Each may stand for the whole of a large item."""
    with pytest.raises(InvalidInput, match="64 paths"):
        library.put(NS, "k", {"text": "a"}, index=index)


async def test_an_async_embedding_serves_both_ways_and_holds_no_connection(home: Home, acme: Tenant) -> None:
    asked: list[int] = []

    async def embed(texts: list[str]) -> list[list[float]]:
        asked.append(home.app.engine.pool.checkedout())  # type: ignore[attr-defined]  # a QueuePool's
        return letters(texts)

    store = stores(home, by_letters(embed=embed)).of(acme)
    await store.aput(NS, "one", {"text": "aaaa"})
    store.put(NS, "two", {"text": "bbbb"})  # with a loop running in this thread

    assert keys(await store.asearch((), query="a")) == keys(store.search((), query="a")) == ["one", "two"]
    assert asked == [0, 0, 0, 0]
