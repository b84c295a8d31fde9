"""What a fault's victim holds is found wherever it is leased, and messages are those that the farm has sent."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import psycopg
import pytest
import redis

from agentfarm.ids import ZERO
from agentfarm.persistence.redis_tier.scripts import thread_key
from tests.chaos.faults import Faults, Fired
from tests.chaos.fleet import Fleet
from tests.chaos.plan import Planned
from tests.chaos.servers import Servers
from tests.services import NOWHERE, OwnDatabase

TENANT, THREAD, RUN, AT, HELD, WAITING, OVER = (UUID(int=n) for n in range(1, 8))
EPOCH, MINE, OTHERS, PID = 7, 11, 12, 4242

ROWS = f"""
INSERT INTO farm.worker (worker, name, host, pid)
  VALUES ({MINE}, 'mine', 'h', {PID}), ({OTHERS}, 'others', 'h', {PID + 1});
INSERT INTO farm.thread_head (tenant_id, thread_id, epoch, redis_run) VALUES ('{TENANT}', '{THREAD}', {EPOCH}, '{RUN}');
INSERT INTO farm.run (tenant_id, run_id, thread_id, assistant_id, graph_id, status, tier, spec)
  VALUES ('{TENANT}', '{RUN}', '{THREAD}', '{RUN}', 'chain', 'running', 'redis', '');
INSERT INTO farm.node_execution (tenant_id, thread_id, run_id, checkpoint_id, execution_id, node, queue, status, spec)
  VALUES ('{TENANT}', '{THREAD}', '{RUN}', '{ZERO}', '{RUN}', '__start__', '', 'done', ''),
         ('{TENANT}', '{THREAD}', '{RUN}', '{AT}', '{HELD}', 'a', 'io', 'in_redis', '');
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(redis_url)
    made.hset(thread_key(TENANT, THREAD), mapping={
        "ep": EPOCH, "run": RUN.hex, "st": "open", "at": AT.hex, "wd": 3,
        "e:1": HELD.hex, "e:2": WAITING.hex, "e:3": OVER.hex,
        f"x:{HELD.hex}": f"l,{MINE},99,1,2", f"x:{WAITING.hex}": "r,1", f"x:{OVER.hex}": "d",
        f"p:{HELD.hex}": "a\0io", f"p:{WAITING.hex}": "b\0cpu", f"p:{OVER.hex}": "c\0io",
    })  # fmt: skip
    yield made
    made.delete(thread_key(TENANT, THREAD))
    made.close()


@pytest.fixture
def faults(database: OwnDatabase, client: redis.Redis, redis_url: str) -> Iterator[Faults]:
    _do(database, ROWS)
    yield _faults(database, redis_url)
    _do(database, "TRUNCATE farm.worker, farm.thread_head, farm.run, farm.node_execution")


def _faults(database: OwnDatabase, redis_url: str) -> Faults:
    streams = SimpleNamespace(url=lambda: redis_url)
    servers = cast("Servers", SimpleNamespace(root_url=database.root_url, streams=streams))
    return Faults(cast("Fleet", None), servers, [])


def _do(database: OwnDatabase, statement: str) -> None:
    with psycopg.connect(database.root_url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]  # literal SQL of the test


def _held(faults: Faults, pids: list[int] | None) -> list[tuple[UUID, UUID, UUID]]:
    fired = Fired(Planned(0.0, "kill worker", "one", 0.0, 0))
    faults._note(fired, pids)
    return fired.held


def test_a_lease_in_redis_is_in_hand_like_one_in_postgres(faults: Faults, database: OwnDatabase) -> None:
    assert _held(faults, [PID]) == _held(faults, None) == [(RUN, AT, HELD)]
    assert _held(faults, [PID + 1]) == []

    leased = f"status = 'leased', worker = {OTHERS}"
    _do(database, f"UPDATE farm.node_execution SET {leased} WHERE execution_id = '{HELD}'")

    assert _held(faults, [PID + 1]) == [(RUN, AT, HELD)]


@pytest.mark.parametrize(
    "over",
    ["redis_run = NULL", f"epoch = {EPOCH + 1}"],
    ids=["the run was recalled", "another line counts"],
)
def test_what_redis_still_has_of_a_line_that_counts_no_more_is_in_nobodys_hand(
    faults: Faults, database: OwnDatabase, over: str
) -> None:
    _do(database, f"UPDATE farm.thread_head SET {over}")

    assert _held(faults, None) == []


def test_of_a_run_that_is_being_recalled_nobody_holds_anything_in_redis(faults: Faults, client: redis.Redis) -> None:
    client.hset(thread_key(TENANT, THREAD), "st", "recalled")

    assert _held(faults, None) == []


def test_a_redis_that_is_down_hides_nothing_of_postgres(faults: Faults, database: OwnDatabase) -> None:
    _do(database, f"UPDATE farm.node_execution SET status = 'leased', worker = {MINE} WHERE execution_id = '{HELD}'")

    assert _held(_faults(database, NOWHERE), [PID]) == [(RUN, AT, HELD)]


def test_messages_of_a_run_in_redis_are_sent_again_as_they_were_sent(faults: Faults, database: OwnDatabase) -> None:
    of_redis = faults._messages_in_redis(faults._read_moved())

    assert [(one.execution_id, one.thread_id, one.epoch, one.node, one.queue) for one in of_redis] == [
        (HELD, THREAD, EPOCH, "a", "io"),
        (WAITING, THREAD, EPOCH, "b", "cpu"),
    ] * 2
    epochs = {one.execution_id: one.epoch for one in faults._messages_in_postgres()}
    assert epochs == {RUN: 0, HELD: EPOCH}, "a start never says where its run is moved"

    _do(database, f"UPDATE farm.thread_head SET redis_run = NULL, epoch = {EPOCH + 1}")

    both = [one.epoch for one in faults._messages_in_postgres() if one.execution_id == HELD]
    assert sorted(both) == [0, EPOCH], "some were sent before it was recalled, some after it"
