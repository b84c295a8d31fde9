"""An item of the store: what comes back, and what is refused."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from langgraph.store.base import (
    InvalidNamespaceError,
    PutOp,
)

from agentfarm.errors import InvalidInput, TooLarge
from agentfarm.persistence.store import TenantStore
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.store.parts import MAX_VALUE_BYTES, NS, by_letters, keys, stores

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
