"""The same request sent twice is one run."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from agentfarm.errors import Conflict, NameReused, NotFound
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.once import KEPT_SECONDS
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.records import Admitted, Once
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home, wait_for
from tests.integration.persistence.runs.parts import end, is_waiting, new_run, start_of, statuses

ONE, OTHER = Once("order-1", b"what was asked for"), Once("order-1", b"something else")


def test_the_same_request_is_the_same_run_and_is_not_published_again(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    first = runs.admit(acme, new_run(thread_id, input={"a": 1}, once=ONE))
    again = runs.admit(acme, new_run(thread_id, input={"a": 1}, once=ONE))
    end(home, acme, first.run.run_id, "success")  # type: ignore[union-attr]  # of no other build
    later = runs.admit(acme, new_run(uuid4(), input={"a": 1}, create_thread=True, once=ONE))

    assert isinstance(first, Admitted)
    assert isinstance(again, Admitted)
    assert isinstance(later, Admitted)
    assert first.ready == (start_of(acme, first.run.run_id),)
    assert (again.run.run_id, again.ready, again.run.status) == (first.run.run_id, (), "running")
    assert (later.run.run_id, later.ready, later.run.status) == (first.run.run_id, (), "success")
    assert later.run.spec is not None
    assert later.run.spec.input == {"a": 1}
    assert len(statuses(home, acme)) == 1


def test_another_request_of_the_name_is_refused_and_changes_nothing(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    runs.admit(acme, new_run(thread_id, once=ONE))

    with pytest.raises(NameReused):
        runs.admit(acme, new_run(thread_id, once=OTHER))

    assert len(statuses(home, acme)) == 1


def test_a_name_is_its_tenants_own(
    home: Home, runs: PostgresRuns, acme: Tenant, globex: Tenant, thread_id: UUID
) -> None:
    runs.admit(acme, new_run(thread_id, once=ONE))

    runs.admit(globex, new_run(thread_id, create_thread=True, once=OTHER))

    assert (len(statuses(home, acme)), len(statuses(home, globex))) == (1, 1)


def test_a_request_that_was_refused_leaves_its_name_free(home: Home, runs: PostgresRuns, acme: Tenant) -> None:
    with pytest.raises(NotFound):
        runs.admit(acme, new_run(uuid4(), once=ONE))

    runs.admit(acme, new_run(uuid4(), create_thread=True, once=OTHER))

    assert len(statuses(home, acme)) == 1


def test_of_two_at_once_the_second_waits_and_finds_the_firsts_run(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    with home.connect() as connection, ThreadPoolExecutor(2) as pool, connection.transaction():
        connection.execute("SELECT FROM farm.thread WHERE thread_id = %s FOR UPDATE", [thread_id])
        both = [pool.submit(runs.admit, acme, new_run(thread_id, once=ONE)) for _ in range(2)]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        wait_for(lambda: home.query(waiting, home.name)[0][0] == 2, what="one at the thread, one at the name")
        assert is_waiting(home)
        connection.execute("COMMIT")
        answers = [one.result(15) for one in both]

    assert len({answer.run.run_id for answer in answers if isinstance(answer, Admitted)}) == 1
    assert sorted(len(answer.ready) for answer in answers if isinstance(answer, Admitted)) == [0, 1]
    assert len(statuses(home, acme)) == 1


def test_the_same_request_is_no_new_run_because_the_first_was_deleted(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    first = runs.admit(acme, new_run(thread_id, once=ONE))
    assert isinstance(first, Admitted)
    end(home, acme, first.run.run_id, "success")
    runs.delete(acme, thread_id, first.run.run_id)

    with pytest.raises(Conflict):
        runs.admit(acme, new_run(thread_id, once=ONE))

    assert statuses(home, acme) == {}


def test_a_name_is_free_after_a_day_and_then_removed(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    healing = PostgresHealing(home.ops, home.app, home.settings)
    age = "UPDATE farm.idempotency_key SET created_at = now() - make_interval(secs => %s) RETURNING 1"
    runs.admit(acme, new_run(thread_id, once=ONE))
    home.query(age, KEPT_SECONDS - 60)
    assert healing.forget_names() == 0
    home.query(age, KEPT_SECONDS + 60)

    runs.admit(acme, new_run(thread_id, once=OTHER))

    assert len(statuses(home, acme)) == 2
    assert healing.forget_names() == 0
    home.query(age, KEPT_SECONDS + 60)
    assert healing.forget_names() == 1
    assert home.query("SELECT count(*) FROM farm.idempotency_key") == [(0,)]
