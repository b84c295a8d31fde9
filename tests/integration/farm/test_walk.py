"""One real thread, many workers: from the official client's request to the answer."""

from typing import Any

import httpx
import pytest
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import APIStatusError

from tests.farm import FarmProcesses, wait_for

NODES = "SELECT node, status, attempts FROM farm.node_execution WHERE thread_id = %s ORDER BY created_at, node"


def test_a_run_is_executed_node_by_node_and_answered(client: SyncLangGraphClient, farm: FarmProcesses) -> None:
    thread = client.threads.create()

    answer = client.runs.wait(thread["thread_id"], "line", input={"log": ["in"]})

    assert answer == {"log": ["in", "a", "b", "c"]}
    rows = farm.query(NODES, thread["thread_id"])
    assert rows == [("__start__", "done", 1), ("a", "done", 1), ("b", "done", 1), ("c", "done", 1)]


def test_a_thread_goes_on_where_its_last_run_left_it(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    client.runs.wait(thread_id, "line", input={"log": ["one"]})
    answer = client.runs.wait(thread_id, "line", input={"log": ["two"]})

    assert answer == {"log": ["one", "a", "b", "c", "two", "a", "b", "c"]}
    assert client.threads.get(thread_id)["status"] == "idle"
    assert [run["status"] for run in client.runs.list(thread_id)] == ["success", "success"]


@pytest.mark.parametrize("mode", ["values", "updates"])
def test_a_stream_tells_every_step_and_then_ends(client: SyncLangGraphClient, mode: str) -> None:
    thread_id = client.threads.create()["thread_id"]

    parts = list(client.runs.stream(thread_id, "line", input={"log": ["in"]}, stream_mode=mode))

    told = [part.data for part in parts if part.event == mode]
    assert parts[0].event == "metadata"
    assert (
        told
        == {
            "values": [{"log": ["in", "a", "b", "c"][:n]} for n in (1, 2, 3, 4)],
            "updates": [{name: {"log": [name]}} for name in ("a", "b", "c")],
        }[mode]
    )
    assert len({part.id for part in parts}) == len(parts)


def test_an_async_graph_streams_what_its_nodes_write(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    parts = list(client.runs.stream(thread_id, "async_line", input={}, stream_mode=["custom", "updates"]))

    told = [(part.event, part.data) for part in parts if part.event in ("custom", "updates")]
    assert told == [
        ("custom", {"at": "custom"}),
        ("updates", {"async": {"log": ["async"]}}),
        ("updates", {"sync": {"log": ["sync"]}}),
    ]


def test_tokens_of_a_model_come_one_by_one(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]
    question = {
        "messages": [{"role": "user", "content": "How often does the word people occur in the Gettysburg Address?"}]
    }

    parts = list(client.runs.stream(thread_id, "agent", input=question, stream_mode="messages-tuple"))

    tokens = [part.data[0] for part in parts if part.event == "messages" and part.data[0]["type"] == "AIMessageChunk"]
    answer = client.threads.get_state(thread_id)["values"]["messages"][-1]
    text = "".join(token["content"] for token in tokens if token["id"] == answer["id"])
    assert text == answer["content"]
    assert len([token for token in tokens if token["id"] == answer["id"]]) > 3


def test_a_run_that_asks_a_human_goes_on_with_the_answer(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    first = client.runs.wait(thread_id, "two_questions", input={"log": []})

    assert sorted(one["value"]["question"] for one in first["__interrupt__"]) == ["left", "right"]
    assert client.threads.get(thread_id)["status"] == "interrupted"
    ids = {one["value"]["question"]: one["id"] for one in first["__interrupt__"]}
    second = client.runs.wait(thread_id, "two_questions", command={"resume": {ids["left"]: "yes", ids["right"]: "no"}})
    assert second == {"log": ["left: yes", "right: no", "end"]}
    assert client.threads.get(thread_id)["status"] == "idle"


def test_a_question_reaches_a_stream_of_tokens_too(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    parts = list(client.runs.stream(thread_id, "two_questions", input={"log": []}, stream_mode="messages-tuple"))

    asked = [one["value"]["question"] for part in parts for one in (part.data or {}).get("__interrupt__", [])]
    assert sorted(asked) == ["left", "right"]


def test_the_questions_may_be_answered_one_by_one(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]
    first = client.runs.wait(thread_id, "two_questions", input={"log": []})
    ids = {one["value"]["question"]: one["id"] for one in first["__interrupt__"]}

    second = client.runs.wait(thread_id, "two_questions", command={"resume": {ids["right"]: "no"}})
    third = client.runs.wait(thread_id, "two_questions", command={"resume": {ids["left"]: "yes"}})

    assert [one["value"]["question"] for one in second["__interrupt__"]] == ["left"]
    assert third == {"log": ["left: yes", "right: no", "end"]}


def test_a_failing_node_ends_its_run_and_keeps_what_was_done(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    answer: Any = client.runs.wait(thread_id, "failing", input={"log": []}, raise_error=False)

    assert answer["__error__"] == {"error": "ValueError", "message": "this node always fails"}
    state = client.threads.get_state(thread_id)
    assert (state["values"], state["next"]) == ({"log": ["good"]}, ["bad"])
    assert client.threads.get(thread_id)["status"] == "error"
    assert client.runs.list(thread_id)[0]["status"] == "error"


def test_the_stream_of_a_failing_run_says_why(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    parts = list(client.runs.stream(thread_id, "failing", input={"log": []}, stream_mode="updates"))

    assert [part.data for part in parts if part.event == "error"] == [
        {"error": "ValueError", "message": "this node always fails"}
    ]


def test_an_input_that_the_graph_refuses_leaves_its_thread_readable(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    answer: Any = client.runs.wait(thread_id, "agent", input={"messages": 5}, raise_error=False)

    assert "__error__" in answer
    assert client.threads.get(thread_id)["status"] == "error"
    assert client.threads.get_state(thread_id)["values"] == {"messages": []}
    assert thread_id in {thread["thread_id"] for thread in client.threads.search(limit=100)}


def test_wide_supersteps_are_joined_by_the_last_to_finish(client: SyncLangGraphClient, farm: FarmProcesses) -> None:
    thread_id = client.threads.create()["thread_id"]

    client.runs.wait(thread_id, "research", input={"text": "bill_of_rights"})

    counted = farm.query(
        "SELECT node, count(*), max(attempts) FROM farm.node_execution WHERE thread_id = %s GROUP BY node", thread_id
    )
    assert max(count for _, count, _ in counted) > 3
    assert {attempts for _, _, attempts in counted} == {1}
    assert farm.query("SELECT count(*) FROM farm.superstep")[0][0] == 0


def test_a_subgraph_runs_inside_its_parents_node(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    parts = list(
        client.runs.stream(thread_id, "parent", input={"log": []}, stream_mode="updates", stream_subgraphs=True)
    )

    names = [part.event.split(":")[0] for part in parts if part.event.startswith("updates")]
    assert names == ["updates", "updates|child", "updates|child", "updates"]
    assert client.threads.get_state(thread_id)["values"] == {"log": ["before", "before", "x", "y"]}


def test_a_run_that_cannot_be_cut_is_executed_by_one_worker_and_says_why(
    client: SyncLangGraphClient, farm: FarmProcesses
) -> None:
    thread_id = client.threads.create()["thread_id"]

    answer = client.runs.wait(thread_id, "line", input={"log": ["in"]}, durability="exit")

    assert answer["log"][0] == "in"
    [(reason,)] = farm.query("SELECT inline_reason FROM farm.run WHERE thread_id = %s", thread_id)
    assert "exit" in reason
    assert [row[0] for row in farm.query(NODES, thread_id)] == ["__start__"]


def test_a_value_that_no_checkpoint_keeps_goes_with_its_run_from_node_to_node(
    client: SyncLangGraphClient, farm: FarmProcesses
) -> None:
    thread_id = client.threads.create()["thread_id"]

    answer = client.runs.wait(thread_id, "untracked", input={"log": ["in"], "scratch": "x"})
    again = client.runs.wait(thread_id, "untracked", input={"log": []})

    assert answer == {"log": ["in", "a saw x", "b saw xa"]}
    assert again["log"][3:] == ["a saw None", "b saw a"]
    assert [row[0] for row in farm.query(NODES, thread_id)] == ["__start__", "a", "b"] * 2
    assert "scratch" not in str(client.threads.get_history(thread_id))


def test_history_is_there_newest_first_and_state_can_be_changed(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]
    client.runs.wait(thread_id, "line", input={"log": ["in"]})

    history = client.threads.get_history(thread_id, limit=10)
    client.threads.update_state(thread_id, {"log": ["by hand"]}, as_node="a")

    assert [state["metadata"]["step"] for state in history] == [3, 2, 1, 0, -1]
    state = client.threads.get_state(thread_id)
    assert (state["values"]["log"][-1], state["next"]) == ("by hand", ["b"])
    assert client.runs.wait(thread_id, "line", input=None)["log"][-3:] == ["by hand", "b", "c"]


def test_a_run_may_start_from_an_older_checkpoint(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]
    client.runs.wait(thread_id, "line", input={"log": ["in"]})
    after_a = next(s for s in client.threads.get_history(thread_id) if s["next"] == ["b"])

    answer = client.runs.wait(thread_id, "line", input=None, checkpoint_id=after_a["checkpoint"]["checkpoint_id"])

    assert answer == {"log": ["in", "a", "b", "c"]}


def test_a_background_run_can_be_joined_and_its_stream_read_again(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    run = client.runs.create(thread_id, "twelve_steps", input={"delay_seconds": 0.05})
    client.runs.join(thread_id, run["run_id"])
    first = list(client.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"))
    middle = first[len(first) // 2].id
    rest = list(client.runs.join_stream(thread_id, run["run_id"], last_event_id=middle))

    assert client.runs.get(thread_id, run["run_id"])["status"] == "success"
    assert [len(part.data.get("log", [])) for part in first if part.event == "values"] == list(range(13))
    assert [part.id for part in rest] == [part.id for part in first[len(first) // 2 + 1 :]]


def test_a_run_waits_behind_the_one_before_it(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]
    slow = client.runs.create(thread_id, "twelve_steps", input={"delay_seconds": 0.05})

    answer = client.runs.wait(thread_id, "line", input={"log": ["in"]}, multitask_strategy="enqueue")

    assert answer["log"][-4:] == ["in", "a", "b", "c"]
    assert client.runs.get(thread_id, slow["run_id"])["status"] == "success"


def test_a_busy_thread_refuses_a_run_that_asks_to_be_refused(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]
    slow = client.runs.create(thread_id, "twelve_steps", input={"delay_seconds": 0.2})

    with pytest.raises(APIStatusError) as refused:
        client.runs.create(thread_id, "line", input={}, multitask_strategy="reject")

    assert refused.value.status_code == 409
    client.runs.cancel(thread_id, slow["run_id"], wait=True)


def test_a_cancelled_run_is_over_at_once_and_keeps_its_finished_steps(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]
    run = client.runs.create(thread_id, "twelve_steps", input={"delay_seconds": 0.3})
    wait_for(lambda: client.threads.get_state(thread_id)["values"].get("log"), what="a finished step")

    client.runs.cancel(thread_id, run["run_id"], wait=True)

    assert client.runs.get(thread_id, run["run_id"])["status"] == "interrupted"
    state = client.threads.get_state(thread_id)
    assert state["values"]["log"]
    assert state["next"]


def test_another_tenant_gets_what_a_missing_thread_gets(
    client: SyncLangGraphClient, other_client: SyncLangGraphClient, farm: FarmProcesses
) -> None:
    thread_id = client.threads.create()["thread_id"]
    run = client.runs.create(thread_id, "line", input={"log": []})
    client.runs.join(thread_id, run["run_id"])
    missing = "00000000-0000-7000-8000-000000000000"

    def answer(path: str) -> tuple[int, Any]:
        got = httpx.get(farm.url + path, headers={"x-api-key": farm.keys["other"]})
        return got.status_code, got.json()

    for path in ("", "/state", "/history", "/runs", f"/runs/{run['run_id']}"):
        theirs, nobodys = answer(f"/threads/{thread_id}{path}"), answer(f"/threads/{missing}{path}")
        assert theirs == nobodys
        assert theirs[0] == 404
    assert other_client.threads.search() == [] or thread_id not in str(other_client.threads.search())


def test_a_stateless_run_answers_without_a_thread(client: SyncLangGraphClient) -> None:
    assert client.runs.wait(None, "line", input={"log": ["in"]}) == {"log": ["in", "a", "b", "c"]}


def test_the_info_names_the_graph_that_could_not_be_loaded(farm: FarmProcesses) -> None:
    info = httpx.get(farm.url + "/info").json()

    assert "broken" in str(info)
    assert httpx.get(farm.url + "/ok").json()["ok"] is True
