"""A node that kills whatever worker executes it: what runs beside it ends well, it is buried with its story, and the
farm goes on. And what a node may rely on that was killed between its side effect and its commit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from tests.farm import FarmProcesses, wait_for
from tests.services import FarmMaker, OwnDatabase

MAX_ATTEMPTS = 4


@pytest.fixture(scope="module")
def farm(farm_over: FarmMaker, database: OwnDatabase) -> Iterator[FarmProcesses]:
    attempts = {"AGENTFARM_MAX_ATTEMPTS": str(MAX_ATTEMPTS)}
    with farm_over(database, "integration/farm/poison.json", "one", "two", **attempts) as made:
        yield made


def journal(tmp_path: Path) -> Path:
    made = tmp_path / "journal"
    made.touch()
    return made


def begin(client: SyncLangGraphClient, graph: str, given: dict[str, Any]) -> str:
    thread_id = client.threads.create()["thread_id"]
    return str(client.runs.create(thread_id, graph, input=given)["run_id"])


def payments(made: Path) -> list[tuple[str, str]]:
    """(task id, attempt) of each."""
    return [(line[1], line[2]) for line in map(str.split, made.read_text().splitlines()) if line[0] == "payment"]


def test_a_payment_has_the_same_key_when_its_worker_is_killed_and_another_in_another_run(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path
) -> None:
    made = journal(tmp_path)
    run_id = begin(client, "payment", {"journal": str(made)})
    holder = farm.process_of(farm.holder_of(run_id, "pay"))
    wait_for(lambda: payments(made), what="the payment")

    holder.kill()
    wait_for(lambda: len(payments(made)) == 2, what="the payment's second attempt")
    made.write_text(made.read_text() + "killed 0\n")
    second = begin(client, "payment", {"journal": str(made)})
    over = "SELECT 1 FROM farm.run WHERE status = 'success' AND run_id = ANY (%s)"
    wait_for(lambda: len(farm.query(over, [run_id, second])) == 2, what="both runs' end")
    farm.start_worker(f"{holder.name}-again")

    (key, first_try), (again, second_try), (other, _) = payments(made)
    assert (key == again, other != key) == (True, True)
    assert (first_try, second_try) == ("1", "2")


def test_a_node_that_kills_its_workers_is_buried_with_its_story_and_takes_nobody_along(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path
) -> None:
    given = {"journal": str(journal(tmp_path))}
    farm.start_worker("alone", pool="prefork", queue="quarantine", slots=1)
    poison = begin(client, "poison", given)
    innocents = [begin(client, "innocent", given) for _ in range(14)]

    first = wait_for(lambda: [p for p in farm.processes if p.popen.poll() is not None], what="the first death")[0]
    farm.start_worker(f"{first.name}-later")
    over = "SELECT status, error FROM farm.run WHERE run_id = ANY (%s) AND finished_at IS NOT NULL"
    ended = wait_for(lambda: farm.query(over, [poison]), what="the burial", seconds=60)
    wait_for(lambda: len(farm.query(over, innocents)) == 14, what="the innocents' end", seconds=60)

    assert {status for status, _ in farm.query(over, innocents)} == {"success"}
    ((status, error),) = ended
    assert (status, error["error"], error["node"], error["attempts"]) == ("error", "NodeCrashed", "poison", 4)
    assert f"Node poison was begun {MAX_ATTEMPTS} times" in error["message"]
    story = [(loss["worker"].split("@")[0], loss["how"], loss["alone"]) for loss in error["lost_to"]]
    assert {name for name, _, _ in story[:2]} <= {"one", "two", "one-again", "two-again", f"{first.name}-later"}
    assert story[0][1:] == ("died", False)
    assert story[2:] == [("alone", "died", True)] * 2
    rows = farm.query("SELECT status, queue FROM farm.node_execution WHERE run_id = %s AND node = 'poison'", poison)
    assert rows == [("dead", "quarantine")]
    assert client.runs.wait(None, "innocent", input=given) == {**given, "done": True}
