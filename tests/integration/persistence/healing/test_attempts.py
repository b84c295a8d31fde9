"""Executions of workers that are gone: taken over at once or later, quarantined, buried."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import LeaseLost
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import (
    Hand,
    admit,
    begin,
    execution,
    run_status,
    settled,
    start,
)
from tests.integration.persistence.healing.parts import bury, declare_dead, lose, make_due, queue_of, waits_seconds
from tests.integration.persistence.postgres import Home, wait_for


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

    assert [spent.run_id for spent in swept.spent] == [message.run_id]
    (buried,) = bury(healer, swept)
    ended = buried.ended
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
    assert [(again.kind, again.tenant_id) for again in buried.again] == [("start", acme.id)]  # who waited behind it
    assert run_status(home, other) == "running"
    assert healer.sweep() == type(swept)()


def test_a_burial_waits_for_nobody_who_has_the_thread_and_is_made_up_for(
    home: Home, acme: Tenant, healer: PostgresHealing
) -> None:
    locked, free = start(home, acme), start(home, acme)
    for message in (locked, free):
        lose(home, message, home.settings.max_attempts, how="died", alone=True)
    with home.connect() as connection, connection.transaction():
        sql = "SELECT FROM farm.thread t JOIN farm.run r USING (tenant_id, thread_id) WHERE run_id = %s FOR UPDATE OF t"
        connection.execute(sql, [locked.run_id])

        assert [buried.ended.run_id for buried in bury(healer, healer.sweep())] == [free.run_id]

    assert [buried.ended.run_id for buried in bury(healer, healer.sweep())] == [locked.run_id]


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
    assert healer.sweep().spent == ()
    assert give_back(5 * home.settings.max_attempts - 1) > 0

    (buried,) = bury(healer, healer.sweep())

    error = buried.ended.error
    assert error is not None
    assert error["attempts"] == 30
    assert "30: given back by a worker that ended or could not save its result" in error["message"]


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

    assert [buried.ended.run_id for buried in bury(healer, swept)] == [single.run_id]
    assert swept.later == 2
    assert {loss[-1]["alone"] for loss in (execution(home, message)["lost_to"] for message in beside)} == {False}
    for message in beside:
        lose(home, message, 2 * home.settings.max_attempts, how="died", alone=False)
    assert {buried.ended.run_id for buried in bury(healer, healer.sweep())} == {message.run_id for message in beside}
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


@pytest.mark.parametrize("first", ["nobody", "another healer", "another worker"])
def test_who_was_lost_beside_an_advance_was_not_alone_whoever_comes_first(
    home: Home, hands: Callable[..., Hand], acme: Tenant, healer: PostgresHealing, first: str
) -> None:
    dying, healthy = hands(), hands()
    begun = dying.claim(start(home, acme))
    for ready in dying.commit(begun, begin(begun, "one", "two")).ready:
        sibling = dying.claim(ready)
        elected = dying.commit(sibling, settled(sibling)).advance
    assert elected is not None
    beside = start(home, acme)
    held = [elected, dying.claim(beside)]
    declare_dead(home, dying)

    if first == "another healer":
        assert len(healer.stalled().again) == 1
    if first == "another worker":
        held.append(healthy.claim(elected.message))
    healer.sweep()

    assert [loss["alone"] for loss in execution(home, beside)["lost_to"]] == [False]
    del held


@pytest.mark.parametrize(
    ("queues", "runs_in_redis", "alone"), [("{}", 0, True), ("{cpu,quarantine}", 1, False), ("{quarantine}", 1, True)]
)
def test_who_may_have_held_something_in_redis_too_was_not_seen_to_be_alone(
    home: Home,
    hands: Callable[..., Hand],
    acme: Tenant,
    globex: Tenant,
    healer: PostgresHealing,
    queues: str,
    runs_in_redis: int,
    alone: bool,
) -> None:
    for _ in range(runs_in_redis):
        start(home, globex, tier="redis")
    message, dying = start(home, acme), hands()
    home.query("UPDATE farm.worker SET queues = %s::text[] RETURNING 1", queues)
    held = dying.claim(message)
    declare_dead(home, dying)

    healer.sweep()

    assert [loss["alone"] for loss in execution(home, message)["lost_to"]] == [alone]
    del held


def test_tries_of_a_retry_policy_are_no_crashes(home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing) -> None:
    first = hand.claim(start(home, acme))
    (message,) = hand.commit(first, begin(first, "one")).ready
    for n in range(home.settings.max_attempts + 2):
        one = hand.claim(message)
        assert one.call is not None
        hand.commit(one, SegmentResult(outcome="retry", call=one.call.retried(n + 1, 1.0)))

    assert healer.sweep().spent == ()
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
