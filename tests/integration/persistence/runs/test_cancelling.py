"""A run that is cancelled, or undone with all that it made."""

from uuid import UUID, uuid4

import pytest

from agentfarm.errors import NotFound
from agentfarm.ids import new_id
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.records import Ended
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.runs.parts import end, executions, new_run, start_of, statuses, thread_row


def test_cancelling_fences_out_what_is_open_and_starts_who_waited(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    active, waiting = (runs.admit(acme, new_run(thread_id)).run.run_id for _ in range(2))

    ended, ready = runs.cancel(acme, thread_id, active, rollback=False)

    assert ended == Ended(acme.id, "main", active, thread_id, "interrupted")
    assert ready == (start_of(acme, waiting),)
    assert statuses(home, acme) == {active: "interrupted", waiting: "running"}
    assert executions(home, acme) == [(active, active, "cancelled", 1), (waiting, waiting, "ready", 0)]


def test_a_waiting_run_that_is_cancelled_never_starts(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    active, waiting = (runs.admit(acme, new_run(thread_id)).run.run_id for _ in range(2))

    ended, ready = runs.cancel(acme, thread_id, waiting, rollback=False)
    end(home, acme, active, "success")

    assert (ended.status, ready) == ("interrupted", ())
    assert statuses(home, acme) == {active: "success", waiting: "interrupted"}
    assert thread_row(home, acme, thread_id)[0] == "idle"


@pytest.mark.parametrize("rollback", [False, True])
def test_a_run_that_is_over_or_another_tenants_cannot_be_cancelled(
    home: Home, runs: PostgresRuns, acme: Tenant, globex: Tenant, thread_id: UUID, rollback: bool
) -> None:
    over = runs.admit(acme, new_run(thread_id)).run.run_id
    end(home, acme, over, "success")
    theirs = runs.admit(globex, new_run(thread_id)).run.run_id

    for run_id in (over, theirs, new_id()):
        with pytest.raises(NotFound):
            runs.cancel(acme, thread_id, run_id, rollback=rollback)
    with pytest.raises(NotFound):
        runs.cancel(globex, uuid4(), theirs, rollback=rollback)

    assert statuses(home, acme) == {over: "success"}
    assert statuses(home, globex) == {theirs: "running"}


def test_a_stateless_run_that_is_undone_takes_its_thread_along(
    home: Home, runs: PostgresRuns, acme: Tenant, threads: PostgresThreads
) -> None:
    thread_id = uuid4()
    run_id = runs.admit(acme, new_run(thread_id, create_thread=True, forget_thread=True)).run.run_id

    ended, _ = runs.cancel(acme, thread_id, run_id, rollback=True)

    assert ended.forget_thread
    with pytest.raises(NotFound):
        threads.get(acme, thread_id)


def test_a_thread_that_another_run_uses_stays_when_a_stateless_run_of_it_is_undone(
    home: Home, runs: PostgresRuns, acme: Tenant
) -> None:
    """The answer of a stateless run names its thread; whoever read it may have sent another run there."""
    thread_id = uuid4()
    stateless = {"create_thread": True, "forget_thread": True}
    first = runs.admit(acme, new_run(thread_id, **stateless)).run.run_id
    second, third = (runs.admit(acme, new_run(thread_id, **more)).run.run_id for more in (stateless, {}))

    _, ready = runs.cancel(acme, thread_id, first, rollback=True)

    assert ready == (start_of(acme, second),)
    assert statuses(home, acme) == {second: "running", third: "pending"}


def test_a_thread_of_stateless_runs_stays_while_one_of_them_uses_it(
    home: Home, runs: PostgresRuns, acme: Tenant
) -> None:
    thread_id = uuid4()
    first, second = (
        runs.admit(acme, new_run(thread_id, create_thread=True, forget_thread=True)).run.run_id for _ in range(2)
    )

    runs.cancel(acme, thread_id, second, rollback=True)
    assert statuses(home, acme) == {first: "running"}
    runs.cancel(acme, thread_id, first, rollback=True)

    assert home.query("SELECT thread_id FROM farm.thread WHERE tenant_id = %s", acme.id) == []


def test_a_run_that_is_to_stay_keeps_its_thread_from_being_forgotten_for_good(
    home: Home, runs: PostgresRuns, acme: Tenant, globex: Tenant, thread_id: UUID
) -> None:
    stateless = [runs.admit(tenant, new_run(thread_id, forget_thread=True)).run.run_id for tenant in (acme, globex)]
    end(home, acme, stateless[0], "success")

    runs.admit(acme, new_run(thread_id))

    marked = home.query("SELECT tenant_id FROM farm.run WHERE forget_thread")
    assert marked == [(globex.id,)]
