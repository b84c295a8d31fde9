"""What is kept of a run: found, listed, deleted, announced."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from agentfarm.errors import Conflict, NotFound
from agentfarm.ids import new_id
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.records import Ended
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home, wait_for
from tests.integration.persistence.runs.parts import end, executions, is_waiting, new_run


def test_runs_are_listed_newest_first_in_pages(
    home: Home, runs: PostgresRuns, acme: Tenant, globex: Tenant, thread_id: UUID
) -> None:
    ids = [runs.admit(acme, new_run(thread_id)).run.run_id for _ in range(5)]

    def listed(tenant: Tenant = acme, **how: Any) -> list[UUID]:
        return [row.run_id for row in runs.list(tenant, thread_id, **{"limit": 10, "offset": 0, "status": None} | how)]

    assert listed() == ids[::-1]
    assert listed(limit=2) == ids[::-1][:2]
    assert listed(limit=2, offset=4) == ids[:1]
    assert listed(status="running") == ids[:1]
    assert listed(globex) == []
    with pytest.raises(NotFound):
        runs.list(acme, uuid4(), limit=10, offset=0, status=None)


def test_a_run_is_found_by_its_own_tenant_and_under_its_own_thread_alone(
    runs: PostgresRuns, threads: PostgresThreads, acme: Tenant, globex: Tenant, thread_id: UUID
) -> None:
    run_id = runs.admit(acme, new_run(thread_id)).run.run_id
    other = threads.create(acme, uuid4(), {}, if_exists="raise").thread_id

    assert runs.find(globex, run_id) is None
    for tenant, of in ((globex, thread_id), (acme, other)):
        with pytest.raises(NotFound):
            runs.get(tenant, of, run_id)
        with pytest.raises(NotFound):
            runs.delete(tenant, of, run_id)
    assert runs.executions(globex, run_id) == []


def test_executions_name_the_worker_that_has_them(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    run_id = runs.admit(acme, new_run(thread_id)).run.run_id
    home.query("INSERT INTO farm.worker (worker, name, host, pid) VALUES (7, 'celery@a/12', 'a', 12) RETURNING 1")
    home.query("UPDATE farm.node_execution SET worker = 7, attempts = 2, status = 'leased' RETURNING 1")

    (found,) = runs.executions(acme, run_id)

    assert (found.execution_id, found.worker, found.attempts, found.status) == (run_id, "celery@a/12", 2, "leased")
    assert found.lost_to == []


def test_a_run_that_is_over_can_be_deleted_and_what_it_made_stays(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID, make_checkpoints: Callable[..., list[str]]
) -> None:
    run_id = runs.admit(acme, new_run(thread_id)).run.run_id
    make_checkpoints(acme, run_id, thread_id)
    with pytest.raises(Conflict):
        runs.delete(acme, thread_id, run_id)
    end(home, acme, run_id, "success")

    runs.delete(acme, thread_id, run_id)

    assert runs.find(acme, run_id) is None
    assert executions(home, acme) == []
    assert home.query("SELECT count(*) FROM farm.checkpoint") == [(2,)]


def test_a_run_is_deleted_beside_its_thread_without_a_deadlock(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    run_id = runs.admit(acme, new_run(thread_id)).run.run_id
    end(home, acme, run_id, "success")
    with home.connect() as forgetting, ThreadPoolExecutor(1) as pool:
        forgetting.execute("BEGIN")  # as farm.forget_thread: the thread, what was executed, the runs
        forgetting.execute("SELECT farm.lock_thread(%s, %s)", (acme.id, thread_id))
        forgetting.execute("DELETE FROM farm.node_execution WHERE tenant_id = %s", (acme.id,))
        deleting = pool.submit(lambda: runs.delete(acme, thread_id, run_id))
        wait_for(lambda: deleting.done() or is_waiting(home), what="the other one waits for a lock")
        forgetting.execute("DELETE FROM farm.run WHERE tenant_id = %s", (acme.id,))
        forgetting.execute("DELETE FROM farm.thread WHERE tenant_id = %s", (acme.id,))
        forgetting.execute("COMMIT")

        with pytest.raises(NotFound):
            deleting.result(20)


def test_a_run_is_announced_once(home: Home, runs: PostgresRuns, acme: Tenant, globex: Tenant, thread_id: UUID) -> None:
    run_id = new_id()
    for tenant in (acme, globex):
        runs.admit(tenant, new_run(thread_id, run_id=run_id))
        end(home, tenant, run_id, "success")
    ended = Ended(acme.id, "main", run_id, thread_id, "success")

    runs.mark_announced(ended)
    (first,) = home.query("SELECT announced_at FROM farm.run WHERE tenant_id = %s", acme.id)
    runs.mark_announced(ended)

    assert home.query("SELECT announced_at FROM farm.run WHERE tenant_id = %s", acme.id) == [first]
    assert first != (None,)
    assert home.query("SELECT announced_at FROM farm.run WHERE tenant_id = %s", globex.id) == [(None,)]
    runs.mark_announced(Ended(acme.id, "main", new_id(), thread_id, "success"))
