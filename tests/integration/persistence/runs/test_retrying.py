"""A run that failed, begun again from where it was."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from agentfarm.errors import Conflict, NotFound
from agentfarm.ids import new_id
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.runs.parts import end, new_run, start_of


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
