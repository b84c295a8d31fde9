"""Siblings of one superstep: the last one advances, and none reads another's writes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import get_args
from uuid import uuid4

import pytest

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import LeaseLost
from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.redis_tier import scripts
from agentfarm.records import Claimed
from agentfarm.run_options import Persistence
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import (
    Hand,
    advanced,
    begin,
    config_of,
    count,
    execution,
    own_writes,
    put_writes,
    run_status,
    settled,
    start,
)
from tests.integration.persistence.postgres import Home, wait_for

NULL_TASK = str(ZERO)

#: What siblings do is the same wherever their run is.
both = pytest.mark.parametrize("tier", get_args(Persistence))


def fan_out(hand: Hand, message: ExecuteNode, width: int, **config: object) -> tuple[ExecuteNode, ...]:
    claimed = hand.claim(message)
    result = begin(claimed, *(f"node{n}" for n in range(width)))
    result.max_concurrency = claimed.run.config.get("max_concurrency")
    return hand.commit(claimed, result).ready


def wave(hand: Hand, message: ExecuteNode, width: int, wake: int = 0) -> tuple[Claimed, tuple[ExecuteNode, ...]]:
    """The first of the siblings, and messages for so many others."""
    claimed = hand.claim(message)
    result = begin(claimed, *(f"node{n}" for n in range(width)))
    result.max_concurrency = claimed.run.config.get("max_concurrency")
    committed = hand.commit(claimed, result, lease_next=True, wake=wake)
    assert committed.leased is not None
    return committed.leased, committed.ready


def open_among(hand: Hand, message: ExecuteNode) -> int:
    """How many siblings are ready, or somebody works on them."""
    return sum(status in {"ready", "leased"} for status, _ in hand.siblings(message))


def test_the_last_of_several_siblings_advances_the_superstep(home: Home, hand: Hand, acme: Tenant) -> None:
    message = start(home, acme)
    siblings = [hand.claim(ready) for ready in fan_out(hand, message, 3)]

    one, two, three = (hand.commit(sibling, settled(sibling)) for sibling in siblings)

    assert (one.advance, two.advance) == (None, None)
    advance = three.advance
    assert advance is not None
    assert advance.settled == {str(s.message.execution_id): "done" for s in siblings}
    loaded = advance.saver.get_tuple(config_of(advance))  # type: ignore[arg-type]
    assert loaded is not None
    assert sorted(value for _, _, value in loaded.pending_writes or ()) == ["node0", "node1", "node2"]
    assert hand.refusal(advance.message) == "busy"
    (ready,) = hand.commit(advance, advanced(advance, "after")).ready
    assert ready.node == "after"
    assert count(home, "superstep") == 0
    assert hand.refusal(advance.message) == "gone"


def test_a_node_reads_its_own_writes_and_the_runs_but_no_siblings(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    result = begin(first, "a", "b")
    at = result.next[0].checkpoint_id
    result.ops.append(put_writes(at, NULL_TASK, ("__resume__", "yes")))
    to_a, to_b = hand.commit(first, result).ready
    a = hand.claim(to_a)
    task = str(uuid4())
    a.saver.put_writes(
        {"configurable": {"thread_id": str(a.thread_id), "checkpoint_ns": "", "checkpoint_id": at}},
        [("__return__", 7)],
        task,
    )

    b = hand.claim(to_b)
    of_b = b.saver.get_tuple(config_of(b))  # type: ignore[arg-type]
    hand.executions.release(a)
    wait_for(lambda: execution(home, to_a)["status"] == "ready", what="a, given back")
    of_a = hand.claim(to_a).saver.get_tuple(config_of(a))  # type: ignore[arg-type]

    assert of_b is not None
    assert of_a is not None
    assert of_b.pending_writes == [(NULL_TASK, "__resume__", "yes")]
    assert sorted(of_a.pending_writes or ()) == [(NULL_TASK, "__resume__", "yes"), (task, "__return__", 7)]


@both
def test_ninety_six_siblings_over_eight_threads_have_one_last_finisher(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    for _ in range(3):
        message = start(home, acme, tier=tier)
        siblings = [hand.claim(ready) for ready in fan_out(hand, message, 96)]
        with ThreadPoolExecutor(8) as pool:
            committed = list(pool.map(lambda sibling: hand.commit(sibling, settled(sibling)), siblings))

        advances = [one.advance for one in committed if one.advance is not None]

        assert len(advances) == 1
        assert len(advances[0].settled) == 96
        hand.commit(advances[0], advanced(advances[0]))
        is_over = partial(lambda message: run_status(home, message) == "success", message)
        wait_for(is_over, what="the run's end, whoever hands it in")


@both
def test_no_more_siblings_are_ready_than_may_run_at_once(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    message = start(home, acme, tier=tier, max_concurrency=2)
    ready = list(fan_out(hand, message, 5))
    assert len(ready) == 2

    seen, advance = 0, None
    while ready:
        assert open_among(hand, ready[0]) == min(2, 5 - seen)
        sibling = hand.claim(ready.pop(0))
        committed = hand.commit(sibling, settled(sibling))
        ready += committed.ready
        advance = committed.advance
        seen += 1

    assert seen == 5
    assert advance is not None


def go_through(hand: Hand, sibling: Claimed | None) -> tuple[list[str], Claimed | None]:
    """What a worker takes of a wave, by name, until nothing is left; and the advance, if it gets it."""
    names, advance = [], None
    while sibling is not None:
        assert sibling.call is not None
        assert sibling.in_wave
        names.append(sibling.call.name)
        committed = hand.commit(sibling, settled(sibling), lease_next=True)
        assert committed.ready == ()
        sibling, advance = committed.leased, committed.advance
    return names, advance


@both
def test_a_worker_goes_through_a_wave_each_sibling_under_a_lease_of_its_own(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    first, ready = wave(hand, start(home, acme, tier=tier), 4)
    assert ready == ()
    assert (first.message.epoch > 0) is (tier == "redis")
    assert hand.siblings(first.message) == [("leased", 1), ("ready", 0), ("ready", 0), ("ready", 0)]

    names, advance = go_through(hand, first)

    assert sorted(names) == ["node0", "node1", "node2", "node3"]
    assert advance is not None
    assert set(advance.settled.values()) == {"done"}
    assert len(advance.settled) == 4


@both
def test_a_sibling_that_has_a_message_is_left_to_it(home: Home, hand: Hand, acme: Tenant, tier: Persistence) -> None:
    first, (to_another,) = wave(hand, start(home, acme, tier=tier), 4, wake=1)

    names, advance = go_through(hand, first)

    assert (len(names), advance) == (3, None)
    other = hand.claim(to_another)
    assert other.in_wave
    names_of_other, advance = go_through(hand, other)
    assert sorted(names + names_of_other) == ["node0", "node1", "node2", "node3"]
    assert advance is not None


@both
def test_siblings_that_are_each_sent_for_are_in_no_wave(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    one, two = (hand.claim(ready) for ready in fan_out(hand, start(home, acme, tier=tier), 2))

    assert (one.in_wave, two.in_wave) == (False, False)
    assert hand.commit(one, settled(one), lease_next=True).leased is None


@both
def test_a_hundred_siblings_over_eight_threads_of_a_wave_are_taken_once_each(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    first, ready = wave(hand, start(home, acme, tier=tier), 100, wake=7)
    assert len(ready) == 7

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda claim: go_through(hand, claim()), [lambda: first, *_claims(hand, ready)]))

    names = [name for names, _ in taken for name in names]
    assert sorted(names) == sorted(f"node{n}" for n in range(100))
    assert len([advance for _, advance in taken if advance is not None]) == 1


def _claims(hand: Hand, ready: Sequence[ExecuteNode]) -> list[Callable[[], Claimed]]:
    return [partial(hand.claim, message) for message in ready]


@both
def test_a_worker_that_leaves_a_wave_names_one_that_has_no_message(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    first, _ = wave(hand, start(home, acme, tier=tier), 3)

    committed = hand.commit(first, settled(first))  # its time is up

    assert committed.leased is None
    (to_next,) = committed.ready
    assert hand.siblings(first.message) == [("done", 1), ("ready", 0), ("ready", 1)]
    names, advance = go_through(hand, hand.claim(to_next))
    assert (len(names), advance is not None) == (2, True)


@both
def test_siblings_of_a_node_that_takes_long_are_sent_for_once_each(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    first, _ = wave(hand, start(home, acme, tier=tier), 4)

    rest = (*hand.executions.rest_of_wave(first, 1), *hand.executions.rest_of_wave(first, 2))

    assert len({message.execution_id for message in rest}) == 3
    assert {message.graph_id for message in rest} == {"graph"}
    assert hand.executions.rest_of_wave(first, 4) == ()
    assert hand.commit(first, settled(first), lease_next=True).leased is None
    last = [hand.commit(sibling, settled(sibling), lease_next=True) for sibling in map(hand.claim, rest)][-1]
    assert last.advance is not None


def test_who_waits_for_its_retry_leaves_a_wave_and_another_is_sent_for(home: Home, hand: Hand, acme: Tenant) -> None:
    first, _ = wave(hand, start(home, acme), 3)
    assert first.call is not None
    again = SegmentResult(outcome="retry", error=ValueError(), retry_in=60.0, call=first.call.retried(1, 0.0))

    committed = hand.commit(first, again, lease_next=True)

    assert committed.leased is None
    (to_another,) = committed.ready
    assert to_another.execution_id != first.message.execution_id
    assert hand.claim(to_another).in_wave


@both
def test_no_more_of_a_wave_are_at_work_than_may_run_at_once(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    first, (to_another,) = wave(hand, start(home, acme, tier=tier, max_concurrency=2), 6, wake=5)
    other = hand.claim(to_another)
    at_work, names, advance = [first, other], [], None

    while at_work:
        assert open_among(hand, first.message) == len(at_work) <= 2
        sibling = at_work.pop(0)
        assert sibling.call is not None
        names.append(sibling.call.name)
        committed = hand.commit(sibling, settled(sibling), lease_next=True)
        assert committed.ready == ()
        at_work += [committed.leased] if committed.leased else []
        advance = committed.advance

    assert len(set(names)) == 6
    assert advance is not None


@both
def test_one_that_may_run_once_another_has_ended_is_sent_for_by_who_leaves_a_wave(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    first, _ = wave(hand, start(home, acme, tier=tier, max_concurrency=1), 3)

    (to_next,) = hand.commit(first, settled(first)).ready

    assert hand.siblings(first.message) == [("done", 1), ("held", 0), ("ready", 1)]
    assert hand.claim(to_next).in_wave


@pytest.mark.parametrize("tier", ["redis"])
def test_a_worker_takes_no_sibling_while_postgres_is_behind(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand.behind, "begin", lambda: None)
    monkeypatch.setattr(scripts, "MAX_WAITING", 2)
    first, _ = wave(hand, start(home, acme, tier=tier), 3)

    committed = hand.commit(first, settled(first), lease_next=True)

    assert committed.leased is None
    (to_next,) = committed.ready
    names, advance = go_through(hand, hand.claim(to_next))  # which gives Postgres what it lacks
    assert (len(names), advance is not None) == (2, True)


def test_a_worker_does_not_go_on_with_a_sibling_of_another_queue(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    begun = begin(first, "write", "embed")
    write, embed = begun.next
    begun = replace(begun, next=(write, replace(embed, queue="gpu")))
    writing = hand.commit(first, begun, lease_next=True, wake=0).leased
    assert writing is not None

    committed = hand.commit(writing, settled(writing), lease_next=True)

    assert (committed.leased, committed.advance) == (None, None)
    assert hand.siblings(writing.message) == [("done", 1), ("ready", 0)]


def test_a_sibling_that_is_lost_with_its_worker_is_not_taken_but_healed(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    dying, other = hands("dying"), hands("other")
    first, (to_another,) = wave(dying, start(home, acme), 4, wake=1)
    dying.stop()
    healer = PostgresHealing(home.ops, home.app, home.settings)

    names, advance = go_through(other, other.claim(to_another))

    assert (len(names), advance) == (3, None)
    (again,) = healer.sweep().again
    assert again.execution_id == first.message.execution_id
    _, advance = go_through(other, other.claim(again))
    assert advance is not None


def test_what_waits_in_a_wave_that_nobody_goes_on_with_is_found_by_the_healer(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    dying, other = hands("dying"), hands("other")
    first, _ = wave(dying, start(home, acme), 3)
    dying.stop()
    healer = PostgresHealing(home.ops, home.app, home.settings.model_copy(update={"lost_message_seconds": 0.1}))

    (lost,) = healer.sweep().again
    assert lost.execution_id == first.message.execution_id
    waiting = wait_for(lambda: healer.lost(lambda queue: 0).again, what="those that wait")

    names = [name for message in (lost, *waiting) for name in go_through(other, other.claim(message))[0]]
    assert sorted(names) == ["node0", "node1", "node2"]


def test_the_error_of_a_sibling_ends_the_run_and_fences_the_others_out(home: Home, hand: Hand, acme: Tenant) -> None:
    message = start(home, acme)
    a, b, c = (hand.claim(ready) for ready in fan_out(hand, message, 3))
    hand.commit(a, settled(a))

    failed = SegmentResult(
        ops=[own_writes(b, ("__error__", "ValueError('no')"))], outcome="error", error=ValueError("no\x00good")
    )
    ended = hand.commit(b, failed).ended

    assert ended is not None
    assert ended.error == {"error": "ValueError", "message": "nogood", "node": "node1", "attempts": 1}
    assert run_status(home, message) == "error"
    with pytest.raises(LeaseLost):
        hand.commit(c, settled(c))
    assert execution(home, c.message)["status"] == "cancelled"
    assert home.query("SELECT idx FROM farm.checkpoint_write ORDER BY idx") == [(-1,), (0,)]  # b's error, a's result
    assert home.query("SELECT status, error FROM farm.thread") == [("error", "nogood")]


def test_an_answer_without_an_id_is_for_one_node_alone(home: Home, hand: Hand, acme: Tenant) -> None:
    a, b = fan_out(hand, start(home, acme), 2)
    asked = hand.claim(a)
    hand.commit(asked, settled(asked, took_scalar=True))

    other = hand.claim(b)

    assert other.call is not None
    assert asked.call is not None
    assert (asked.call.answered, other.call.answered) == (True, False)


def test_a_resumed_run_enters_the_superstep_again_with_all_that_was_written_there(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    message = start(home, acme)
    a, b = (hand.claim(ready) for ready in fan_out(hand, message, 2))
    hand.commit(a, settled(a))
    asks = SegmentResult(ops=[own_writes(b, ("__interrupt__", ["what?"]))], outcome="interrupt")
    advance = hand.commit(b, asks).advance
    assert advance is not None
    assert advance.settled[str(b.message.execution_id)] == "interrupt"
    assert hand.commit(advance, SegmentResult(status="interrupted")).ended is not None

    again = hand.claim(start(home, acme, a.thread_id))
    loaded = again.saver.get_tuple(config_of(again))  # type: ignore[arg-type]
    assert loaded is not None
    assert {channel for _, channel, _ in loaded.pending_writes or ()} == {"text", "__interrupt__"}
    assert b.call is not None
    resumed = SegmentResult(
        ops=[put_writes(b.call.checkpoint_id, NULL_TASK, ("__resume__", "that"))], next=(replace(b.call, sole=False),)
    )
    leased = hand.commit(again, resumed, lease_next=True).leased
    assert leased is not None
    of_b = leased.saver.get_tuple(config_of(leased))  # type: ignore[arg-type]
    assert of_b is not None
    assert {channel for _, channel, _ in of_b.pending_writes or ()} == {"__interrupt__", "__resume__"}
    last = hand.commit(leased, settled(leased)).advance
    assert last is not None
    assert last.settled == {b.call.execution_id: "done"}
