"""What an author sets on a node, or a client on a run, holds as in stock LangGraph, also when workers are killed."""

from pathlib import Path
from typing import Any

import pytest
from langgraph.errors import GraphRecursionError
from langgraph_sdk.client import SyncLangGraphClient

from tests.farm import FarmProcesses, wait_for
from tests.integration.farm import policy_graphs
from tests.integration.farm.in_process import stock_values


def lines(folder: Path) -> list[str]:
    return (folder / "lines").read_text().splitlines()


def given(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    (folder / name).mkdir()
    return {"journal": str(folder / name), "log": [], **more}


def new_thread(client: SyncLangGraphClient) -> str:
    return client.threads.create()["thread_id"]


def kill_holder(farm: FarmProcesses, run_id: str, node: str, *, when: Path) -> None:
    """Once the node hangs. Another worker takes its place."""
    wait_for(when.exists, what=f"node {node} of run {run_id}, hanging")
    holder = farm.process_of(farm.holder_of(run_id, node))
    holder.kill()
    farm.start_worker(f"{holder.name}-again")


# --------------------------------------------------------------------------- wide and long


def test_no_more_nodes_run_at_once_than_max_concurrency_says(client: SyncLangGraphClient, tmp_path: Path) -> None:
    thread_id = new_thread(client)
    wide = given(tmp_path, "farm", count=9, seconds=0.2)

    answer: Any = client.runs.wait(thread_id, "fan_out", input=wide, config={"max_concurrency": 3})

    assert answer["log"] == [*map(str, range(9)), "after"]
    spans = [tuple(map(float, line.split())) for line in lines(tmp_path / "farm")]
    at_once = [sum(began <= moment < ended for began, ended in spans) for moment, _ in spans]
    assert 1 < max(at_once) <= 3


def test_three_hundred_sends_are_joined_in_order(client: SyncLangGraphClient, farm: FarmProcesses) -> None:
    thread_id = new_thread(client)

    answer: Any = client.runs.wait(thread_id, "fan_out", input={"count": 300, "log": []})

    assert answer["log"] == [*map(str, range(300)), "after"]
    sql = "SELECT count(*), max(attempts) FROM farm.node_execution WHERE thread_id = %s AND node = 'item'"
    assert farm.query(sql, thread_id) == [(300, 1)]


def test_the_recursion_limit_is_counted_over_messages(client: SyncLangGraphClient) -> None:
    thread_id = new_thread(client)
    with pytest.raises(GraphRecursionError) as expected:
        stock_values(policy_graphs.loop, {"log": []}, recursion_limit=4)

    answer: Any = client.runs.wait(
        thread_id, "loop", input={"log": []}, config={"recursion_limit": 4}, raise_error=False
    )

    assert answer["__error__"] == {"error": "GraphRecursionError", "message": str(expected.value)}
    state = client.threads.get_state(thread_id)
    assert (state["values"]["log"], state["next"]) == (["again"] * 4, ["again"])


def test_a_deferred_node_waits_for_the_longest_way(client: SyncLangGraphClient) -> None:
    expected = stock_values(policy_graphs.deferred, {"log": []})

    assert client.runs.wait(new_thread(client), "deferred", input={"log": []}) == expected
    assert expected["log"][-1] == "last"


# --------------------------------------------------------------------------- timeouts and error handlers


def test_run_and_idle_timeouts_retries_and_heartbeats_are_those_of_stock(
    client: SyncLangGraphClient, farm: FarmProcesses
) -> None:
    expected = stock_values(policy_graphs.timeouts, {"log": []})
    thread_id = new_thread(client)

    answer: Any = client.runs.wait(thread_id, "timeouts", input={"log": []})

    assert sorted(answer["log"]) == sorted(expected["log"])
    assert sorted(answer["log"]) == ["alive", "gave up: NodeTimeoutError", "gave up: NodeTimeoutError"]
    sql = "SELECT node, attempts FROM farm.node_execution WHERE thread_id = %s AND node <> '__start__' ORDER BY node"
    assert farm.query(sql, thread_id) == [("alive", 1), ("hangs", 2), ("silent", 1)]


def test_a_step_timeout_ends_the_run(client: SyncLangGraphClient) -> None:
    thread_id = new_thread(client)
    with pytest.raises(TimeoutError):
        stock_values(policy_graphs.slow_step, {"log": []})

    answer: Any = client.runs.wait(thread_id, "slow_step", input={"log": []}, raise_error=False)

    assert answer["__error__"]["error"] == "TimeoutError"
    state = client.threads.get_state(thread_id)
    assert (state["values"]["log"], state["next"]) == (["fast"], ["hangs"])


def test_a_handler_whose_worker_is_killed_runs_again_and_the_failed_node_does_not(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path
) -> None:
    thread_id = new_thread(client)
    run_id = client.runs.create(thread_id, "handled", input=given(tmp_path, "farm"))["run_id"]

    kill_holder(farm, run_id, "node", when=tmp_path / "farm" / "handler")
    client.runs.join(thread_id, run_id)

    assert client.threads.get_state(thread_id)["values"]["log"] == [
        "handled Exception(Flaked('broken')) of node",  # the error's text was saved, not its class
        "after",
    ]
    assert lines(tmp_path / "farm") == ["node", "handler", "handler"]


# --------------------------------------------------------------------------- @task


def test_tasks_that_had_finished_are_not_called_again_when_their_flow_s_worker_is_killed(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path
) -> None:
    thread_id = new_thread(client)
    begun = {"journal": given(tmp_path, "farm")["journal"], "hangs": True}
    run_id = client.runs.create(thread_id, "flow", input=begun)["run_id"]

    kill_holder(farm, run_id, "flow", when=tmp_path / "farm" / "flow")
    client.runs.join(thread_id, run_id)

    assert client.runs.join(thread_id, run_id) == ["one", "two", "three"]
    assert sorted(lines(tmp_path / "farm")) == ["one", "three", "two"]


def test_tasks_are_not_called_again_when_their_flow_goes_on_with_an_answer(
    client: SyncLangGraphClient, tmp_path: Path
) -> None:
    thread_id = new_thread(client)
    begun = {"journal": given(tmp_path, "farm")["journal"], "asks": True}

    asked: Any = client.runs.wait(thread_id, "flow", input=begun)
    answer: Any = client.runs.wait(thread_id, "flow", command={"resume": "yes"})

    assert [one["value"] for one in asked["__interrupt__"]] == ["go on?"]
    assert answer == ["one", "two", "yes", "three"]
    assert sorted(lines(tmp_path / "farm")) == ["one", "three", "two"]


def test_a_task_that_a_node_called_is_not_called_again_when_the_worker_is_killed(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path
) -> None:
    thread_id = new_thread(client)
    run_id = client.runs.create(thread_id, "tasks_in_a_node", input=given(tmp_path, "farm"))["run_id"]

    kill_holder(farm, run_id, "calls", when=tmp_path / "farm" / "node")
    client.runs.join(thread_id, run_id)

    assert client.threads.get_state(thread_id)["values"]["log"] == ["before", "one", "two"]
    assert lines(tmp_path / "farm") == ["one", "two"]


# --------------------------------------------------------------------------- durability


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_every_durability_gives_the_same_answer(client: SyncLangGraphClient, tmp_path: Path, durability: Any) -> None:
    thread_id = new_thread(client)
    begun = given(tmp_path, "farm")
    (tmp_path / "farm" / "b").touch()  # nobody hangs

    answer: Any = client.runs.wait(thread_id, "three", input=begun, durability=durability)

    assert answer["log"] == ["a", "b", "c"]
    saved = client.threads.get_history(thread_id)
    assert [state["metadata"]["step"] for state in saved] == ([3] if durability == "exit" else [3, 2, 1, 0, -1])


@pytest.mark.parametrize(
    ("graph", "durability", "ran"),
    [
        ("three", "async", ["a", "b", "b", "c"]),  # node by node
        ("three", "exit", ["a", "b", "a", "b", "c"]),  # nothing was saved: the run begins anew
    ],
)
def test_a_run_whose_worker_is_killed_goes_on_from_what_its_durability_has_saved(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path, graph: str, durability: Any, ran: list[str]
) -> None:
    thread_id = new_thread(client)
    run_id = client.runs.create(thread_id, graph, input=given(tmp_path, "farm"), durability=durability)["run_id"]
    whole = (graph, durability) != ("three", "async")

    kill_holder(farm, run_id, "__start__" if whole else "b", when=tmp_path / "farm" / "b")
    client.runs.join(thread_id, run_id)

    assert client.threads.get_state(thread_id)["values"]["log"] == ["a", "b", "c"]
    assert lines(tmp_path / "farm") == ran
    [(reason,)] = farm.query("SELECT inline_reason FROM farm.run WHERE run_id = %s", run_id)
    assert (reason is not None) == whole
