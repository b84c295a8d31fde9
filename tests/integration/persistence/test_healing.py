"""What the healer finds and what it makes of it, over all tenants, as a role that sees no state."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import LeaseLost
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.database import Databases
from agentfarm.persistence.healing import LONG_SECONDS, LONG_SHARE, PostgresHealing
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.records import Late
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import (
    Hand,
    admit,
    advanced,
    begin,
    count,
    execution,
    run_status,
    serde_for,
    settled,
    start,
)
from tests.integration.persistence.postgres import Home, wait_for


@pytest.fixture
def healer(home: Home) -> PostgresHealing:
    return PostgresHealing(home.ops, home.app, home.settings)


def empty(queue: str) -> int:
    return 0


def declare_dead(home: Home, hand: Hand) -> None:
    home.query("UPDATE farm.worker SET ended_at = now() WHERE worker = %s RETURNING 1", hand.lease.worker_id())


def lose(home: Home, message: ExecuteNode, times: int, **entry: object) -> None:
    """As if so many workers had been lost over it, as `entry` says."""
    home.query(
        """UPDATE farm.node_execution
              SET lost_to = (SELECT jsonb_agg(jsonb_build_object('worker', 'w', 'attempt', n) || %s::jsonb)
                               FROM generate_series(1, %s) n)
            WHERE run_id = %s RETURNING 1""",
        json.dumps(entry),
        times,
        message.run_id,
    )


def waits_seconds(home: Home, message: ExecuteNode) -> float:
    """Since it was lost or given back, as Postgres has it: however long ago that is by now."""
    sql = """SELECT extract(epoch FROM available_at - (lost_to -> -1 ->> 'at')::timestamptz)::float8
               FROM farm.node_execution WHERE run_id = %s"""
    return float(home.query(sql, message.run_id)[0][0])


def queue_of(home: Home, message: ExecuteNode) -> str:
    return str(home.query("SELECT queue FROM farm.node_execution WHERE run_id = %s", message.run_id)[0][0])


def make_due(home: Home, message: ExecuteNode) -> None:
    home.query("UPDATE farm.node_execution SET available_at = now() WHERE run_id = %s RETURNING 1", message.run_id)


# --------------------------------------------------------------------------- attempts


def test_a_node_that_killed_as_many_workers_as_may_be_is_buried_with_its_run(
    home: Home, hands: Callable[..., Hand], acme: Tenant, globex: Tenant, healer: PostgresHealing
) -> None:
    message, other = start(home, acme), start(home, globex)
    held = hands().claim(message)  # kept: a claim that is dropped is given back
    assert admit(home, acme, held.thread_id) is None
    lose(home, message, home.settings.max_attempts - 1, how="died")
    home.query("UPDATE farm.worker SET ended_at = now() RETURNING 1")

    assert hands().refusal(message) == "busy"  # left to the healer
    swept = healer.sweep()

    assert [dead.run_id for dead in swept.dead] == [message.run_id]
    (ended,) = swept.ended
    assert ended.status == "error"
    assert ended.error is not None
    assert {key: ended.error[key] for key in ("error", "node", "attempts")} == {
        "error": "NodeCrashed",
        "node": "__start__",
        "attempts": 6,
    }
    assert ended.error["message"].startswith(
        "Node __start__ was begun 6 times by a worker, and never finished. Attempt 1: its worker died; 2: its worker "
    )
    assert ended.error["message"].endswith(", executing nothing else.")
    assert [loss["worker"] for loss in ended.error["lost_to"]] == ["w"] * 5 + ["hand-0"]
    assert run_status(home, message) == "error"
    assert execution(home, message)["status"] == "dead"
    assert home.query("SELECT tenant_id, run_id, node, attempts FROM farm.dead_letter") == [
        (acme.id, message.run_id, "__start__", 6)
    ]
    assert [(again.kind, again.tenant_id) for again in swept.again] == [("start", acme.id)]  # who waited behind it
    assert run_status(home, other) == "running"
    assert healer.sweep() == type(swept)()


def test_giving_back_is_no_death_but_is_not_gone_on_with_for_ever(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    message = start(home, acme)

    def give_back(times_before: int) -> float:
        if times_before:
            lose(home, message, times_before, given_back=True)
            make_due(home, message)
        hand.executions.release(hand.claim(message))
        wait_for(lambda: execution(home, message)["status"] == "ready", what="it is given back")
        return waits_seconds(home, message)

    assert round(give_back(0)) == 0
    assert round(give_back(2)) == 0
    assert round(give_back(3)) == 1
    assert round(give_back(20)) == 30
    assert healer.sweep().dead == ()
    assert give_back(5 * home.settings.max_attempts - 1) > 0

    (ended,) = healer.sweep().ended

    assert ended.error is not None
    assert ended.error["attempts"] == 30
    assert "30: given back by a worker that ended or could not save its result" in ended.error["message"]


def test_the_first_loss_is_retried_at_once_and_later_ones_after_a_growing_delay(
    home: Home, hands: Callable[..., Hand], acme: Tenant, healer: PostgresHealing
) -> None:
    message, waits = start(home, acme), []
    for _ in range(4):
        dying = hands()
        held = dying.claim(message)
        declare_dead(home, dying)
        swept = healer.sweep()
        waits.append(round(waits_seconds(home, message)))
        assert (len(swept.again), swept.later) == ((1, 0) if len(waits) == 1 else (0, 1))
        if len(waits) > 1:
            assert hands().refusal(message) == "busy"
        make_due(home, message)
        del held

    assert waits == [0, 1, 2, 4]


def test_what_was_lost_with_two_workers_is_quarantined_where_that_is_served_and_comes_back_where_it_is_not(
    home: Home, hands: Callable[..., Hand], acme: Tenant, healer: PostgresHealing
) -> None:
    home.query(
        "INSERT INTO farm.worker (worker, name, host, pid, queues, beat_at, ended_at)"
        " VALUES (7, 'alone@a/7', 'a', 7, '{quarantine}', now() - interval '2 min', now()) RETURNING 1"
    )
    unserved = start(home, acme)
    lose(home, unserved, 1, how="died")
    lost = [hands()]
    claimed = [lost[0].claim(unserved)]
    declare_dead(home, lost[0])
    assert healer.sweep().later == 1
    assert queue_of(home, unserved) == ""  # nobody served it for a minute

    message = start(home, acme)
    lose(home, message, 1, how="died")
    home.query("UPDATE farm.worker SET beat_at = now() - interval '20 s' WHERE worker = 7 RETURNING 1")
    lost.append(hands())
    claimed.append(lost[1].claim(message))
    declare_dead(home, lost[1])
    healer.sweep()
    assert queue_of(home, message) == "quarantine"
    assert healer.sweep().later == 0

    home.query("UPDATE farm.worker SET beat_at = now() - interval '2 min' WHERE worker = 7 RETURNING 1")
    make_due(home, message)
    assert [again.queue for again in healer.sweep().again] == [""]
    assert queue_of(home, message) == ""
    del claimed


def test_a_victim_is_not_buried_before_it_was_lost_alone_or_twice_as_often(
    home: Home, hands: Callable[..., Hand], acme: Tenant, globex: Tenant, healer: PostgresHealing
) -> None:
    beside = [start(home, tenant) for tenant in (acme, globex)]
    single = start(home, acme)
    for message in (*beside, single):
        lose(home, message, home.settings.max_attempts - 1, how="died", alone=False)
    shared, own = hands(), hands()
    held = [shared.claim(message) for message in beside] + [own.claim(single)]
    for hand in (shared, own):
        declare_dead(home, hand)

    swept = healer.sweep()

    assert [dead.run_id for dead in swept.dead] == [single.run_id]
    assert swept.later == 2
    assert {loss[-1]["alone"] for loss in (execution(home, message)["lost_to"] for message in beside)} == {False}
    for message in beside:
        lose(home, message, 2 * home.settings.max_attempts, how="died", alone=False)
    assert {dead.run_id for dead in healer.sweep().dead} == {message.run_id for message in beside}
    del held


def test_who_was_taken_over_before_the_sweep_came_was_not_alone_either(
    home: Home, hands: Callable[..., Hand], acme: Tenant, healer: PostgresHealing
) -> None:
    first, second = start(home, acme), start(home, acme)
    dying, healthy = hands(), hands()
    held = [dying.claim(first), dying.claim(second)]
    declare_dead(home, dying)

    held.append(healthy.claim(first))  # the broker was faster
    healer.sweep()

    assert [loss["alone"] for loss in execution(home, second)["lost_to"]] == [False]


def test_tries_of_a_retry_policy_are_no_crashes(home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing) -> None:
    first = hand.claim(start(home, acme))
    (message,) = hand.commit(first, begin(first, "one")).ready
    for n in range(home.settings.max_attempts + 2):
        one = hand.claim(message)
        assert one.call is not None
        hand.commit(one, SegmentResult(outcome="retry", call=one.call.retried(n + 1, 1.0)))

    assert healer.sweep().dead == ()
    one = hand.claim(message)
    assert (one.attempt, one.call and one.call.tries) == (1, home.settings.max_attempts + 2)


def test_the_sweep_takes_over_on_behalf_of_every_tenant(
    home: Home, hands: Callable[..., Hand], acme: Tenant, globex: Tenant, healer: PostgresHealing
) -> None:
    thread_id = uuid4()
    messages = [start(home, tenant, thread_id) for tenant in (acme, globex)]
    dying = hands()
    held = [dying.claim(message) for message in messages]
    declare_dead(home, dying)

    again = healer.sweep().again

    assert {message.tenant_id for message in again} == {acme.id, globex.id}
    for claimed in held:
        with pytest.raises(LeaseLost):
            dying.commit(claimed, begin(claimed, "one"))
    assert healer.sweep().again == ()


def test_a_worker_that_comes_while_the_sweep_looks_is_not_taken_for_dead(
    home: Home, hands: Callable[..., Hand], acme: Tenant, healer: PostgresHealing
) -> None:
    message = start(home, acme)
    with home.connect() as connection, ThreadPoolExecutor(1) as pool, connection.transaction():
        connection.execute("LOCK TABLE farm.run IN ACCESS EXCLUSIVE MODE")
        sweep = pool.submit(healer.sweep)  # has read who lives, and waits for the runs
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'farm.run'::regclass"
        wait_for(lambda: home.query(waiting), what="the sweep between its two looks")
        newcomer = hands("newcomer").lease.worker_id()
        connection.execute(
            "UPDATE farm.node_execution SET status = 'leased', fence = fence + 1, worker = %s", [newcomer]
        )
        connection.execute("COMMIT")
        assert sweep.result(15).again == ()

    assert execution(home, message)["status"] == "leased"


# --------------------------------------------------------------------------- messages


def test_a_message_that_was_never_published_is_sent(home: Home, acme: Tenant, healer: PostgresHealing) -> None:
    message = start(home, acme)
    assert healer.lost(empty).again == ()

    home.query("UPDATE farm.node_execution SET published_at = NULL RETURNING 1")

    assert healer.lost(lambda queue: 10_000).again == (message,)
    assert healer.lost(empty).again == ()


def test_an_old_message_is_sent_again_where_the_queue_is_short_and_each_time_later(
    home: Home, acme: Tenant, healer: PostgresHealing
) -> None:
    message = start(home, acme)

    def age(seconds: float) -> None:
        home.query(
            "UPDATE farm.node_execution SET available_at = now() - interval '1 h', "
            "published_at = clock_timestamp() - make_interval(secs => %s) RETURNING 1",
            seconds,
        )

    age(home.settings.lost_message_seconds + 1)
    assert healer.lost(lambda queue: 500).again == ()
    assert healer.lost(lambda queue: None).again == ()
    assert healer.lost(empty).again == (message,)
    age(home.settings.lost_message_seconds + 1)
    assert healer.lost(empty).again == ()
    age(2 * home.settings.lost_message_seconds + 1)
    assert healer.lost(empty).again == (message,)
    age(1000)
    assert healer.lost(lambda queue: 500).again == (message,)


def make_old(home: Home, seconds: float, *messages: ExecuteNode, queue: str = "") -> None:
    home.query(
        "UPDATE farm.node_execution SET queue = %s, available_at = now() - interval '1 h', "
        "published_at = clock_timestamp() - make_interval(secs => %s) WHERE run_id = ANY (%s) RETURNING 1",
        queue,
        seconds,
        [message.run_id for message in messages],
    )


def test_the_backlog_of_one_queue_hides_nothing_of_the_others(
    home: Home, acme: Tenant, globex: Tenant, healer: PostgresHealing
) -> None:
    backlog = [start(home, acme) for _ in range(6)]
    unpublished, lost = start(home, globex), start(home, globex)
    make_old(home, 10, *backlog, queue="long")
    make_old(home, 10, lost, queue="short")
    home.query("UPDATE farm.node_execution SET published_at = NULL WHERE run_id = %s RETURNING 1", unpublished.run_id)

    sent = healer.lost(lambda queue: 10_000 if queue == "long" else 0, limit=3).again

    assert {message.run_id for message in sent} == {unpublished.run_id, lost.run_id}


def test_of_an_old_backlog_only_a_small_share_is_sent_a_second_time(
    home: Home, acme: Tenant, healer: PostgresHealing
) -> None:
    backlog = [start(home, acme) for _ in range(LONG_SHARE + 3)]
    make_old(home, LONG_SECONDS + 1, *backlog)

    assert len(healer.lost(lambda queue: 10_000).again) == LONG_SHARE
    assert len(healer.lost(lambda queue: 10_000).again) == 3
    make_old(home, LONG_SECONDS - 10, *backlog)
    assert healer.lost(lambda queue: 10_000).again == ()


def test_sending_again_waits_for_nobody(home: Home, acme: Tenant, healer: PostgresHealing) -> None:
    locked, free = start(home, acme), start(home, acme)
    home.query("UPDATE farm.node_execution SET published_at = NULL RETURNING 1")
    with home.connect() as connection, connection.transaction():
        connection.execute("SELECT FROM farm.node_execution WHERE run_id = %s FOR UPDATE", [locked.run_id])

        assert healer.lost(empty).again == (free,)

    assert healer.lost(empty).again == (locked,)


def test_a_retry_that_is_due_is_sent(home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing) -> None:
    first = hand.claim(start(home, acme))
    (message,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(message)
    assert one.call is not None
    hand.commit(one, SegmentResult(outcome="retry", retry_in=0.3, call=one.call.retried(1, 1.0)))
    assert healer.lost(empty).again == ()

    assert wait_for(lambda: healer.lost(empty).again, what="the retry") == (message,)


def test_a_retry_that_will_be_due_is_named_before_and_sent_once_at_its_time(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    first = hand.claim(start(home, acme))
    (message,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(message)
    assert one.call is not None
    began = time.monotonic()
    hand.commit(one, SegmentResult(outcome="retry", retry_in=0.5, call=one.call.retried(1, 1.0)))

    late = healer.lost(empty)

    assert late.again == ()
    assert [one.execution_id for one in late.soon] == [message.execution_id]
    assert 0.4 < late.soon[0].due_at - began < 0.8
    assert healer.due(late.soon) == ()  # it is not due
    assert wait_for(lambda: healer.due(late.soon), what="the retry") == (message,)
    assert healer.due(late.soon) == ()  # another healer comes later
    assert healer.lost(empty) == Late()


def test_a_retry_far_away_is_neither_lost_nor_soon_nor_stalled_and_dies_with_its_run(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    first = hand.claim(start(home, acme))
    messages = hand.commit(first, begin(first, "one", "two")).ready
    one, two = (hand.claim(message) for message in messages)
    assert one.call is not None
    hand.commit(two, settled(two))
    hand.commit(one, SegmentResult(outcome="retry", retry_in=3600, call=one.call.retried(1, 1.0), error=ValueError()))
    home.query("UPDATE farm.superstep SET published_at = now() - interval '1 h' RETURNING 1")

    assert (healer.sweep().again, healer.lost(empty), healer.stalled()) == ((), Late(), ())
    assert hand.refusal(messages[0]) == "busy"
    waiting = home.query("SELECT tries, error FROM farm.node_execution WHERE outcome = 'retry'")
    assert waiting == [(1, "ValueError")]

    PostgresRuns(Databases(home.app), serde_for).cancel(acme, one.thread_id, one.message.run_id, rollback=False)

    assert hand.refusal(messages[0]) == "gone"


def test_siblings_that_nobody_would_let_go_are_let_go(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    claimed = hand.claim(start(home, acme, max_concurrency=1))
    result = begin(claimed, "a", "b")
    result.max_concurrency = 1
    (only,) = hand.commit(claimed, result).ready
    sibling = hand.claim(only)
    assert healer.lost(empty).again == ()
    # As if the one that let the next go had died between its two statements: its own is done, the other still held.
    home.query("UPDATE farm.node_execution SET status = 'done' WHERE execution_id = %s RETURNING 1", only.execution_id)

    (released,) = healer.lost(empty).again

    assert released.execution_id != sibling.message.execution_id
    assert hand.claim(released).kind == "node"


def test_a_run_that_waits_for_a_free_thread_is_started(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    first = hand.claim(start(home, acme))
    admit(home, acme, first.thread_id)
    assert healer.lost(empty).again == ()
    home.query("UPDATE farm.run SET status = 'success', finished_at = now() WHERE status = 'running' RETURNING 1")

    (started,) = healer.lost(empty).again

    assert run_status(home, started) == "running"
    assert hand.claim(started).kind == "start"


# --------------------------------------------------------------------------- supersteps


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
    assert healer.stalled() == ()
    declare_dead(home, dying)

    (message,) = healer.stalled()
    assert message.kind == "advance"
    advance = healthy.claim(message)

    assert advance.call is not None
    assert set(advance.settled.values()) == {"done"}
    with pytest.raises(LeaseLost):
        dying.commit(elected, advanced(elected))
    assert healthy.commit(advance, advanced(advance)).ended is not None
    assert healer.stalled() == ()
    assert count(home, "checkpoint") == 2


def test_an_election_that_was_lost_is_made_up_for(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    for ready in fan_out(hand, start(home, acme)):
        sibling = hand.claim(ready)
        hand.commit(sibling, settled(sibling))
    home.query("UPDATE farm.superstep SET worker = NULL, fence = fence + 1 RETURNING 1")

    (message,) = wait_for(healer.stalled, what="the superstep that nobody advances")

    assert hand.claim(message).kind == "advance"


def test_an_advance_that_kills_its_workers_is_buried(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing
) -> None:
    message = start(home, acme)
    for ready in fan_out(hand, message):
        sibling = hand.claim(ready)
        elected = hand.commit(sibling, settled(sibling)).advance
    assert elected is not None  # held until the end: dropped, it would be given back
    home.query("UPDATE farm.superstep SET attempts = %s RETURNING 1", home.settings.max_attempts)
    declare_dead(home, hand)

    assert healer.stalled() == ()

    assert run_status(home, message) == "error"
    assert home.query("SELECT error->>'message' FROM farm.run") == [
        ("The step after its nodes was begun 6 times by a worker, and never finished.",)
    ]
    assert count(home, "superstep") == 0


# --------------------------------------------------------------------------- ends


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


def test_healing_a_quiet_home_changes_nothing(home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing) -> None:
    message = start(home, acme)
    claimed = hand.claim(message)
    before = home.query("SELECT * FROM farm.node_execution, farm.run")

    assert healer.sweep() == type(healer.sweep())()
    assert (healer.lost(empty).again, healer.stalled(), healer.unannounced(), healer.forgettable()) == ((), (), (), ())
    assert home.query("SELECT * FROM farm.node_execution, farm.run") == before
    assert hand.commit(claimed, begin(claimed, "one")).ready
    assert replace(message, queue="") == message
