"""Supersteps that nobody went on with, and ends that nobody told."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import LeaseLost
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.database import Databases
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.records import Sweep
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import (
    Hand,
    advanced,
    begin,
    count,
    run_status,
    serde_for,
    settled,
    start,
)
from tests.integration.persistence.healing.parts import bury, declare_dead, empty
from tests.integration.persistence.postgres import Home, wait_for

GIVE_BACK = """
    SELECT farm.give_back(tenant_id, run_id, checkpoint_id, '00000000-0000-0000-0000-000000000000', fence, worker)
      FROM farm.superstep"""


def fan_out(hand: Hand, message: ExecuteNode, width: int = 2) -> list[ExecuteNode]:
    claimed = hand.claim(message)
    return list(hand.commit(claimed, begin(claimed, *(f"node{n}" for n in range(width)))).ready)


def test_a_superstep_whose_last_worker_died_before_the_advance_is_advanced(
    home: Home, hands: Callable[..., Hand], acme: Tenant, healer: PostgresHealing
) -> None:
    dying, healthy = hands("dying"), hands("healthy")
    for ready in fan_out(dying, start(home, acme)):
        sibling = dying.claim(ready)
        elected = dying.commit(sibling, settled(sibling)).advance
    assert elected is not None
    assert healer.stalled() == Sweep()
    declare_dead(home, dying)

    (message,) = healer.stalled().again
    assert message.kind == "advance"
    advance = healthy.claim(message)

    assert advance.call is not None
    assert set(advance.settled.values()) == {"done"}
    with pytest.raises(LeaseLost):
        dying.commit(elected, advanced(elected))
    assert healthy.commit(advance, advanced(advance)).ended is not None
    assert healer.stalled() == Sweep()
    assert count(home, "checkpoint") == 2


def test_an_election_that_was_lost_is_made_up_for(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    for ready in fan_out(hand, start(home, acme)):
        sibling = hand.claim(ready)
        hand.commit(sibling, settled(sibling))
    home.query("UPDATE farm.superstep SET worker = NULL, fence = fence + 1 RETURNING 1")

    (message,) = wait_for(lambda: healer.stalled().again, what="the superstep that nobody advances")

    assert hand.claim(message).kind == "advance"


def test_an_advance_that_kills_its_workers_is_buried(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    message = start(home, acme)
    for ready in fan_out(hand, message):
        sibling = hand.claim(ready)
        elected = hand.commit(sibling, settled(sibling)).advance
    assert elected is not None  # held until the end: dropped, it would be given back
    home.query("UPDATE farm.superstep SET attempts = %s RETURNING 1", 2 * home.settings.max_attempts)
    declare_dead(home, hand)

    swept = healer.stalled()
    (buried,) = bury(healer, swept)

    assert swept.again == ()
    assert (buried.ended.run_id, buried.ended.status, buried.again) == (message.run_id, "error", ())
    assert run_status(home, message) == "error"
    assert home.query("SELECT error->>'message' FROM farm.run") == [
        ("The step after its nodes was begun 12 times by a worker, and never finished.",)
    ]
    assert count(home, "superstep") == 0


def test_an_advance_that_workers_gave_back_is_not_used_up(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    for ready in fan_out(hand, start(home, acme)):
        sibling = hand.claim(ready)
        elected = hand.commit(sibling, settled(sibling)).advance
    assert elected is not None
    for _ in range(2 * home.settings.max_attempts):  # as many roll-outs, each in the midst of it
        home.query("UPDATE farm.superstep SET attempts = attempts + 1, worker = %s RETURNING 1", hand.lease.worker_id())
        assert home.query(GIVE_BACK) == [(True,)]

    (message,) = wait_for(lambda: healer.stalled().again, what="the superstep that was given back")

    assert hand.claim(message).kind == "advance"


def test_an_end_that_nobody_told_is_found_with_its_error_and_told_once(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    first = hand.claim(start(home, acme))
    ended = hand.commit(first, SegmentResult(status="error", error=ValueError("sorry"))).ended
    assert ended is not None
    assert healer.unannounced() == ()
    home.query("UPDATE farm.run SET finished_at = now() - interval '1 min' RETURNING 1")

    found = healer.unannounced()
    PostgresRuns(Databases(home.app), serde_for).mark_announced(found[0])

    assert found == (ended,)
    assert found[0].error is not None
    assert found[0].error["message"] == "sorry"
    assert healer.unannounced() == ()


def test_the_thread_of_a_stateless_run_may_go_when_its_answer_could_be_read(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    first = hand.claim(start(home, acme))
    hand.commit(first, SegmentResult(status="success"))
    home.query("UPDATE farm.run SET forget_thread = true, announced_at = now() RETURNING 1")
    assert healer.forgettable() == ()

    home.query("UPDATE farm.run SET finished_at = now() - interval '2 min' RETURNING 1")

    assert [ended.thread_id for ended in healer.forgettable()] == [first.thread_id]
    assert healer.forgettable(grace_seconds=600) == ()


def test_a_run_that_comes_to_a_stateless_runs_thread_keeps_it_whenever_it_comes(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    first = hand.claim(start(home, acme))
    hand.commit(first, SegmentResult(status="success"))
    home.query("UPDATE farm.run SET forget_thread = true, announced_at = now() RETURNING 1")
    home.query("UPDATE farm.run SET finished_at = now() - interval '2 min' RETURNING 1")
    (found,) = healer.forgettable()
    threads = PostgresThreads(Databases(home.app), serde_for)

    second = start(home, acme, found.thread_id)  # after the healer looked
    while_it_runs = threads.forget(acme, found.thread_id)
    hand.commit(hand.claim(second), SegmentResult(status="success"))

    assert (while_it_runs, threads.forget(acme, found.thread_id)) == (False, False)
    assert run_status(home, second) == "success"
    home.query("UPDATE farm.run SET forget_thread = true RETURNING 1")
    assert (threads.forget(acme, found.thread_id), threads.forget(acme, found.thread_id)) == (True, False)
    assert count(home, "run") == count(home, "thread") == 0


def test_healing_a_quiet_home_changes_nothing(home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing) -> None:
    message = start(home, acme)
    claimed = hand.claim(message)
    before = home.query("SELECT * FROM farm.node_execution, farm.run")

    assert (healer.sweep(), healer.stalled()) == (Sweep(), Sweep())
    assert (healer.lost(empty).again, healer.waiting(), healer.unannounced(), healer.forgettable()) == ((), [], (), ())
    assert home.query("SELECT * FROM farm.node_execution, farm.run") == before
    assert hand.commit(claimed, begin(claimed, "one")).ready
    assert replace(message, queue="") == message
