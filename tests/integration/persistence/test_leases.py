"""Death by lock, silence by age: real processes that are killed, frozen and cut off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from uuid import UUID

import psycopg
import pytest

from agentfarm.persistence import leases
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.leases import Held, WorkerLease
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand, begin, execution, go_on, start
from tests.integration.persistence.postgres import ROOT, Home, wait_for

#: A worker process that registers, claims what it is told on stdin, and then neither commits nor ends.
HOLDER = """
import sys, uuid
from pydantic import SecretStr
from agentfarm.conf import Settings, strict_msgpack
strict_msgpack()
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.database import Database, Databases
from agentfarm.persistence.executions import PostgresExecutions
from agentfarm.persistence.leases import WorkerLease
from agentfarm.persistence.serde import FaithfulSerializer
url, lease, *ids = sys.argv[1:]
settings = Settings(database_url=SecretStr(url), redis_url=SecretStr("redis://x"), broker_url=SecretStr("redis://x"),
                    secret_key=SecretStr("x"), heartbeat_seconds=0.1, lease_seconds=float(lease))
held = WorkerLease(settings, name="holder")
held.start()
executions = PostgresExecutions(Databases(Database(settings)), lambda graph: FaithfulSerializer(), held, settings)
claimed = executions.claim(ExecuteNode(uuid.UUID(ids[0]), "main", *map(uuid.UUID, ids[1:])))
print(type(claimed).__name__, flush=True)
sys.stdin.read()
"""


def hold(home: Home, message: object, *, lease_seconds: float = 15.0) -> subprocess.Popen[str]:
    ids = [str(getattr(message, name)) for name in ("tenant_id", "run_id", "checkpoint_id", "execution_id")]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, home.url("farm_app"), str(lease_seconds), *ids],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "Claimed"
    return process


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def healing(home: Home, **settings: object) -> PostgresHealing:
    return PostgresHealing(home.ops, home.app, home.settings.model_copy(update=settings))


def test_what_a_killed_process_held_is_taken_over_at_once(
    home: Home, hand: Hand, acme: Tenant, ended: list[subprocess.Popen[str]]
) -> None:
    message = start(home, acme)
    ended.append(hold(home, message))
    healer = healing(home)
    assert healer.sweep().again == ()
    assert hand.refusal(message) == "busy"

    ended[0].kill()
    again = wait_for(lambda: healer.sweep().again, what="the execution of the killed process", seconds=5)

    assert again == (message.__class__(*_ids(message), "graph"),)
    taken = hand.claim(message)
    assert (taken.attempt, taken.fence) == (2, 3)  # the sweep fences the dead one out, the claim takes the next fence
    assert [loss["worker"] for loss in execution(home, message)["lost_to"]] == ["holder"]


def test_a_claim_needs_no_sweep_to_take_over_from_a_killed_process(
    home: Home, hand: Hand, acme: Tenant, ended: list[subprocess.Popen[str]]
) -> None:
    message = start(home, acme)
    ended.append(hold(home, message))

    ended[0].kill()
    ended[0].wait()
    taken = wait_for(
        lambda: hand.executions.claim(message).__class__.__name__ == "Claimed", what="the lease", seconds=5
    )

    assert taken


def test_a_node_that_computes_for_longer_than_a_lease_keeps_it(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    hand, other = hands(lease_seconds=3.0), hands("other", lease_seconds=3.0)
    message = start(home, acme)
    claimed = hand.claim(message)

    end = time.monotonic() + 6.0
    while time.monotonic() < end:  # it waits for nothing, so that nothing else gets to run but by its turn
        pass

    assert healing(home, lease_seconds=3.0).sweep().again == ()
    assert other.refusal(message) == "busy"
    assert hand.commit(claimed, begin(claimed, "one")).ready


def test_a_frozen_process_loses_its_lease_when_it_has_been_silent_for_so_long(
    home: Home, hand: Hand, acme: Tenant, ended: list[subprocess.Popen[str]]
) -> None:
    message = start(home, acme)
    ended.append(hold(home, message, lease_seconds=1.0))
    healer = healing(home, lease_seconds=1.0)
    os.kill(ended[0].pid, signal.SIGSTOP)
    assert healer.sweep().again == ()

    again = wait_for(lambda: healer.sweep().again, what="the execution of the frozen process", seconds=10)
    os.kill(ended[0].pid, signal.SIGCONT)

    assert len(again) == 1
    taken = hand.claim(message)
    assert hand.commit(taken, begin(taken, "one")).ready


def test_a_process_that_lost_its_connection_comes_back_under_a_new_id(home: Home, hand: Hand, acme: Tenant) -> None:
    before = hand.lease.worker_id()
    first = hand.claim(start(home, acme))

    home.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'agentfarm-lease' AND datname = current_database()"
    )
    after = wait_for(lambda: (hand.lease._id or before) != before and hand.lease.worker_id(), what="a new id")

    assert after != before
    # Nobody was faster, so the commit under the old id is still good.
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    assert hand.commit(one, go_on(one)).ended is not None


def test_a_process_whose_server_falls_silent_comes_back_under_a_new_id(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_TIMEOUT_SECONDS", 0)  # and one second for the answer to come
    settings = home.settings.model_copy(update={"heartbeat_seconds": 0.1})
    lease = WorkerLease(settings, name="cut off")
    lease.start()
    first = lease.worker_id()
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'agentfarm-lease' AND datname = %s"
    (backend,) = home.query(sql, home.name)[0]

    os.kill(backend, signal.SIGSTOP)
    try:
        again = "SELECT 1 FROM farm.worker WHERE name = 'cut off' AND worker <> %s"
        wait_for(lambda: home.query(again, first), what="the worker under a new id", seconds=5)
        assert lease.worker_id() != first
    finally:
        os.kill(backend, signal.SIGCONT)
        lease.stop()


def test_a_process_that_was_declared_dead_takes_a_new_id(home: Home, hand: Hand) -> None:
    before = hand.lease.worker_id()

    home.query("UPDATE farm.worker SET ended_at = now() RETURNING 1")

    wait_for(lambda: (hand.lease._id or before) != before, what="a new id")


def test_the_lock_is_held_before_the_row_can_be_seen(home: Home, hands: Callable[..., Hand]) -> None:
    healer = healing(home)
    for _ in range(5):
        hands()
        healer.sweep()

    assert home.query("SELECT count(*) FROM farm.worker WHERE ended_at IS NOT NULL") == [(0,)]


def test_a_row_that_somebody_has_costs_no_session_and_holds_up_nothing_else(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    worker = hand.lease.worker_id()
    locked, free = hand.claim(start(home, acme)), hand.claim(start(home, acme))
    with home.connect() as connection, connection.transaction():
        connection.execute("SELECT FROM farm.node_execution WHERE run_id = %s FOR UPDATE", [locked.message.run_id])
        hand.executions.release(locked)
        hand.executions.release(free)

        wait_for(lambda: execution(home, free.message)["status"] == "ready", what="the other one", seconds=10)

        assert execution(home, locked.message)["status"] == "leased"
    wait_for(lambda: execution(home, locked.message)["status"] == "ready", what="the one that was locked")
    assert hand.lease.worker_id() == worker


def test_the_thread_goes_on_whatever_is_raised_in_it(
    home: Home, hand: Hand, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hand.lease.worker_id()

    def fail(connection: object) -> None:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(hand.lease, "_return_all", fail)

    wait_for(lambda: (hand.lease._id or before) != before, what="a new id")
    assert hand.claim(start(home, acme)).kind == "start"


def test_a_clean_end_says_so_and_frees_the_lock(home: Home) -> None:
    lease = WorkerLease(home.settings, name="short")
    lease.start()
    worker = lease.worker_id()

    lease.stop()

    assert home.query("SELECT name FROM farm.worker WHERE ended_at IS NOT NULL") == [("short",)]
    with home.connect() as connection:
        assert connection.execute("SELECT pg_try_advisory_lock(%s)", (worker,)).fetchone() == (True,)


def test_a_worker_that_cannot_register_may_not_take_work(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import SecretStr

    from agentfarm.errors import StoreUnavailable
    from agentfarm.persistence import leases

    monkeypatch.setattr(leases, "REGISTER_TIMEOUT_SECONDS", 0.5)
    nowhere = home.settings.model_copy(update={"database_url": SecretStr("postgresql://farm_app@127.0.0.1:1/none")})
    lease = WorkerLease(nowhere, name="lost")

    with pytest.raises(StoreUnavailable):
        lease.start()

    lease.stop()


def _ids(message: object) -> list[object]:
    return [getattr(message, name) for name in ("tenant_id", "home", "run_id", "checkpoint_id", "execution_id")]


def test_what_is_given_back_while_postgres_is_away_does_not_hasten_the_next_try(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = WorkerLease(home.settings, name="alone")
    tries, pauses = [], []

    def away(*_: object, **__: object) -> object:
        tries.append(len(pauses))
        if len(tries) > 3:
            pytest.fail("it tries without a pause")
        raise psycopg.OperationalError("away")

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        lease._stopping = len(pauses) == 3

    monkeypatch.setattr(leases, "connect", away)
    monkeypatch.setattr(leases, "time", SimpleNamespace(sleep=pause))  # this module's alone
    lease.give_back(Held(UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4), fence=1, worker=1))
    lease._live()

    assert (tries, pauses) == ([0, 1, 2], [leases.RECONNECT_SECONDS] * 3)
