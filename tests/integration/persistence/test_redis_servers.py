"""Runs that are moved by several servers of a Redis cluster, or by one after the other: each ends right."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from agentfarm.messages import ExecuteNode
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.redis_tier.healing import RedisHealing
from agentfarm.persistence.redis_tier.scripts import thread_key
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home, wait_for
from tests.integration.persistence.redis_cluster import RedisCluster
from tests.integration.persistence.test_runs_whole import START_STATE, Worker, _line
from tests.integration.streaming.watched import Watched

#: Enough for each of three servers to have some.
THREADS = 12

LOG = ["a5", "b6", "c7", "a8", "b9", "c10"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    made = RedisCluster(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def worker_at(home: Home, acme: Tenant) -> Iterator[Callable[[str], Worker]]:
    made: list[Worker] = []

    def make(url: str) -> Worker:
        made.append(Worker(home, acme, _line(), url))
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


def begun(worker: Worker, nodes: int = 1) -> tuple[UUID, ExecuteNode]:
    """A thread whose run has executed so many nodes, and the message for the next."""
    thread_id = uuid4()
    _, (message,) = worker.admit(thread_id, START_STATE)
    for _ in range(nodes):
        (message,) = worker.execute(message)
    return thread_id, message


def go_on(home: Home, worker: Worker, thread_id: UUID, *messages: ExecuteNode) -> None:
    """To the run's end: by these messages, and by what is told meanwhile."""
    waiting = list(messages)

    def is_over() -> bool:
        waiting.extend(worker.told)
        worker.told.clear()
        while waiting:
            waiting.extend(worker.execute(waiting.pop(0)))
        return home.query("SELECT status FROM farm.run WHERE thread_id = %s", thread_id) == [("success",)]

    wait_for(is_over, what="the run's end", seconds=30)
    state = worker.builder.compile(checkpointer=worker.saver()).get_state(
        {"configurable": {"thread_id": str(thread_id)}}
    )
    assert state.values["log"] == LOG


def healed(home: Home, redis: RedisHealing) -> None:
    PostgresHealing(home.ops, home.app, home.settings, redis=redis).in_redis(lambda queue: 0)


def is_in_redis(home: Home, thread_id: UUID) -> bool:
    return home.query("SELECT redis_run IS NOT NULL FROM farm.thread_head WHERE thread_id = %s", thread_id) == [(True,)]


def test_a_cluster_has_each_thread_where_its_slot_is(
    home: Home, acme: Tenant, cluster: RedisCluster, worker_at: Callable[[str], Worker]
) -> None:
    worker = worker_at(cluster.url)
    runs = [begun(worker) for _ in range(THREADS)]

    keys = {thread_id: thread_key(acme.id, thread_id) for thread_id, _ in runs}
    for key in keys.values():
        with cluster.servers[cluster.place_of(key)].client() as client:
            assert client.exists(key)
    assert {cluster.place_of(key) for key in keys.values()} == {0, 1, 2}
    for thread_id, message in runs:
        go_on(home, worker, thread_id, message)


def test_a_server_that_is_lost_takes_no_run_of_another_with_it(
    home: Home,
    acme: Tenant,
    cluster: RedisCluster,
    worker_at: Callable[[str], Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = worker_at(cluster.url)
    monkeypatch.setattr(worker.behind, "begin", lambda: None)  # a round when we say so
    runs = dict(begun(worker) for _ in range(THREADS))
    place = {thread_id: cluster.place_of(thread_key(acme.id, thread_id)) for thread_id in runs}
    cluster.servers[0].kill()

    assert not worker.behind._round()

    entries = home.query("SELECT thread_id, entry FROM farm.thread_head")
    assert {thread_id for thread_id, entry in entries if entry == 2} == {one for one in runs if place[one] != 0}
    redis = RedisHealing(worker.scripts, worker.behind, late_seconds=60.0, lease_seconds=60.0)
    for _ in range(2):  # once may be a stumble
        healed(home, redis)
    assert {one for one in runs if not is_in_redis(home, one)} == {one for one in runs if place[one] == 0}
    for thread_id, message in runs.items():
        go_on(home, worker, thread_id, *([] if place[thread_id] == 0 else [message]))


def test_a_slot_that_another_server_has_now_costs_its_runs_their_place_alone(
    home: Home, acme: Tenant, cluster: RedisCluster, worker_at: Callable[[str], Worker]
) -> None:
    worker = worker_at(cluster.url)
    thread_id, message = begun(worker)
    cluster.give_slot_away(thread_key(acme.id, thread_id))

    go_on(home, worker, thread_id, message)

    other, message = begun(worker)
    go_on(home, worker, other, message)


def test_a_replica_that_lags_and_is_promoted_costs_what_it_lacked(
    home: Home,
    acme: Tenant,
    watched: Watched,
    worker_at: Callable[[str], Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = worker_at(watched.url())
    monkeypatch.setattr(worker.behind, "begin", lambda: None)
    thread_id, message = begun(worker)
    watched.cut_replica_off()
    for _ in range(2):
        (message,) = worker.execute(message)
    key = thread_key(acme.id, thread_id)
    had = worker.scripts.servers.of(key).client.hget(key, "n")

    watched.lose_primary_now()

    with watched.replica.client() as promoted:
        assert (had, promoted.hget(key, "n")) == (b"4", "2"), "it lacks two commits"
    go_on(home, worker, thread_id, message)
    nodes: list[Any] = home.query("SELECT node, attempts FROM farm.node_execution WHERE node <> '__start__'")
    assert sorted(nodes) == [("a", 1), ("a", 1), ("b", 1), ("b", 1), ("c", 1), ("c", 1)]
    forks = "SELECT 1 FROM farm.checkpoint WHERE thread_id = %s GROUP BY parent_id HAVING count(*) > 1"
    assert home.query(forks, thread_id) == []
