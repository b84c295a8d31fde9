"""Semantic search: which texts are compared, with what, and how the nearest are found."""

from typing import Any

import pytest

from agentfarm.engine.store_config import StoreConfig, StoreIndex
from agentfarm.errors import InvalidInput, Misconfigured
from agentfarm.persistence.store import TenantStore
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.store.parts import NS, by_letters, keys, letters, stores


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
