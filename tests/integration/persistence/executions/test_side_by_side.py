"""Siblings of one superstep: the last one advances, and none reads another's writes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import LeaseLost
from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode
from agentfarm.records import Claimed
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


def fan_out(hand: Hand, message: ExecuteNode, width: int, **config: object) -> tuple[ExecuteNode, ...]:
    claimed = hand.claim(message)
    result = begin(claimed, *(f"node{n}" for n in range(width)))
    result.max_concurrency = claimed.run.config.get("max_concurrency")
    return hand.commit(claimed, result).ready


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


def test_ninety_six_siblings_over_eight_threads_have_one_last_finisher(home: Home, hand: Hand, acme: Tenant) -> None:
    for _ in range(3):
        siblings = [hand.claim(ready) for ready in fan_out(hand, start(home, acme), 96)]
        with ThreadPoolExecutor(8) as pool:
            committed = list(pool.map(lambda sibling: hand.commit(sibling, settled(sibling)), siblings))

        advances = [one.advance for one in committed if one.advance is not None]

        assert len(advances) == 1
        assert len(advances[0].settled) == 96
        assert hand.commit(advances[0], advanced(advances[0])).ended is not None


def test_no_more_siblings_are_ready_than_may_run_at_once(home: Home, hand: Hand, acme: Tenant) -> None:
    message = start(home, acme, max_concurrency=2)
    ready = list(fan_out(hand, message, 5))
    assert len(ready) == 2

    seen, advance = 0, None
    while ready:
        open_now = home.query("SELECT count(*) FROM farm.node_execution WHERE status IN ('ready', 'leased')")[0][0]
        assert open_now == min(2, 5 - seen)
        sibling = hand.claim(ready.pop(0))
        committed = hand.commit(sibling, settled(sibling))
        ready += committed.ready
        advance = committed.advance
        seen += 1

    assert seen == 5
    assert advance is not None


def test_a_worker_may_go_on_with_the_next_sibling(home: Home, hand: Hand, acme: Tenant) -> None:
    ready = fan_out(hand, start(home, acme), 3)
    sibling: Claimed | None = hand.claim(ready[1])

    names, advance = [], None
    while sibling is not None:
        assert sibling.call is not None
        names.append(sibling.call.name)
        committed = hand.commit(sibling, settled(sibling), lease_next=True)
        sibling, advance = committed.leased, committed.advance

    assert sorted(names) == ["node0", "node1", "node2"]
    assert advance is not None


def test_a_worker_does_not_go_on_with_a_sibling_of_another_queue(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    begun = begin(first, "embed", "write")
    embed, write = begun.next
    to_embed, to_write = hand.commit(first, replace(begun, next=(replace(embed, queue="gpu"), write))).ready
    writing = hand.claim(to_write)

    committed = hand.commit(writing, settled(writing), lease_next=True)

    assert (committed.leased, committed.advance) == (None, None)
    assert execution(home, to_embed)["status"] == "ready"


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
