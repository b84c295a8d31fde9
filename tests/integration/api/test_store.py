"""The store through the official clients, and the same items inside of graphs; two tenants beside each other."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import APIStatusError

from tests.farm import FarmProcesses
from tests.integration.api.conftest import MAX_VALUE_BYTES


def client_of(farm: FarmProcesses, slug: str) -> SyncLangGraphClient:
    return get_sync_client(url=farm.url, api_key=farm.keys[slug])


@pytest.fixture
def client(farm: FarmProcesses) -> Iterator[SyncLangGraphClient]:
    """As tenant demo, whose store is empty."""
    farm.query("DELETE FROM farm.store_vector RETURNING 1")
    farm.query("DELETE FROM farm.store_item RETURNING 1")
    with client_of(farm, "demo") as made:
        yield made


def keys(found: Any) -> list[str]:
    return [item["key"] for item in found["items"]]


def test_an_item_is_put_got_found_listed_and_deleted(client: SyncLangGraphClient) -> None:
    value = {"text": "aaaa", "n": 1, "deep": {"list": [1, None, 2.5, "ß"]}}
    client.store.put_item(["docs", "bo"], "k", value)
    client.store.put_item(["docs", "al"], "k2", {"text": "bbbb", "n": 2})

    item = client.store.get_item(["docs", "bo"], "k")
    assert (item["namespace"], item["key"], item["value"]) == (["docs", "bo"], "k", value)
    assert item["created_at"] == item["updated_at"]
    assert keys(client.store.search_items(["docs"])) == ["k2", "k"]
    assert keys(client.store.search_items(["docs"], filter={"n": {"$lt": 2}})) == ["k"]
    assert keys(client.store.search_items(["docs"], limit=1, offset=1)) == ["k"]
    assert client.store.list_namespaces(prefix=["docs"]) == {"namespaces": [["docs", "al"], ["docs", "bo"]]}
    assert client.store.list_namespaces(suffix=["bo"], max_depth=1) == {"namespaces": [["docs"]]}
    client.store.delete_item(["docs", "bo"], "k")
    assert client.store.get_item(["docs", "bo"], "k") is None
    assert keys(client.store.search_items([])) == ["k2"]


async def test_the_async_client_says_the_same(farm: FarmProcesses, client: SyncLangGraphClient) -> None:
    async with get_client(url=farm.url, api_key=farm.keys["demo"]) as made:
        await made.store.put_item(["docs"], "k", {"text": "abab"}, index=["text"], ttl=5)
        await made.store.put_item(["docs"], "other", {"text": "hhhh"}, index=False)
        found = await made.store.search_items(["docs"], query="ab", refresh_ttl=False)
        listed = await made.store.list_namespaces()
        item = await made.store.get_item(["docs"], "k", refresh_ttl=True)

    assert [(one["key"], round(one["score"], 6)) for one in found["items"]] == [("k", 1.0)]
    assert listed == {"namespaces": [["docs"]]}
    assert item == client.store.get_item(["docs"], "k")
    assert farm.query("SELECT key, ttl_minutes FROM farm.store_item ORDER BY key") == [("k", 5.0), ("other", None)]


def test_tenants_share_names_and_nothing_else(farm: FarmProcesses, client: SyncLangGraphClient) -> None:
    with client_of(farm, "other") as theirs:
        theirs.store.put_item(["docs"], "k", {"of": "other"})
        theirs.store.put_item(["theirs"], "k", {})
        client.store.put_item(["docs"], "k", {"of": "demo"})

        assert client.store.get_item(["docs"], "k")["value"] == {"of": "demo"}
        assert client.store.get_item(["theirs"], "k") is None
        assert len(client.store.search_items([])["items"]) == 1
        assert client.store.list_namespaces() == {"namespaces": [["docs"]]}
        client.store.delete_item(["theirs"], "k")
        assert theirs.store.get_item(["docs"], "k")["value"] == {"of": "other"}
        assert theirs.store.get_item(["theirs"], "k") is not None


@pytest.mark.parametrize("graph", ["memory", "async_memory"])
def test_a_graph_remembers_across_threads_what_clients_see_too(
    farm: FarmProcesses, client: SyncLangGraphClient, graph: str
) -> None:
    client.store.put_item(["notes", "graph"], "bbbb", {"text": "bbbb"})
    with client_of(farm, "other") as theirs:
        theirs.store.put_item(["notes", "graph"], "aaab", {"text": "aaab"})

        first = client.runs.wait(client.threads.create()["thread_id"], graph, input={"note": "aaaa"})
        second = client.runs.wait(client.threads.create()["thread_id"], graph, input={"note": "aaab"})

        assert first["found"] == {"memory": ["aaaa", "bbbb"], "async_memory": ["aaaa"]}[graph]
        assert second["found"] == {"memory": ["aaaa", "aaab", "bbbb"], "async_memory": ["aaab"]}[graph]
        assert set(keys(client.store.search_items(["notes"]))) == {"aaaa", "aaab", "bbbb"}
        assert keys(theirs.store.search_items(["notes"])) == ["aaab"]


def test_a_tool_gets_the_store_of_its_tenant(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    answer: Any = client.runs.wait(thread_id, "tool_memory", input={"messages": [{"role": "user", "content": "gggg"}]})

    assert answer["messages"][-1]["content"] == "1 notes"
    assert keys(client.store.search_items(["notes"], query="g")) == ["gggg"]


def test_what_cannot_be_stored_ends_the_run_with_what_it_was(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    answer: Any = client.runs.wait(thread_id, "memory", input={"note": "x" * 1001}, raise_error=False)

    assert "key: is longer than 1000 bytes" in answer["__error__"]["message"]


#: name → (method, path, body, a word of the answer)
BAD: dict[str, tuple[str, str, Any, str]] = {
    "no namespace": ("PUT", "/store/items", {"key": "k", "value": {}}, "namespace"),
    "an empty namespace": ("PUT", "/store/items", {"namespace": [], "key": "k", "value": {}}, "at least one label"),
    "an empty label": ("PUT", "/store/items", {"namespace": ["a", ""], "key": "k", "value": {}}, "not empty"),
    "a label with a dot": ("PUT", "/store/items", {"namespace": ["secret.b"], "key": "k", "value": {}}, "no dot"),
    "LangGraph's own label": (
        "PUT",
        "/store/items",
        {"namespace": ["langgraph"], "key": "k", "value": {}},
        "langgraph",
    ),
    "a long label": ("PUT", "/store/items", {"namespace": ["x" * 1001], "key": "k", "value": {}}, "1000 bytes"),
    "many labels": ("PUT", "/store/items", {"namespace": ["x"] * 501, "key": "k", "value": {}}, "namespace"),
    "labels that are no text": ("PUT", "/store/items", {"namespace": [1], "key": "k", "value": {}}, "namespace"),
    "a long key": ("PUT", "/store/items", {"namespace": ["a"], "key": "x" * 1001, "value": {}}, "1000 bytes"),
    "no key": ("PUT", "/store/items", {"namespace": ["a"], "value": {}}, "key"),
    "no value": ("PUT", "/store/items", {"namespace": ["a"], "key": "k", "value": None}, "value"),
    "a list as value": ("PUT", "/store/items", {"namespace": ["a"], "key": "k", "value": [1]}, "value"),
    "a negative ttl": ("PUT", "/store/items", {"namespace": ["a"], "key": "k", "value": {}, "ttl": -1}, "ttl"),
    "an index of numbers": (
        "PUT",
        "/store/items",
        {"namespace": ["a"], "key": "k", "value": {}, "index": [1]},
        "index",
    ),
    "an index that is true": (
        "PUT",
        "/store/items",
        {"namespace": ["a"], "key": "k", "value": {}, "index": True},
        "index",
    ),
    "an unknown field": ("PUT", "/store/items", {"namespace": ["a"], "key": "k", "value": {}, "tll": 5}, "tll"),
    "a get without a key": ("GET", "/store/items?namespace=a", None, "key"),
    "a get of an empty label": ("GET", "/store/items?namespace=a..b&key=k", None, "namespace"),
    "a get of NUL": ("GET", "/store/items?namespace=a&key=%00", None, "NUL"),
    "a delete without a namespace": ("DELETE", "/store/items", {"key": "k"}, "namespace"),
    "a delete of an empty namespace": ("DELETE", "/store/items", {"namespace": [], "key": "k"}, "at least one label"),
    "a page of 2,000": ("POST", "/store/items/search", {"limit": 2000}, "limit"),
    "a filter that is none": ("POST", "/store/items/search", {"filter": [1]}, "filter"),
    "an order of nulls": ("POST", "/store/items/search", {"filter": {"a": {"$gt": None}}}, "number or a text"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words_and_changes_nothing(
    farm: FarmProcesses, http: httpx.Client, client: SyncLangGraphClient, name: str
) -> None:
    method, path, body, word = BAD[name]
    client.store.put_item(["a"], "kept", {})

    answer = http.request(method, path, content=None if body is None else json.dumps(body))

    assert answer.status_code == 422, answer.text
    assert word in answer.text
    assert "secret" not in answer.text
    assert farm.query("SELECT key FROM farm.store_item") == [("kept",)]


def test_a_value_beyond_the_setting_is_too_large(client: SyncLangGraphClient) -> None:
    client.store.put_item(["a"], "k", {"text": "x" * (MAX_VALUE_BYTES - 11)})

    with pytest.raises(APIStatusError) as refused:
        client.store.put_item(["a"], "k2", {"text": "x" * (MAX_VALUE_BYTES - 10)})

    assert refused.value.response.status_code == 413
    assert keys(client.store.search_items([])) == ["k"]
