"""Runs that Redis moves, on a farm of processes: a client sees the same, whatever becomes of workers and of Redis."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from langgraph_sdk.client import SyncLangGraphClient

from agentfarm.local.state import State, make_folder
from agentfarm.local.valkey import Valkey
from tests.farm import FarmProcesses, Process, running, wait_for
from tests.in_redis import keys_of_runs, read_moved
from tests.services import OwnDatabase

pytestmark = pytest.mark.parametrize("broker_url", ["redis"], indirect=True, scope="module")

STEPS = [f"step_{n:02}" for n in range(1, 13)]
NODES = (
    "SELECT node, status, attempts FROM farm.node_execution"
    " WHERE run_id = %s AND node <> '__start__' ORDER BY created_at, node"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Redis for runs alone, which may be killed."""
    folder = tmp_path_factory.mktemp("tier")
    make_folder(folder)
    made = Valkey(State(folder))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def farm(
    farm_environment: Mapping[str, str],
    database: OwnDatabase,
    tenant_keys: Mapping[str, str],
    server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FarmProcesses]:
    environment = {
        **farm_environment,
        "AGENTFARM_CONFIG": str(Path(__file__).parent / "langgraph.json"),
        "AGENTFARM_LEASE_SECONDS": "4",
        "AGENTFARM_REDIS_TIER_URL": server.url(),
    }
    made = FarmProcesses(environment, tmp_path_factory.mktemp("farm"), database.root_url, tenant_keys)
    with running(made):
        made.start_all("one", "two")
        yield made


class Tier:
    """What Redis has of runs."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url, decode_responses=False, socket_timeout=5)

    def keys(self) -> list[bytes]:
        return keys_of_runs(self.client)

    def holder(self, farm: FarmProcesses, node: str) -> Process:
        """The worker that executes this node of the one run that is there; waits for it."""

        def find() -> int | None:
            has = (one for moved in read_moved(self.client) for one in moved.executions)
            return next((one.worker for one in has if one.node == node and one.worker is not None), None)

        worker = wait_for(find, what=f"a worker that holds {node}")
        ((pid,),) = farm.query("SELECT pid FROM farm.worker WHERE worker = %s", worker)
        return farm.process_of(pid)


@pytest.fixture
def pid(server: Valkey) -> int:
    """Of the Redis."""
    found = server.pid
    assert found is not None
    return found


@pytest.fixture
def tier(server: Valkey) -> Iterator[Tier]:
    made = Tier(server.url())
    yield made
    wait_for(lambda: made.keys() == [], what="a Redis that has forgotten every run, whatever became of it")


def begin(client: SyncLangGraphClient, graph: str = "twelve_steps", **given: Any) -> tuple[str, str]:
    thread_id = client.threads.create()["thread_id"]
    asked = {"input": {"delay_seconds": 0.2}, "config": {"agentfarm": {"persistence": "redis"}}, **given}
    return thread_id, client.runs.create(thread_id, graph, **asked)["run_id"]


def check_right(client: SyncLangGraphClient, farm: FarmProcesses, thread_id: str, run_id: str) -> list[int]:
    """The run ended right, once; how often each node was begun, as far as Postgres knows."""
    client.runs.join(thread_id, run_id)
    assert client.runs.get(thread_id, run_id)["status"] == "success"
    history = client.threads.get_history(thread_id, limit=100)
    assert [state["metadata"]["step"] for state in history] == list(range(12, -2, -1))
    assert len(client.threads.get_state(thread_id)["values"]["log"]) == 12
    rows = farm.query(NODES, run_id)
    assert [(node, status) for node, status, _ in rows] == [(name, "done") for name in STEPS]
    forks = "SELECT 1 FROM farm.checkpoint WHERE thread_id = %s GROUP BY parent_id HAVING count(*) > 1"
    assert farm.query(forks, thread_id) == []
    ends = [part.event for part in client.runs.join_stream(thread_id, run_id)].count("end")
    assert ends <= 1
    return [attempts for _, _, attempts in rows]


def test_a_run_in_redis_reads_as_any_other_while_it_runs_and_leaves_nothing_there(
    client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier
) -> None:
    thread_id, run_id = begin(client)
    seen: list[int] = []

    def look() -> bool:
        history = client.threads.get_history(thread_id, limit=100)
        steps = [state["metadata"]["step"] for state in history]
        assert steps == list(range(len(steps) - 2, -2, -1)), "whole, and in order"
        assert [len(state["values"].get("log", [])) for state in history] == [max(0, step) for step in steps]
        seen.append(len(steps))
        return client.runs.get(thread_id, run_id)["status"] != "running"

    wait_for(look, what="the run's end")

    assert len(set(seen)) > 4, "it was seen while it ran"
    assert seen == sorted(seen), "what was seen once stays"
    assert check_right(client, farm, thread_id, run_id) == [1] * 12
    assert farm.query("SELECT tier FROM farm.run WHERE run_id = %s", run_id) == [("redis",)]
    (told,) = farm.query("SELECT epoch > 0, redis_run, entry FROM farm.thread_head WHERE thread_id = %s", thread_id)
    assert told == (True, None, 13), "thirteen commits came from Redis"
    assert tier.keys() == []


def test_a_node_whose_worker_is_killed_is_executed_again_and_the_run_goes_on_in_postgres(
    client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier
) -> None:
    thread_id, run_id = begin(client)
    holder = tier.holder(farm, "step_04")

    holder.kill()

    attempts = check_right(client, farm, thread_id, run_id)
    assert attempts == [1, 1, 1, 2] + [1] * 8
    farm.start_worker(f"{holder.name}-again")


def test_a_frozen_worker_that_wakes_up_commits_nothing(
    client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier
) -> None:
    thread_id, run_id = begin(client)
    holder = tier.holder(farm, "step_03")

    holder.freeze()
    taken_over = "SELECT 1 FROM farm.node_execution WHERE run_id = %s AND node = 'step_03' AND attempts = 2"
    wait_for(lambda: farm.query(taken_over, run_id), what="the node's second attempt", seconds=40)
    holder.thaw()

    check_right(client, farm, thread_id, run_id)


def test_a_redis_that_is_emptied_costs_a_node_or_two(
    client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier
) -> None:
    thread_id, run_id = begin(client)
    tier.holder(farm, "step_05")

    tier.client.flushall()

    check_right(client, farm, thread_id, run_id)


def test_a_redis_that_is_killed_holds_nobody_up(
    client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier, server: Valkey, pid: int
) -> None:
    thread_id, run_id = begin(client)
    tier.holder(farm, "step_05")

    os.kill(pid, signal.SIGKILL)
    try:
        check_right(client, farm, thread_id, run_id)
        other_thread, other_run = begin(client)  # it begins without it, too
        check_right(client, farm, other_thread, other_run)
    finally:
        server.start()


def test_a_redis_that_is_full_holds_nobody_up(client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier) -> None:
    thread_id, run_id = begin(client)
    tier.holder(farm, "step_05")

    tier.client.config_set("maxmemory", "1")
    try:
        check_right(client, farm, thread_id, run_id)
    finally:
        tier.client.config_set("maxmemory", "0")


def test_a_redis_that_answers_late_holds_nobody_up(
    client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier, pid: int
) -> None:
    thread_id, run_id = begin(client)
    tier.holder(farm, "step_05")

    os.kill(pid, signal.SIGSTOP)
    try:
        check_right(client, farm, thread_id, run_id)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_run_that_is_cancelled_keeps_what_it_had_finished(
    client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier
) -> None:
    thread_id, run_id = begin(client)
    tier.holder(farm, "step_05")

    client.runs.cancel(thread_id, run_id, wait=True)

    assert client.runs.get(thread_id, run_id)["status"] == "interrupted"
    log = client.threads.get_state(thread_id)["values"]["log"]
    assert len(log) >= 4
    wait_for(lambda: tier.keys() == [], what="Redis to forget it")
    answer = client.runs.wait(
        thread_id, "twelve_steps", input={"delay_seconds": 0}, config={"agentfarm": {"persistence": "redis"}}
    )
    assert len(answer["log"]) == len(log) + 12


def test_a_thread_changes_its_tier_from_run_to_run(client: SyncLangGraphClient, farm: FarmProcesses) -> None:
    thread_id = client.threads.create()["thread_id"]

    for turn, persistence in enumerate(["redis", "postgres", "redis", "redis"], 1):
        answer = client.runs.wait(
            thread_id, "line", input={"log": [str(turn)]}, config={"agentfarm": {"persistence": persistence}}
        )
        assert len(answer["log"]) == 4 * turn

    steps = [state["metadata"]["step"] for state in client.threads.get_history(thread_id, limit=100)]
    assert steps == list(range(len(steps) - 2, -2, -1))


def test_a_run_that_fails_says_why(client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier) -> None:
    thread_id, run_id = begin(client, "failing", input={"log": []})

    client.runs.join(thread_id, run_id)

    (error,) = farm.query("SELECT error FROM farm.run WHERE run_id = %s", run_id)[0]
    assert error["error"], error
    assert client.runs.get(thread_id, run_id)["status"] == "error"
    assert tier.keys() == []


def test_a_user_of_one_tenant_reaches_no_run_of_another(
    client: SyncLangGraphClient, farm: FarmProcesses, tier: Tier, server: Valkey
) -> None:
    """Seen from outside: who has a tenant's own user of Redis has its keys, and nobody else's."""
    _, run_id = begin(client)
    tier.holder(farm, "step_02")
    (key,) = tier.keys()
    scripts = ("+evalsha", "+@hash", "+time", "+unlink", "+pexpire")
    tenant = key.split(b":")[1].decode()
    for user, prefix in (("mine", f"~t:{tenant}:*"), ("theirs", f"~t:{'0' * 32}:*")):
        tier.client.execute_command(
            "ACL", "SETUSER", user, "on", ">secret", "resetkeys", prefix, "nocommands", *scripts
        )
    port = server.port
    mine, theirs = (redis.Redis(port=port, username=user, password="secret") for user in ("mine", "theirs"))

    assert mine.hget(key, "run") == run_id.replace("-", "").encode()
    for forbidden in (
        lambda: theirs.hget(key, "run"),
        lambda: theirs.unlink(key),
        lambda: mine.keys("*"),
        mine.flushall,
        lambda: mine.eval("return 1", 0),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            forbidden()
