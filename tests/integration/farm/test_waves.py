"""A hundred short siblings over two workers: few messages, each sibling once, whatever one of them does."""

from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from tests.farm import FarmProcesses, wait_for

#: What a wave does is Postgres' and the workers' alone.
pytestmark = pytest.mark.parametrize("broker_url", ["redis"], indirect=True, scope="module")

ITEMS = """SELECT status, attempts, publishes, finished_at, started_at FROM farm.node_execution
            WHERE run_id = %s AND node = 'item' ORDER BY started_at"""


def ran(client: SyncLangGraphClient, thread_id: str, width: int, **given: Any) -> str:
    """A run that is over."""
    made = client.runs.create(thread_id, "wide", input={"width": width, "log": [], **given})
    client.runs.join(thread_id, made["run_id"])
    return str(made["run_id"])


def log(client: SyncLangGraphClient, thread_id: str) -> list[str]:
    return [str(line) for line in client.threads.get_state(thread_id)["values"]["log"]]  # type: ignore[call-overload]


def new_thread(client: SyncLangGraphClient) -> str:
    return str(client.threads.create()["thread_id"])


def messages(farm: FarmProcesses, run_id: str) -> int:
    """Of its items; the one that went on with the split had none of its own."""
    return sum(publishes for _, _, publishes, _, _ in farm.query(ITEMS, run_id))


def in_a_wave(
    client: SyncLangGraphClient, farm: FarmProcesses, width: int, *, most: int | None = None, **given: Any
) -> tuple[str, str]:
    """(thread, run) of a run whose items came as a wave, with so many messages at most. They do once both workers have
    seen that they are short, and while the machine has no more to do than it can."""
    enough = most or width - 1

    def one() -> tuple[str, str] | None:
        ran(client, new_thread(client), 32)
        thread_id = new_thread(client)
        run_id = ran(client, thread_id, width, **given)
        return (thread_id, run_id) if messages(farm, run_id) <= enough else None

    return wait_for(one, what="a wave", seconds=120)


def test_a_hundred_short_siblings_need_few_messages_and_are_executed_once_each(
    client: SyncLangGraphClient, farm: FarmProcesses
) -> None:
    thread_id, run_id = in_a_wave(client, farm, 100, most=6)

    rows = farm.query(ITEMS, run_id)
    assert [(status, attempts) for status, attempts, *_ in rows] == [("done", 1)] * 100
    assert log(client, thread_id) == [*(f"{n} done" for n in range(100)), "end"]


def test_a_long_sibling_keeps_none_of_the_short_ones_waiting(client: SyncLangGraphClient, farm: FarmProcesses) -> None:
    thread_id, run_id = in_a_wave(client, farm, 8, seconds={"0": 3.0})

    *_, slowest = sorted(farm.query(ITEMS, run_id), key=lambda row: row[3] - row[4])
    others = [row for row in farm.query(ITEMS, run_id) if row != slowest]
    assert all(finished < slowest[3] for _, _, _, finished, _ in others)
    assert log(client, thread_id) == [*(f"{n} done" for n in range(8)), "end"]


def test_a_question_among_siblings_waits_for_its_answer(client: SyncLangGraphClient, farm: FarmProcesses) -> None:
    thread_id, _ = in_a_wave(client, farm, 30, asks=[7, 19])
    asked = client.threads.get_state(thread_id)["interrupts"]
    assert sorted(one["value"]["question"] for one in asked) == [7, 19]

    answers = {one["id"]: "answered" for one in asked}
    client.runs.wait(thread_id, "wide", command={"resume": answers})

    told = [f"{n} {'answered' if n in (7, 19) else 'done'}" for n in range(30)]
    assert log(client, thread_id) == [*told, "end"]


def test_an_error_among_siblings_ends_the_run_and_nothing_of_it_stays_open(
    client: SyncLangGraphClient, farm: FarmProcesses
) -> None:
    thread_id, run_id = in_a_wave(client, farm, 30, fails=[3])

    assert client.runs.get(thread_id, run_id)["status"] == "error"
    assert {status for status, *_ in farm.query(ITEMS, run_id)} <= {"done", "cancelled"}
    assert farm.query("SELECT count(*) FROM farm.superstep WHERE run_id = %s", run_id) == [(0,)]


def test_a_worker_killed_in_a_wave_loses_what_it_held_and_the_others_go_on(
    client: SyncLangGraphClient, farm: FarmProcesses
) -> None:
    in_a_wave(client, farm, 100)
    thread_id, width = new_thread(client), 600
    given = {"width": width, "seconds": {"every": 0.008}, "log": []}
    run_id = client.runs.create(thread_id, "wide", input=given)["run_id"]

    def holder() -> Any:
        found = farm.query(
            "SELECT w.pid FROM farm.node_execution e JOIN farm.worker w USING (worker)"
            " WHERE e.run_id = %s AND e.node = 'item' AND e.status = 'leased' LIMIT 1",
            run_id,
        )
        return found and farm.process_of(int(found[0][0]))

    dying = wait_for(holder, what="a worker in the wave")
    dying.kill()
    client.runs.join(thread_id, run_id)

    rows = farm.query(ITEMS, run_id)
    assert {status for status, *_ in rows} == {"done"}
    assert 1 <= sum(attempts == 2 for _, attempts, *_ in rows) <= 8  # its threads
    assert all(attempts <= 2 for _, attempts, *_ in rows)
    assert log(client, thread_id) == [*(f"{n} done" for n in range(width)), "end"]
    farm.start_worker(f"{dying.name}-again")
