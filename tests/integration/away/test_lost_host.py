"""A host is cut off with a worker on it: its node is executed elsewhere, and what it computed itself is not saved."""

import sys
import time
from collections.abc import Iterator, Mapping

import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from agentfarm.local.postgres import Postgres
from agentfarm.local.services import Services
from agentfarm.local.state import State
from agentfarm.local.valkey import Valkey
from tests.farm import FarmProcesses, Process, wait_for
from tests.integration.away.hosts import Host, another_host
from tests.services import FAST

#: From the cut to the same node's being executed on the other host (its lease is 4 s, not 15).
ELSEWHERE_SECONDS = 20.0

TAKEN_OVER = """
SELECT 1 FROM farm.node_execution e JOIN farm.worker w USING (worker)
WHERE e.run_id = %s AND e.node = 'step_01' AND e.attempts = 2 AND w.name LIKE 'near@%%'
"""


SAVED = """
SELECT count(*) FROM farm.node_execution WHERE run_id = %s AND node = 'step_01' AND status = 'done' HAVING count(*) > 0
"""

#: Longer than the take-over, so that the worker that was cut off ends its node after it, and finds that it is not its.
NODE_SECONDS = 20


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with another_host() as made:
        yield made


@pytest.fixture(scope="module")
def mortals(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Servers that the other host reaches, too."""
    options = {**FAST, "listen_addresses": f"127.0.0.1,{host.here}"}
    services = Services(tmp_path_factory.mktemp("mortals"), given={}, postgres_options=options)
    try:
        services.start()
        state = State(services.folder)
        with (Postgres(state).data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {host.there}/32 scram-sha-256\n")
        Postgres(state).query("SELECT pg_reload_conf()")
        Valkey(state)._ask("CONFIG", "SET", "bind", f"127.0.0.1 {host.here}")
        yield services
    finally:
        services.reset()


@pytest.fixture(scope="module")
def workers() -> tuple[str, ...]:
    return ()


def start_there(farm: FarmProcesses, host: Host, addresses: Mapping[str, str]) -> Process:
    """A worker `far` on the other host."""
    before = farm.worker_names()
    worker = [sys.executable, "-m", "celery", "-A", "workers", "worker", "-P", "threads", "-c", "2", "-Q", "io.v1"]
    named = ["-n", "far@%h", "--without-gossip", "--without-mingle", "-l", "INFO"]
    become = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    reached = {name: value.replace("127.0.0.1", host.here) for name, value in addresses.items() if "_URL" in name}
    process = farm.start("far", "-c", become, *host.command(*worker, *named), **reached)
    farm.await_worker(process, before)
    return process


def test_a_host_that_is_cut_off_loses_its_node_and_hears_of_it(
    farm: FarmProcesses, host: Host, addresses: Mapping[str, str]
) -> None:
    far = start_there(farm, host, addresses)
    farm.start_worker("near")
    with get_sync_client(url=farm.url, api_key=farm.keys["demo"]) as client:
        thread, run = run_on(far, farm, client)

        host.cut()
        cut = time.monotonic()
        wait_for(lambda: farm.query(TAKEN_OVER, run), what="the node on the other host", seconds=60)
        took = time.monotonic() - cut
        host.mend()

        wait_for(lambda: "fenced out" in far.log.read_text(), what=f"a worker that was fenced; {far.log}", seconds=90)
        wait_for(lambda: farm.query(SAVED, run), what="the node's end", seconds=60)
        ((logged,),) = farm.query(SAVED, run)
        client.runs.cancel(thread, run)
    print(f"elsewhere {took:.1f} s after the cut")  # told, and judged
    assert logged == 1
    assert took < ELSEWHERE_SECONDS


def run_on(worker: Process, farm: FarmProcesses, client: SyncLangGraphClient) -> tuple[str, str]:
    """A thread and its run, whose first node this worker has: any may take it, so some are asked for in vain."""
    for _ in range(30):
        thread = client.threads.create()["thread_id"]
        run = client.runs.create(thread, "twelve_steps", input={"delay_seconds": NODE_SECONDS})["run_id"]
        if farm.holder_of(run, "step_01") == worker.pid:
            return thread, run
        client.runs.cancel(thread, run)
    raise AssertionError(f"{worker.name} takes no node; {worker.log}")
