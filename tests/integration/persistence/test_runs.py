"""Runs: the four strategies, cancelling, undoing, retrying; two tenants that use the same ids throughout."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from agentfarm.engine.contention import MAX_WAITING_RUNS
from agentfarm.engine.steps import RunSpec
from agentfarm.errors import AlreadyExists, Conflict, InvalidInput, NotFound, ThreadBusy, ValueLost
from agentfarm.ids import ZERO, new_id
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Databases
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.records import Ended, NewRun, Strategy
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home, wait_for

ASSISTANT = UUID("5a2f0000-0000-4000-8000-000000000001")


def new_run(
    thread_id: UUID, strategy: Strategy = "enqueue", *, input: Any = None, run_id: UUID | None = None, **more: Any
) -> NewRun:
    run_id = run_id or new_id()
    configurable = {"thread_id": str(thread_id), "run_id": str(run_id), "checkpoint_id": "where it began"}
    spec = RunSpec(
        run_id=str(run_id),
        thread_id=str(thread_id),
        graph_id="agent",
        input=input,
        config={"configurable": configurable, "metadata": {"run_id": str(run_id), "kept": 1}},
        kwargs={"stream_mode": ["values"], "durability": "async"},
        modes=("values",),
    )
    return NewRun(run_id, thread_id, ASSISTANT, "agent", spec, strategy, **more)


@pytest.fixture
def runs(home: Home) -> PostgresRuns:
    return PostgresRuns(Databases(home.app), lambda _: serde_of(None))


@pytest.fixture
def threads(home: Home) -> PostgresThreads:
    return PostgresThreads(Databases(home.app), lambda _: serde_of(None))


@pytest.fixture
def thread_id(threads: PostgresThreads, acme: Tenant, globex: Tenant) -> UUID:
    """The same id, of a thread of each tenant."""
    made = uuid4()
    for tenant in (acme, globex):
        threads.create(tenant, made, {}, if_exists="raise")
    return made


@pytest.fixture
def make_checkpoints(home: Home) -> Callable[..., list[str]]:
    """As a run's commits leave them: a line from the head, with blobs and writes."""

    def make(tenant: Tenant, run_id: UUID, thread_id: UUID, *, count: int = 2) -> list[str]:
        saver, made = TenantSaver(home.app, tenant.id, serde_of(None)), []
        for step in range(count):
            head = saver.get_tuple({"configurable": {"thread_id": str(thread_id)}})
            config: Any = head.config if head else {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": ""}}
            version = saver.get_next_version(head.checkpoint["channel_versions"]["x"] if head else None)  # type: ignore[arg-type]
            checkpoint: Any = {
                **(head.checkpoint if head else {"v": 2, "ts": "", "versions_seen": {}, "updated_channels": None}),
                "id": str(new_id()),
                "channel_values": {"x": f"{run_id} {step} " * 50, "n": step},
                "channel_versions": {"x": version, "n": version},
            }
            saved = saver.put(
                config, checkpoint, {"source": "loop", "step": step, "run_id": str(run_id)}, {"x": version}
            )
            saver.put_writes(saved, [("x", step)], str(uuid4()))
            made.append(saved["configurable"]["checkpoint_id"])
        own_writes(home, run_id)
        return made

    return make


def own_writes(home: Home, run_id: UUID) -> None:
    """As if this run had saved the writes that no run has: by its own hand, not over another's."""
    with home.connect() as connection:
        connection.execute("SET session_replication_role = replica")  # without the trigger keep_replaced
        connection.execute("UPDATE farm.checkpoint_write SET run_id = %s WHERE run_id IS NULL", (run_id,))


def start_of(tenant: Tenant, run_id: UUID) -> ExecuteNode:
    return ExecuteNode(tenant.id, "main", run_id, ZERO, run_id, graph_id="agent")


def thread_row(home: Home, tenant: Tenant, thread_id: UUID) -> tuple[object, ...]:
    statement = (
        "SELECT status, graph_id, assistant_id, metadata FROM farm.thread WHERE tenant_id = %s AND thread_id = %s"
    )
    return home.query(statement, tenant.id, thread_id)[0]


def statuses(home: Home, tenant: Tenant) -> dict[object, object]:
    return dict(home.query("SELECT run_id, status FROM farm.run WHERE tenant_id = %s", tenant.id))  # type: ignore[arg-type]  # pairs


def executions(home: Home, tenant: Tenant) -> list[tuple[object, ...]]:
    statement = (
        "SELECT run_id, execution_id, status, fence FROM farm.node_execution WHERE tenant_id = %s ORDER BY created_at"
    )
    return home.query(statement, tenant.id)


def end(home: Home, tenant: Tenant, run_id: UUID, status: str, error: str | None = None) -> None:
    """As a worker's last commit."""
    thread_id = home.query("SELECT thread_id FROM farm.run WHERE tenant_id = %s AND run_id = %s", tenant.id, run_id)[0][
        0
    ]
    home.query(
        "SELECT farm.lock_thread(%s, %s), farm.end_run(%s, %s, %s, %s, %s::jsonb, NULL, true)",
        *(tenant.id, thread_id, tenant.id, thread_id, run_id, status, error),
    )


# --------------------------------------------------------------------------- admission of a free thread


def test_a_run_on_a_free_thread_is_in_the_outbox_when_it_is_admitted(
    home: Home, runs: PostgresRuns, acme: Tenant, globex: Tenant, thread_id: UUID
) -> None:
    new = new_run(thread_id, metadata={"who": "me"})

    admitted = runs.admit(acme, new)

    assert admitted.run.status == "running"
    assert admitted.ready == (start_of(acme, new.run_id),)
    assert admitted.ended == ()
    assert executions(home, acme) == [(new.run_id, new.run_id, "ready", 0)]
    assert home.query("SELECT published_at IS NOT NULL, checkpoint_id FROM farm.node_execution") == [(True, ZERO)]
    assert thread_row(home, acme, thread_id) == (
        *("busy", "agent", ASSISTANT),
        {"graph_id": "agent", "assistant_id": str(ASSISTANT)},
    )
    assert thread_row(home, globex, thread_id)[0] == "idle"
    assert runs.get(acme, thread_id, new.run_id).metadata == {"who": "me"}


def test_what_was_admitted_comes_back_whole(runs: PostgresRuns, acme: Tenant, thread_id: UUID) -> None:
    new = new_run(thread_id, input={"pair": (1, 2), "nul": "\x00"})
    admitted = runs.admit(acme, new)

    assert runs.get(acme, thread_id, new.run_id, with_spec=True).spec == new.spec
    found = runs.find(acme, new.run_id)
    assert found == runs.get(acme, thread_id, new.run_id)
    assert found.created_at == admitted.run.created_at  # type: ignore[union-attr]  # it was found
    assert found.updated_at == admitted.run.updated_at  # type: ignore[union-attr]


def test_admitting_to_a_free_thread_takes_two_statements(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    from sqlalchemy import event

    seen: list[str] = []
    event.listen(home.app.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))

    runs.admit(acme, new_run(thread_id))

    assert len(seen) == 2, seen


def test_a_thread_that_does_not_exist_is_made_only_when_asked(
    home: Home, runs: PostgresRuns, threads: PostgresThreads, acme: Tenant, globex: Tenant
) -> None:
    thread_id = uuid4()
    threads.create(globex, thread_id, {}, if_exists="raise")

    with pytest.raises(NotFound):
        runs.admit(acme, new_run(thread_id))
    with pytest.raises(NotFound):
        runs.admit(acme, new_run(thread_id, create_thread=True, is_resume=True))
    runs.admit(acme, new_run(thread_id, create_thread=True))

    assert threads.get(acme, thread_id).status == "busy"
    assert home.query("SELECT count(*) FROM farm.thread_head WHERE tenant_id = %s", acme.id) == [(1,)]


def test_a_run_id_is_taken_once_in_a_tenant(runs: PostgresRuns, acme: Tenant, globex: Tenant, thread_id: UUID) -> None:
    run_id = new_id()
    runs.admit(acme, new_run(thread_id, run_id=run_id))

    with pytest.raises(AlreadyExists):
        runs.admit(acme, new_run(uuid4(), run_id=run_id, create_thread=True))
    assert runs.admit(globex, new_run(thread_id, run_id=run_id)).run.run_id == run_id


def test_what_cannot_be_stored_is_refused_before_anything_is_written(
    home: Home, runs: PostgresRuns, acme: Tenant
) -> None:
    with pytest.raises(ValueLost):
        runs.admit(acme, new_run(uuid4(), input=object(), create_thread=True))
    for odd in ({"a": "\x00"}, {"a": float("nan")}, {"a": "\ud800"}):
        with pytest.raises(InvalidInput) as refused:
            runs.admit(acme, new_run(uuid4(), metadata=odd, create_thread=True))
        assert "metadata" in str(refused.value)

    assert home.query("SELECT count(*) FROM farm.thread") == [(0,)]


# --------------------------------------------------------------------------- the four strategies


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
    before = _everything(home, acme)
    others = _everything(home, globex)
    active, waiting = (runs.admit(acme, new_run(thread_id)).run.run_id for _ in range(2))
    make_checkpoints(acme, active, thread_id, count=3)

    admitted = runs.admit(acme, new := new_run(thread_id, "rollback"))
    assert {one.run_id for one in admitted.ended} == {active, waiting}
    assert statuses(home, acme).keys() >= {new.run_id}
    runs.cancel(acme, thread_id, new.run_id, rollback=True)

    assert _everything(home, acme) == before
    assert _everything(home, globex) == others


def _everything(home: Home, tenant: Tenant) -> dict[str, list[str]]:
    """The tenant's rows, but for times."""
    told = {}
    for table in (
        "thread_head",
        "run",
        "checkpoint",
        "checkpoint_blob",
        "checkpoint_write",
        "node_execution",
        "superstep",
    ):
        statement = f"SELECT to_jsonb(t) - 'spec' #>> '{{}}' FROM farm.{table} t WHERE tenant_id = %s ORDER BY 1"
        told[table] = [str(row[0]) for row in home.query(statement, tenant.id)]
    told["thread"] = [
        str(row) for row in home.query("SELECT thread_id, status FROM farm.thread WHERE tenant_id = %s", tenant.id)
    ]
    return told


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


def is_waiting(home: Home) -> bool:
    return bool(home.query("SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'", home.name))


# --------------------------------------------------------------------------- cancelling


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


# --------------------------------------------------------------------------- retrying


def test_a_failed_run_goes_on_from_its_checkpoint_as_a_new_run_without_input(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID, make_checkpoints: Callable[..., list[str]]
) -> None:
    failed = runs.admit(acme, new_run(thread_id, input={"a": 1}, metadata={"who": "me"})).run
    make_checkpoints(acme, failed.run_id, thread_id)
    end(home, acme, failed.run_id, "error", '{"error": "ValueError", "message": "no"}')
    assert runs.get(acme, thread_id, failed.run_id).error == {"error": "ValueError", "message": "no"}

    again = runs.retry(acme, thread_id, failed.run_id)

    run = runs.get(acme, thread_id, again.run.run_id, with_spec=True)
    assert again.ready == (start_of(acme, run.run_id),)
    assert run.run_id != failed.run_id
    assert run.metadata == {"who": "me", "retry_of": str(failed.run_id)}
    assert run.spec is not None
    assert run.spec.input is None
    assert run.spec.config == {
        "configurable": {"thread_id": str(thread_id), "run_id": str(run.run_id)},
        "metadata": {"run_id": str(run.run_id), "kept": 1},
    }
    assert run.spec.run_id == str(run.run_id)


def test_a_run_that_failed_before_its_first_checkpoint_is_given_its_input_again(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID
) -> None:
    failed = runs.admit(acme, new_run(thread_id, input={"a": 1})).run.run_id
    end(home, acme, failed, "error")

    again = runs.retry(acme, thread_id, failed).run

    spec = runs.get(acme, thread_id, again.run_id, with_spec=True).spec
    assert spec is not None
    assert spec.input == {"a": 1}


def test_a_state_changed_by_hand_does_not_pass_for_the_failed_runs_own(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID, make_checkpoints: Callable[..., list[str]]
) -> None:
    done = runs.admit(acme, new_run(thread_id)).run.run_id
    make_checkpoints(acme, done, thread_id)
    end(home, acme, done, "success")
    failed = runs.admit(acme, new_run(thread_id, input={"a": 1})).run.run_id
    end(home, acme, failed, "error")
    saver = TenantSaver(home.app, acme.id, serde_of(None))
    head = saver.get_tuple({"configurable": {"thread_id": str(thread_id)}})
    assert head is not None
    changed: Any = {**head.checkpoint, "id": str(new_id())}
    saver.put(head.config, changed, {"source": "update", "step": 2, "parents": {}}, {})

    again = runs.retry(acme, thread_id, failed).run

    spec = runs.get(acme, thread_id, again.run_id, with_spec=True).spec
    assert spec is not None
    assert spec.input == {"a": 1}


def test_only_the_last_run_of_a_thread_and_only_one_that_failed_is_retried(
    home: Home, runs: PostgresRuns, acme: Tenant, globex: Tenant, thread_id: UUID
) -> None:
    failed = runs.admit(acme, new_run(thread_id)).run.run_id
    with pytest.raises(Conflict):
        runs.retry(acme, thread_id, failed)  # it runs
    end(home, acme, failed, "error")
    with pytest.raises(NotFound):
        runs.retry(globex, thread_id, failed)
    later = runs.admit(acme, new_run(thread_id)).run.run_id
    end(home, acme, later, "success")

    for run_id in (failed, later):
        with pytest.raises(Conflict):
            runs.retry(acme, thread_id, run_id)


# --------------------------------------------------------------------------- reading, deleting, announcing


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
