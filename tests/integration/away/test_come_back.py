"""Servers are killed under load and come back: no process is restarted by hand, and all that was acknowledged ends."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from langgraph_sdk.client import get_sync_client

from agentfarm.local.postgres import Postgres
from agentfarm.local.processes import wait_gone
from agentfarm.local.services import Services
from agentfarm.local.state import State, locked
from agentfarm.local.valkey import Valkey
from tests.farm import START_SECONDS, FarmProcesses, running, wait_for
from tests.in_redis import read_moved
from tests.integration.away.load import Load

RUNNING_RUNS = "SELECT 1 FROM farm.node_execution WHERE status = 'leased'"
COMMITS = "SELECT count(*) FROM farm.node_execution WHERE status = 'done'"


def under_way(farm: FarmProcesses, load: Load) -> None:
    wait_for(lambda: len(load.acknowledged) > 3 and farm.query(RUNNING_RUNS), what="runs under way")


@contextmanager
def nobody_restarts(farm: FarmProcesses) -> Iterator[None]:
    before = [process.pid for process in farm.processes if process.popen.poll() is None]
    yield
    assert [process.pid for process in farm.processes if process.popen.poll() is None] == before


def killed(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid, seconds=10)


def only_what_may_be_told(load: Load) -> None:
    print(f"{len(load.acknowledged)} runs, told {dict(load.told)}, slowest {load.slowest:.1f} s")  # told, not judged
    assert set(load.told) <= {"200", "503", "ConnectError", "ReadError", "RemoteProtocolError"}


def test_postgres_is_killed_and_comes_back(farm: FarmProcesses, mortals: Services) -> None:
    with nobody_restarts(farm), Load(farm) as load:
        under_way(farm, load)
        with locked(mortals.folder) as state:
            postgres = Postgres(state)
            killed(postgres.pid)
            wait_for(lambda: load.told["503"] > 0, what="a client that is told to come back")
            postgres.start()
        back = time.monotonic()
        ((before,),) = farm.query(COMMITS)
        wait_for(lambda: farm.query(COMMITS)[0][0] > before, what="the first commit", seconds=30)
        first = time.monotonic() - back
        known = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > known + 2, what="new runs", seconds=30)
    took = load.check()

    print(f"first commit {first:.2f} s after Postgres was back, all done {took:.1f} s after the load ended")
    only_what_may_be_told(load)
    assert first < 10  # 5 s on a machine that has nothing else to do


def test_who_starts_while_postgres_is_away_waits_for_it(farm: FarmProcesses, mortals: Services) -> None:
    folder = farm.folder / "late"
    folder.mkdir()
    late = FarmProcesses(farm.environment, folder, farm.admin_dsn, farm.keys)
    before = late.worker_names()
    with running(late):
        with locked(mortals.folder) as state:
            postgres = Postgres(state)
            killed(postgres.pid)
            web, worker = late.begin_web(), late.begin_worker("late")
            for process in (web, worker):
                wait_for(
                    lambda log=process.log: "this process waits for it" in log.read_text(),  # type: ignore[misc]
                    what=f"{process.name} that waits",
                    seconds=START_SECONDS,
                )
            postgres.start()
        late.await_web(web)
        late.await_worker(worker, before)


def test_valkey_is_killed_and_comes_back(farm: FarmProcesses, mortals: Services) -> None:
    """Streams and broker at once, with all messages and streams lost."""
    with nobody_restarts(farm), Load(farm) as load:
        under_way(farm, load)
        with locked(mortals.folder) as state:
            valkey = Valkey(state)
            killed(valkey.pid)
            for file in valkey.data.glob("**/*.aof"):
                file.write_bytes(b"")
            known = len(load.acknowledged)
            wait_for(lambda: len(load.acknowledged) > known, what="a run that is taken without a broker", seconds=30)
            valkey.start()
        back = time.monotonic()
    load.check()

    print(f"all done {time.monotonic() - back:.1f} s after Valkey was back")
    only_what_may_be_told(load)


def test_a_full_valkey_loses_nothing(farm: FarmProcesses, mortals: Services) -> None:
    url = Valkey(State(mortals.folder)).url(0)
    with nobody_restarts(farm), Load(farm) as load, redis.Redis.from_url(url) as client:
        under_way(farm, load)
        client.config_set("maxmemory", "1")
        known = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > known + 2, what="runs that are taken all the same", seconds=30)
        client.config_set("maxmemory", "0")
        back = time.monotonic()
    load.check()

    print(f"all done {time.monotonic() - back:.1f} s after there was room again")
    only_what_may_be_told(load)


def test_a_run_in_redis_loses_nothing_while_postgres_is_away(farm: FarmProcesses, mortals: Services) -> None:
    with (
        get_sync_client(url=farm.url, api_key=farm.keys["demo"]) as client,
        redis.Redis.from_url(farm.environment["REDIS_URL"]) as tier,
        nobody_restarts(farm),
    ):

        def held() -> list[str]:
            return [one.node for moved in read_moved(tier) for one in moved.executions if one.worker is not None]

        thread_id = client.threads.create()["thread_id"]
        asked: Any = {"input": {"delay_seconds": 0.4}, "config": {"agentfarm": {"persistence": "redis"}}}
        run_id = client.runs.create(thread_id, "twelve_steps", **asked)["run_id"]
        wait_for(lambda: "step_03" in held(), what="a node in Redis")
        with locked(mortals.folder) as state:
            postgres = Postgres(state)
            killed(postgres.pid)
            wait_for(lambda: held() == [], what="the node's commit, in Redis alone")
            postgres.start()
        client.runs.join(thread_id, run_id)

        assert client.runs.get(thread_id, run_id)["status"] == "success"
        assert len(client.threads.get_state(thread_id)["values"]["log"]) == 12
    attempts = "SELECT DISTINCT attempts, lost_to IS NULL FROM farm.node_execution WHERE run_id = %s"
    assert farm.query(attempts, run_id) == [(1, True)], "a node was executed again"
