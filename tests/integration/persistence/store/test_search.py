"""Search by prefix and filter, and the list of namespaces."""

from datetime import UTC, datetime
from typing import Any

import pytest
from langgraph.store.base import (
    ListNamespacesOp,
    MatchCondition,
    SearchOp,
)

from agentfarm.errors import InvalidInput
from agentfarm.persistence.store import TenantStore
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.store.parts import NS, keys


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
