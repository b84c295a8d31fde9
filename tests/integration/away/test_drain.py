"""A worker that is told to end gives back what it cannot end in time: nothing is lost, and nothing counts as lost."""

import time
from collections.abc import Iterator

import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from tests.farm import FarmProcesses, Process, wait_for

SQL = "SELECT attempts, lost_to FROM farm.node_execution WHERE run_id = %s AND node = 'step_01' AND attempts = 2"


@pytest.fixture
def client(farm: FarmProcesses) -> Iterator[SyncLangGraphClient]:
    with get_sync_client(url=farm.url, api_key=farm.keys["demo"]) as made:
        yield made


def workers_of(farm: FarmProcesses) -> list[Process]:
    """Those that live."""
    living = [process for process in farm.processes if process.popen.poll() is None]
    return [process for process in living if process.name not in ("web", "beat")]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_that_ends_gives_its_node_to_another(
    client: SyncLangGraphClient, farm: FarmProcesses, pool: str
) -> None:
    if pool == "prefork":  # … and of no other: whoever has the node first is the one that is told to end
        for process in workers_of(farm):
            process.stop()
        for name in ("one", "two"):
            farm.start_worker(f"{name}-forks", pool="prefork", slots=1)
    thread_id = client.threads.create()["thread_id"]
    run_id = client.runs.create(thread_id, "twelve_steps", input={"delay_seconds": 60})["run_id"]
    holder = farm.process_of(farm.holder_of(run_id, "step_01"))
    assert holder.name.endswith("-forks") is (pool == "prefork")

    began = time.monotonic()
    code = holder.stop(seconds=10)
    ended = time.monotonic()
    ((_, lost_to),) = wait_for(lambda: farm.query(SQL, run_id), what="the node's second attempt", seconds=10)
    taken = time.monotonic()

    print(f"{pool}: ended after {ended - began:.1f} s with {code}, elsewhere {taken - ended:.2f} s later")
    assert code == 0
    assert [loss.get("given_back") for loss in lost_to] == [True]
    client.runs.cancel(thread_id, run_id)
    farm.start_worker(f"{holder.name}-again", pool=pool, slots=8 if pool == "threads" else 1)
