"""A run for a thread that has one: the four strategies, and who comes when."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from agentfarm.engine.contention import MAX_WAITING_RUNS
from agentfarm.errors import ThreadBusy
from agentfarm.ids import new_id
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home, wait_for
from tests.integration.persistence.runs.parts import (
    end,
    executions,
    is_waiting,
    new_run,
    own_writes,
    rows_of,
    start_of,
    statuses,
    thread_row,
)


def test_reject_is_refused_while_a_run_is_active_and_changes_nothing(
    home: Home, runs: PostgresRuns, acme: Tenant, globex: Tenant, thread_id: UUID
) -> None:
    first = runs.admit(acme, new_run(thread_id)).run

    with pytest.raises(ThreadBusy):
        runs.admit(acme, new_run(thread_id, "reject"))

    assert statuses(home, acme) == {first.run_id: "running"}
    assert runs.admit(globex, new_run(thread_id, "reject")).run.status == "running"


def test_enqueued_runs_start_one_after_the_other_in_the_order_in_which_they_came(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    admitted = [runs.admit(acme, new_run(thread_id)) for _ in range(3)]
    assert [one.run.status for one in admitted] == ["running", "pending", "pending"]
    assert [len(one.ready) for one in admitted] == [1, 0, 0]
    ids = [one.run.run_id for one in admitted]

    seen = []
    for run_id in ids:
        seen.append([status for _, status in sorted(statuses(home, acme).items(), key=lambda pair: ids.index(pair[0]))])  # type: ignore[arg-type]
        end(home, acme, run_id, "success")

    assert seen == [
        ["running", "pending", "pending"],
        ["success", "running", "pending"],
        ["success", "success", "running"],
    ]
    assert [row[1] for row in executions(home, acme)] == ids
    assert thread_row(home, acme, thread_id)[0] == "idle"


def test_a_thread_takes_no_more_waiting_runs_than_it_says(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    for _ in range(MAX_WAITING_RUNS + 1):
        runs.admit(acme, new_run(thread_id))

    with pytest.raises(ThreadBusy, match=str(MAX_WAITING_RUNS)):
        runs.admit(acme, new_run(thread_id))
    assert home.query("SELECT count(*) FROM farm.run") == [(MAX_WAITING_RUNS + 1,)]


def test_interrupt_ends_the_runs_before_it_and_keeps_what_they_finished(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID, make_checkpoints: Callable[..., list[str]]
) -> None:
    active, waiting = (runs.admit(acme, new_run(thread_id)).run.run_id for _ in range(2))
    made = make_checkpoints(acme, active, thread_id)

    admitted = runs.admit(acme, new := new_run(thread_id, "interrupt"))

    assert statuses(home, acme) == {active: "interrupted", waiting: "interrupted", new.run_id: "running"}
    assert admitted.ready == (start_of(acme, new.run_id),)
    assert {one.run_id for one in admitted.ended} == {active, waiting}
    assert {one.status for one in admitted.ended} == {"interrupted"}
    assert executions(home, acme) == [(active, active, "cancelled", 1), (new.run_id, new.run_id, "ready", 0)]
    assert home.query("SELECT head::text FROM farm.thread_head WHERE tenant_id = %s", acme.id) == [(made[-1],)]
    assert thread_row(home, acme, thread_id)[0] == "busy"


def test_rollback_leaves_nothing_of_the_runs_before_it(
    home: Home,
    runs: PostgresRuns,
    acme: Tenant,
    globex: Tenant,
    thread_id: UUID,
    make_checkpoints: Callable[..., list[str]],
) -> None:
    for tenant in (acme, globex):
        done = runs.admit(tenant, new_run(thread_id)).run.run_id
        make_checkpoints(tenant, done, thread_id)
        end(home, tenant, done, "success")
    before = rows_of(home, acme)
    others = rows_of(home, globex)
    active, waiting = (runs.admit(acme, new_run(thread_id)).run.run_id for _ in range(2))
    make_checkpoints(acme, active, thread_id, count=3)

    admitted = runs.admit(acme, new := new_run(thread_id, "rollback"))
    assert {one.run_id for one in admitted.ended} == {active, waiting}
    assert statuses(home, acme).keys() >= {new.run_id}
    runs.cancel(acme, thread_id, new.run_id, rollback=True)

    assert rows_of(home, acme) == before
    assert rows_of(home, globex) == others


def test_an_undone_run_takes_its_answers_with_it_and_leaves_the_question(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID, make_checkpoints: Callable[..., list[str]]
) -> None:
    asked = runs.admit(acme, new_run(thread_id)).run.run_id
    (at,) = make_checkpoints(acme, asked, thread_id, count=1)
    saver, here = (
        TenantSaver(home.app, acme.id, serde_of(None)),
        {"configurable": {"thread_id": str(thread_id), "checkpoint_id": at}},
    )
    node = str(uuid4())
    saver.put_writes(here, [("__interrupt__", "what?")], node)  # type: ignore[arg-type]
    own_writes(home, asked)
    end(home, acme, asked, "interrupted")
    answered = runs.admit(acme, new_run(thread_id)).run.run_id
    saver.put_writes(here, [("__resume__", ["this"]), ("x", "result")], node)  # type: ignore[arg-type]
    own_writes(home, answered)
    make_checkpoints(acme, answered, thread_id)

    runs.cancel(acme, thread_id, answered, rollback=True)

    found = saver.get_tuple({"configurable": {"thread_id": str(thread_id)}})
    assert found is not None
    assert found.checkpoint["id"] == at
    assert [write[1:] for write in found.pending_writes or [] if write[0] == node] == [("__interrupt__", "what?")]
    assert thread_row(home, acme, thread_id)[0] == "interrupted"


def test_an_undone_fork_leaves_the_values_that_it_shared_even_after_pruning(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID, make_checkpoints: Callable[..., list[str]]
) -> None:
    done = runs.admit(acme, new_run(thread_id)).run.run_id
    (first,) = make_checkpoints(acme, done, thread_id, count=1)
    saver: Any = TenantSaver(home.app, acme.id, serde_of(None))

    def follow(parent: str, run_id: UUID, at: int) -> None:
        """A checkpoint that changes `n` and shows its parent's large `x`."""
        config = {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": "", "checkpoint_id": parent}}
        before = saver.get_tuple(config).checkpoint
        values = {**before["channel_values"], "n": at}
        checkpoint = {**before, "id": str(new_id()), "channel_values": values}
        saver.put(config, checkpoint, {"source": "loop", "step": at, "run_id": str(run_id)}, {"n": str(at)})

    follow(first, done, 1)
    end(home, acme, done, "success")
    fork = runs.admit(acme, new_run(thread_id)).run.run_id
    follow(first, fork, 2)
    saver.prune([str(thread_id)])

    runs.cancel(acme, thread_id, fork, rollback=True)

    values = saver.get_tuple({"configurable": {"thread_id": str(thread_id)}}).checkpoint["channel_values"]
    assert values["n"] == 1
    assert values["x"].startswith(str(done))


def test_of_many_admitted_at_once_one_runs_and_all_are_there(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    together = threading.Barrier(8, timeout=20)

    def admit(_: int) -> int:
        together.wait()
        return len(runs.admit(acme, new_run(thread_id)).ready)

    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(admit, range(8)))

    assert sum(started) == 1
    assert sorted(map(str, statuses(home, acme).values())) == ["pending"] * 7 + ["running"]


def test_a_run_admitted_while_the_one_before_it_ends_does_not_wait_for_ever(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    first = runs.admit(acme, new_run(thread_id)).run.run_id
    with home.connect() as ending, ThreadPoolExecutor(1) as pool:
        ending.execute("BEGIN")
        ending.execute("SELECT farm.lock_thread(%s, %s)", (acme.id, thread_id))
        ending.execute(
            "SELECT farm.end_run(%s, %s, %s, 'success', NULL, NULL, false)", (acme.id, thread_id, first)
        )  # has looked for who waits, and found nobody
        second = pool.submit(lambda: runs.admit(acme, new_run(thread_id)).run)
        wait_for(lambda: second.done() or is_waiting(home), what="the second run is admitted, or waits for the lock")
        ending.execute("COMMIT")

        assert runs.get(acme, thread_id, second.result(20).run_id).status == "running"
