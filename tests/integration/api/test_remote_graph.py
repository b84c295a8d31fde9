"""LangGraph's own RemoteGraph: a graph of the farm, used as if it were here."""

from collections.abc import Iterator

import pytest
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client, get_sync_client

from tests.farm import FarmProcesses


@pytest.fixture
def remote(farm: FarmProcesses) -> Iterator[RemoteGraph]:
    key = farm.keys["demo"]
    with get_sync_client(url=farm.url, api_key=key) as sync_client:
        yield RemoteGraph("line", client=get_client(url=farm.url, api_key=key), sync_client=sync_client)


def test_a_remote_graph_is_invoked_streamed_and_read(remote: RemoteGraph, farm: FarmProcesses) -> None:
    with get_sync_client(url=farm.url, api_key=farm.keys["demo"]) as client:
        thread = client.threads.create()["thread_id"]
    config = {"configurable": {"thread_id": thread}}

    answer = remote.invoke({"log": ["in"]}, config)
    steps = list(remote.stream({"log": ["again"]}, config, stream_mode="updates"))

    assert answer == {"log": ["in", "a", "b"]}
    assert steps == [{"a": {"log": ["a"]}}, {"b": {"log": ["b"]}}]
    state = remote.get_state(config)
    assert state.values == {"log": ["in", "a", "b", "again", "a", "b"]}
    history = list(remote.get_state_history(config, limit=3))
    assert history[0].values == state.values
    changed = remote.update_state(config, {"log": ["by hand"]}, as_node="b")
    assert remote.get_state(changed).values["log"][-1] == "by hand"


def test_a_remote_graph_needs_no_thread(remote: RemoteGraph) -> None:
    assert remote.invoke({"log": []}) == {"log": ["a", "b"]}


def test_a_remote_graph_is_drawn(remote: RemoteGraph) -> None:
    assert set(remote.get_graph(xray=True).nodes) >= {"__start__", "a", "b"}
