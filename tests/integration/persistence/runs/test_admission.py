"""A run that is admitted to a free thread."""

from uuid import UUID, uuid4

import pytest

from agentfarm.errors import AlreadyExists, InvalidInput, NotFound, ValueLost
from agentfarm.ids import ZERO, new_id
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.runs.parts import ASSISTANT, executions, new_run, start_of, thread_row


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


def test_admitting_to_a_free_thread_takes_one_call_and_no_other_statement(
    home: Home, runs: PostgresRuns, acme: Tenant, thread_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import event

    seen: list[str] = []
    event.listen(home.app.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
    call = home.app.call
    monkeypatch.setattr(
        home.app, "call", lambda statement, params: seen.append(statement.name) or call(statement, params)
    )

    runs.admit(acme, new_run(thread_id))

    assert seen == ["admit_alone"]


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
