"""Threads that begin with a history, that are copied and that are pruned, as the official SDK asks for it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, StateUpdate
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import APIStatusError

from tests.farm import FarmProcesses, wait_for
from tests.integration.api.graphs import chat

SOME_ID = str(uuid4())


@pytest.fixture
def client(farm: FarmProcesses) -> Iterator[SyncLangGraphClient]:
    with get_sync_client(url=farm.url, api_key=farm.keys["demo"]) as made:
        yield made


@pytest.fixture
def other(farm: FarmProcesses) -> Iterator[SyncLangGraphClient]:
    with get_sync_client(url=farm.url, api_key=farm.keys["other"]) as made:
        yield made


def human(text: str, id: str) -> dict[str, Any]:
    return {"messages": [{"role": "human", "content": text, "id": id}]}


def ai(text: str, id: str) -> dict[str, Any]:
    return {"messages": [{"role": "ai", "content": text, "id": id}]}


def update(values: Any, as_node: str, command: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"values": values, "command": command, "as_node": as_node}


IN, BEGUN, SAID = (
    update(human("hello", "1"), "__input__"),
    update(human("hello", "1"), "__start__"),
    update(ai("so what?", "2"), "answer"),
)
X, Y = update({"log": ["x"]}, "side"), update({"log": ["y"]}, "ask")
SENT_ON = update(None, "answer", {"update": ai("no", "2"), "goto": "ask"})

#: As threads of another deployment would be told.
SUPERSTEPS: dict[str, list[list[dict[str, Any]]]] = {
    "in the middle": [[IN], [BEGUN], [SAID]],
    "a command": [[IN], [SENT_ON]],
    "to the end": [[BEGUN], [update(ai("no.", "2"), "answer")], [X]],
    "two at once": [[BEGUN], [SAID], [X, Y]],
}


def states(history: list[Any]) -> list[Any]:
    """What two deployments must agree on: ids and times are their own."""
    told = []
    for state in history:
        messages = [(one["type"], one["content"], one["id"]) for one in state["values"].get("messages", [])]
        metadata = {name: state["metadata"][name] for name in ("source", "step", "parents")}
        tasks = [(task["name"], task["result"]) for task in state["tasks"]]
        told.append(({**state["values"], "messages": messages}, list(state["next"]), metadata, tasks))
    return told


def as_told(snapshot: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list):
            return [plain(one) for one in value]
        return value.model_dump(mode="json") if hasattr(value, "model_dump") else value

    tasks = [{"name": task.name, "result": plain(task.result)} for task in snapshot.tasks]
    return {"values": plain(snapshot.values), "next": snapshot.next, "metadata": snapshot.metadata, "tasks": tasks}


@pytest.mark.parametrize("case", SUPERSTEPS)
def test_a_thread_made_with_supersteps_is_as_stock_langgraph_makes_it(client: SyncLangGraphClient, case: str) -> None:
    stock = chat.copy(update={"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "stock"}}
    stock.bulk_update_state(
        config,
        [
            [
                StateUpdate(Command(**one["command"]) if one["command"] else one["values"], one["as_node"])
                for one in step
            ]
            for step in SUPERSTEPS[case]
        ],
    )

    supersteps = [{"updates": step} for step in SUPERSTEPS[case]]
    thread = client.threads.create(graph_id="chat", supersteps=supersteps)

    history = client.threads.get_history(thread["thread_id"], limit=100)
    assert states(history) == states([as_told(snapshot) for snapshot in stock.get_state_history(config)])
    assert [state["parent_checkpoint"] and state["parent_checkpoint"]["checkpoint_id"] for state in history[:-1]] == [
        state["checkpoint"]["checkpoint_id"] for state in history[1:]
    ]
    assert thread["values"] == history[0]["values"]
    assert thread["status"] == "idle"
    assert thread["state_updated_at"] >= thread["created_at"]


def test_a_thread_that_was_brought_along_goes_on_with_a_run(client: SyncLangGraphClient) -> None:
    supersteps = [{"updates": step} for step in SUPERSTEPS["in the middle"]]
    thread_id = client.threads.create(graph_id="chat", supersteps=supersteps)["thread_id"]

    asked: Any = client.runs.wait(thread_id, "chat", input=None)
    answered: Any = client.runs.wait(thread_id, "chat", command={"resume": "yes"})

    assert [one["value"] for one in asked["__interrupt__"]] == ["go on?"]
    assert answered["log"] == ["yes"]


@pytest.mark.parametrize(
    ("graph_id", "supersteps", "status", "says"),
    [
        (None, [[SAID]], 422, "metadata.graph_id"),
        ("nowhere", [[SAID]], 404, "not served"),
        ("broken", [[SAID]], 503, "could not be loaded"),
        ("chat", [[IN], [update({}, "nobody")]], 422, "supersteps[1].as_node"),
        ("chat", [[IN], [update({"log": 3}, "side")]], 422, "TypeError"),
        ("chat", [[IN], [update({"log": ["x"]}, "side", {"goto": "ask"})]], 422, "not both"),
        ("chat", [[IN], []], 422, "updates"),
        ("chat", [[IN], [update(None, "side", {"jump": 1})]], 422, "jump"),
        ("chat", [[IN, X]], 422, "does not take this update"),
    ],
)
def test_supersteps_that_do_not_fit_make_no_thread(
    client: SyncLangGraphClient, graph_id: str | None, supersteps: list[Any], status: int, says: str
) -> None:
    thread_id = str(uuid4())

    with pytest.raises(APIStatusError) as caught:
        client.threads.create(thread_id=thread_id, graph_id=graph_id, supersteps=[{"updates": s} for s in supersteps])

    assert (caught.value.status_code, says in caught.value.response.text) == (status, True), caught.value.response.text
    with pytest.raises(APIStatusError) as missing:
        client.threads.get(thread_id)
    assert missing.value.status_code == 404


def test_a_thread_that_is_there_gets_no_supersteps(client: SyncLangGraphClient) -> None:
    supersteps = [{"updates": step} for step in SUPERSTEPS["in the middle"]]
    thread_id = client.threads.create(graph_id="chat", supersteps=supersteps)["thread_id"]

    again = client.threads.create(thread_id=thread_id, graph_id="chat", supersteps=supersteps, if_exists="do_nothing")

    assert len(again["values"]["messages"]) == 2  # type: ignore[call-overload, index]
    assert len(client.threads.get_history(thread_id, limit=100)) == 3


# --------------------------------------------------------------------------- copies


def without_ids(state: Mapping[str, Any]) -> Any:
    told = {name: state[name] for name in ("values", "next", "metadata", "interrupts", "created_at", "checkpoint_id")}
    return {**told, "tasks": [(task["name"], task["id"]) for task in state["tasks"]]}


def test_a_copy_has_state_and_history_and_goes_its_own_way(client: SyncLangGraphClient) -> None:
    supersteps = [{"updates": step} for step in SUPERSTEPS["in the middle"]]
    source = client.threads.create(graph_id="chat", metadata={"who": "ann"}, supersteps=supersteps)["thread_id"]
    client.runs.wait(source, "chat", input=None)

    copied: Any = client.threads.copy(source)

    copy = copied["thread_id"]
    before = [without_ids(state) for state in client.threads.get_history(source, limit=100)]
    assert [without_ids(state) for state in client.threads.get_history(copy, limit=100)] == before
    assert copied["metadata"]["who"] == "ann"
    assert copied["status"] == "interrupted"
    assert client.runs.list(copy) == []
    answered: Any = client.runs.wait(copy, "chat", command={"resume": "yes"})
    assert answered["log"] == ["yes"]
    assert [without_ids(state) for state in client.threads.get_history(source, limit=100)] == before
    client.threads.delete(source)
    assert client.threads.get_state(copy)["values"]["log"] == ["yes"]


def test_a_copy_of_a_busy_thread_is_idle_at_what_was_saved(client: SyncLangGraphClient, tmp_path: Path) -> None:
    thread_id = client.threads.create()["thread_id"]
    run = client.runs.create(thread_id, "gate", input={"log": ["in"], "path": str(tmp_path / "open")})
    wait_for(lambda: client.threads.get_state(thread_id)["next"] == ["wait"], what="the node")

    copied: Any = client.threads.copy(thread_id)

    (tmp_path / "open").touch()
    client.runs.join(thread_id, run["run_id"])
    assert copied["status"] == "idle"
    state = client.threads.get_state(copied["thread_id"])
    assert (state["values"]["log"], state["next"]) == (["in"], ["wait"])
    assert client.threads.get_state(thread_id)["values"]["log"] == ["in", "waited"]


def test_nothing_of_another_tenant_is_copied_or_pruned(client: SyncLangGraphClient, other: SyncLangGraphClient) -> None:
    thread_id = client.threads.create(graph_id="chat", supersteps=[{"updates": SUPERSTEPS["in the middle"][0]}])[
        "thread_id"
    ]

    told = []
    for unknown in (thread_id, SOME_ID):
        with pytest.raises(APIStatusError) as caught:
            other.threads.copy(unknown)
        told.append((caught.value.status_code, caught.value.response.json()))

    assert told[0] == told[1] == (404, told[0][1])
    assert other.threads.prune([thread_id]) == {"pruned_count": 0}
    assert other.threads.prune([thread_id], strategy="keep_latest") == {"pruned_count": 0}
    assert client.threads.get(thread_id)["thread_id"] == thread_id


# --------------------------------------------------------------------------- pruning


def test_pruning_deletes_threads_and_counts_those_that_were_there(client: SyncLangGraphClient) -> None:
    one, two = (client.threads.create()["thread_id"] for _ in range(2))

    assert client.threads.prune([one, two, one, SOME_ID]) == {"pruned_count": 2}

    with pytest.raises(APIStatusError):
        client.threads.get(one)


def test_pruning_to_the_latest_keeps_the_state_and_what_may_follow(client: SyncLangGraphClient) -> None:
    supersteps = [{"updates": step} for step in SUPERSTEPS["in the middle"]]
    thread_id = client.threads.create(graph_id="chat", supersteps=supersteps)["thread_id"]
    client.runs.wait(thread_id, "chat", input=None)
    before = client.threads.get_state(thread_id)

    assert client.threads.prune([thread_id], strategy="keep_latest") == {"pruned_count": 1}

    assert client.threads.get_state(thread_id) == before
    assert len(client.threads.get_history(thread_id, limit=100)) == 1
    answered: Any = client.runs.wait(thread_id, "chat", command={"resume": "yes"})
    assert answered["log"] == ["yes"]


@pytest.mark.parametrize("body", [{}, {"thread_ids": ["x"]}, {"thread_ids": [], "strategy": "all"}])
def test_what_cannot_be_pruned_is_refused(http: httpx.Client, body: dict[str, Any]) -> None:
    assert http.post("/threads/prune", json=body).status_code == 422


# --------------------------------------------------------------------------- how long they are kept


def test_a_thread_says_how_long_it_is_kept_where_one_asks(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create(ttl=30)["thread_id"]

    told: Any = client.threads.get(thread_id, include=["ttl"])
    client.threads.update(thread_id, metadata={}, ttl={"ttl": 90, "strategy": "keep_latest"})
    changed: Any = client.threads.get(thread_id, include=["ttl"])
    plain: Any = client.threads.get(thread_id)
    for_ever: Any = client.threads.get(client.threads.create()["thread_id"], include=["ttl"])

    assert (told["ttl"]["ttl_minutes"], told["ttl"]["strategy"]) == (30, "delete")
    assert told["ttl"]["expires_at"] > told["created_at"]
    assert (changed["ttl"]["ttl_minutes"], changed["ttl"]["strategy"]) == (90, "keep_latest")
    assert changed["ttl"]["expires_at"] > told["ttl"]["expires_at"]
    assert for_ever["ttl"] is None
    assert "ttl" not in plain


@pytest.mark.parametrize("ttl", [0, -1, "long", True, {"ttl": 1, "strategy": "burn"}, {"strategy": "delete"}, 1e12])
def test_a_ttl_that_cannot_be_meant_is_refused(http: httpx.Client, ttl: Any) -> None:
    assert http.post("/threads", json={"ttl": ttl}).status_code == 422


def test_what_a_thread_cannot_include_is_refused(client: SyncLangGraphClient, http: httpx.Client) -> None:
    thread_id = client.threads.create()["thread_id"]

    assert http.get(f"/threads/{thread_id}", params={"include": "runs"}).status_code == 422
