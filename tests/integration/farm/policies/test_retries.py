"""A RetryPolicy on the farm: short delays are slept, long ones are in Postgres, and the tries are those of stock."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from tests.farm import FarmProcesses, wait_for
from tests.integration.farm import policy_graphs
from tests.integration.farm.in_process import stock_values

WAITING = (
    "SELECT node, tries, error FROM farm.node_execution WHERE run_id = %s AND status = 'ready' AND outcome = 'retry'"
)


def lines(folder: Path) -> list[str]:
    return (folder / "lines").read_text().splitlines()


def given(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    (folder / name).mkdir()
    return {"journal": str(folder / name), "log": [], **more}


@pytest.mark.parametrize("graph", ["flaky", "aflaky"])
@pytest.mark.parametrize(("fails", "claims"), [(1, 1), (3, 3), (9, 3)])
def test_slept_and_delayed_tries_are_those_of_stock(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path, graph: str, fails: int, claims: int
) -> None:
    expected = stock_values(getattr(policy_graphs, graph), given(tmp_path, "stock", fails=fails))
    thread_id = client.threads.create()["thread_id"]

    answer: Any = client.runs.wait(thread_id, graph, input=given(tmp_path, "farm", fails=fails))

    assert answer["log"] == expected["log"]
    here, there = ([line.split() for line in lines(tmp_path / name)] for name in ("farm", "stock"))
    assert [line[0] for line in here] == [line[0] for line in there]
    assert len({line[1] for line in here}) == 1  # node_first_attempt_time
    sql = "SELECT attempts, lost_to FROM farm.node_execution WHERE thread_id = %s AND node = 'flaky'"
    assert farm.query(sql, thread_id) == [(claims, None)]
    times = [float(line[2]) for line in here]
    delays = [later - sooner for sooner, later in pairwise(times)]
    print(f"late by {[round(took - due, 3) for took, due in zip(delays, [0.1, 0.8, 0.9], strict=False)]} s")
    assert all(took >= due for took, due in zip(delays, [0.1, 0.8, 0.9], strict=False))


def test_a_worker_that_dies_in_a_later_try_does_not_begin_the_tries_anew(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path
) -> None:
    thread_id = client.threads.create()["thread_id"]
    run_id = client.runs.create(thread_id, "dies_between_tries", input=given(tmp_path, "farm"))["run_id"]
    wait_for((tmp_path / "farm" / "second").exists, what="the second try")
    holder = farm.process_of(farm.holder_of(run_id, "node"))

    holder.kill()
    client.runs.join(thread_id, run_id)

    assert client.threads.get_state(thread_id)["values"]["log"] == ["done"]
    assert lines(tmp_path / "farm") == ["1", "2", "3", "4", "5"]
    farm.start_worker(f"{holder.name}-again")


def test_a_retry_that_waits_holds_neither_its_siblings_nor_a_worker_and_can_be_cancelled(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path
) -> None:
    thread_id = client.threads.create()["thread_id"]

    run_id = client.runs.create(thread_id, "far", input=given(tmp_path, "farm", fails=1))["run_id"]
    wait_for(lambda: farm.query(WAITING, run_id), what="a node that waits for its retry")
    done = "SELECT node FROM farm.node_execution WHERE run_id = %s AND status = 'done' AND node = 'beside'"
    wait_for(lambda: farm.query(done, run_id), what="its sibling")

    assert farm.query(WAITING, run_id) == [("flaky", 1, "Flaked")]
    assert farm.query("SELECT 1 FROM farm.node_execution WHERE run_id = %s AND status = 'leased'", run_id) == []
    assert client.runs.get(thread_id, run_id)["status"] == "running"
    client.runs.cancel(thread_id, run_id, wait=True)
    assert client.runs.get(thread_id, run_id)["status"] == "interrupted"
    assert farm.query(WAITING, run_id) == []
    assert client.threads.get_state(thread_id)["next"] == ["flaky"]  # what its sibling wrote is kept


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
def test_a_new_run_takes_the_place_of_one_that_waits_for_its_retry(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path, strategy: Any
) -> None:
    thread_id = client.threads.create()["thread_id"]
    old = client.runs.create(thread_id, "lone_far", input=given(tmp_path, "farm", fails=1))["run_id"]
    wait_for(lambda: farm.query(WAITING, old), what="a node that waits for its retry")

    # Nothing fails in this one.
    given_now = {"journal": str(tmp_path / "farm"), "fails": 0, "log": []}
    answer: Any = client.runs.wait(thread_id, "lone_far", input=given_now, multitask_strategy=strategy)

    kept = [] if strategy == "rollback" else ["before"]
    assert answer["log"] == [*kept, "before", "flaky in try 1"]
    assert [line.split()[0] for line in lines(tmp_path / "farm")] == ["1", "1"]
    assert farm.query(WAITING, old) == []
