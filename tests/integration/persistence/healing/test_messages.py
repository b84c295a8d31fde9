"""Messages that were lost, or that are due: sent, and not more often than need be."""

import time

from agentfarm.engine.steps import SegmentResult
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.database import Databases
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.overdue import LONG_SECONDS, LONG_SHARE
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.records import Late, Sweep
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import (
    Hand,
    admit,
    begin,
    run_status,
    serde_for,
    settled,
    start,
)
from tests.integration.persistence.healing.parts import empty, start_waiting
from tests.integration.persistence.postgres import Home, wait_for


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

    assert (healer.sweep(), healer.lost(empty), healer.stalled()) == (Sweep(), Late(), Sweep())
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
    assert start_waiting(healer) == []
    home.query("UPDATE farm.run SET status = 'success', finished_at = now() WHERE status = 'running' RETURNING 1")

    with home.connect() as connection, connection.transaction():
        connection.execute("SELECT FROM farm.thread FOR UPDATE")
        assert start_waiting(healer) == []  # whoever has the thread is not waited for

    (started,) = start_waiting(healer)

    assert run_status(home, started) == "running"
    assert hand.claim(started).kind == "start"
