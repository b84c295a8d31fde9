"""What a run leaves behind when it ends: who is next, what is refused, where the head is."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import LeaseLost
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import (
    Hand,
    admit,
    begin,
    call,
    count,
    execution,
    go_on,
    run_status,
    start,
)
from tests.integration.persistence.postgres import Home, wait_for


def test_the_run_that_waits_begins_in_the_transaction_that_ends_the_one_before(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    thread_id = uuid4()
    message = start(home, acme, thread_id)
    assert admit(home, acme, thread_id) is None
    assert admit(home, acme, thread_id) is None

    first = hand.claim(message)
    ended = hand.commit(first, SegmentResult(status="success"))

    assert ended.ended is not None
    (next_start,) = ended.ready
    assert next_start.kind == "start"
    assert next_start.graph_id == "graph"
    assert run_status(home, next_start) == "running"
    assert home.query("SELECT status FROM farm.thread") == [("busy",)]
    assert hand.claim(next_start).run.run_id == str(next_start.run_id)


def test_a_run_that_is_cancelled_while_its_node_runs_saves_nothing_more(home: Home, hand: Hand, acme: Tenant) -> None:
    from agentfarm.persistence.database import Databases
    from agentfarm.persistence.runs import PostgresRuns
    from tests.integration.persistence.farmhands import serde_for

    message = start(home, acme)
    first = hand.claim(message)
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)

    PostgresRuns(Databases(home.app), serde_for).cancel(acme, first.thread_id, message.run_id, rollback=False)

    with pytest.raises(LeaseLost):
        hand.commit(one, go_on(one))
    assert hand.refusal(to_one) == "gone"
    assert run_status(home, message) == "interrupted"
    assert count(home, "checkpoint") == 1


def test_an_execution_of_a_run_that_is_over_is_refused_and_cancelled(home: Home, hand: Hand, acme: Tenant) -> None:
    message = start(home, acme)
    home.query("UPDATE farm.run SET status = 'interrupted', finished_at = now() RETURNING 1")

    assert hand.refusal(message) == "gone"
    assert execution(home, message)["status"] == "cancelled"


def test_another_tenants_execution_is_nothing_at_all(home: Home, hand: Hand, acme: Tenant, globex: Tenant) -> None:
    message = start(home, acme)

    assert hand.refusal(replace(message, tenant_id=globex.id)) == "gone"
    assert hand.executions.open_at_head(replace(message, tenant_id=globex.id)) == ()
    assert execution(home, message)["status"] == "ready"


def test_a_replay_moves_the_head_to_where_it_goes_on(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    hand.commit(one, go_on(one))

    again = hand.claim(start(home, acme, one.thread_id))
    older = str(to_one.checkpoint_id)
    replayed = SegmentResult(next=(call("one", older, addressed=True),))
    committed = hand.commit(again, replayed, lease_next=True)

    assert committed.leased is None  # its checkpoint is only in the database
    assert home.query("SELECT head, step FROM farm.thread_head") == [(to_one.checkpoint_id, 0)]
    two = hand.claim(committed.ready[0])
    assert hand.commit(two, go_on(two)).ended is not None


def test_a_cancel_that_meets_one_commit_after_the_other_leaves_nothing_open(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    """It waits for commits under way. While it waits, what the first one made ready is being committed in its turn."""
    start(home, acme)
    low, high, second, third = (UUID(int=n) for n in (1, 2, 3, 4))
    make_ready = """
        INSERT INTO farm.node_execution (tenant_id, thread_id, run_id, checkpoint_id, execution_id, node, spec)
        SELECT tenant_id, thread_id, run_id, checkpoint_id, %s, 'next', '' FROM farm.node_execution LIMIT 1
    """
    done = "UPDATE farm.node_execution SET status = 'done' WHERE execution_id = %s"
    for execution_id in (low, high):
        home.query(make_ready + " RETURNING 1", execution_id)
    commits = [psycopg.connect(home.url("farm_root")) for _ in range(3)]
    canceller = home.connect()

    def waits_for(connection: psycopg.Connection[Any]) -> bool:
        blocking = home.query("SELECT pg_blocking_pids(%s)", canceller.info.backend_pid)[0][0]
        return blocking == [connection.info.backend_pid]

    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        for connection in (*commits, canceller):
            stack.enter_context(connection)
        commits[0].execute(done, (low,))
        commits[0].execute(make_ready, (second,))
        commits[1].execute(done, (high,))
        cancelling = pool.submit(canceller.execute, "SELECT farm.fence_out(tenant_id, run_id) FROM farm.run")
        wait_for(lambda: waits_for(commits[0]), what="the cancel, waiting for the first commit")
        commits[0].commit()
        wait_for(lambda: waits_for(commits[1]), what="the cancel, waiting for the one beside it")
        commits[2].execute(done, (second,))
        commits[2].execute(make_ready, (third,))
        commits[1].commit()
        wait_for(lambda: waits_for(commits[2]), what="the cancel, waiting for the second commit")
        commits[2].commit()
        cancelling.result(10)

    assert home.query("SELECT execution_id FROM farm.node_execution WHERE status IN ('ready', 'leased', 'held')") == []
