"""claim, commit, settle, advance: what a worker does with a node execution, on a real PostgreSQL."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import LeaseLost
from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.bodies import INLINE_BYTES
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.records import Claimed
from agentfarm.tenancy import Tenant
from tests.integration.persistence import farmhands
from tests.integration.persistence.farmhands import (
    BIG,
    Hand,
    admit,
    advanced,
    begin,
    call,
    count,
    execution,
    go_on,
    own_writes,
    put_checkpoint,
    put_writes,
    run_status,
    settled,
    start,
)
from tests.integration.persistence.postgres import Home, wait_for

NULL_TASK = str(ZERO)


@dataclass
class NotKept:
    """Of no graph's state: it is refused, or made plain."""

    text: str


def fan_out(hand: Hand, message: ExecuteNode, width: int, **config: object) -> tuple[ExecuteNode, ...]:
    claimed = hand.claim(message)
    result = begin(claimed, *(f"node{n}" for n in range(width)))
    result.max_concurrency = claimed.run.config.get("max_concurrency")
    return hand.commit(claimed, result).ready


def config_of(claimed: Claimed) -> dict[str, dict[str, str]]:
    return {"configurable": {"thread_id": str(claimed.thread_id), "checkpoint_ns": ""}}


# --------------------------------------------------------------------------- one after the other


def test_a_run_goes_from_its_start_through_its_nodes_to_its_end(home: Home, hand: Hand, acme: Tenant) -> None:
    message = start(home, acme)

    first = hand.claim(message)
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    (to_two,) = hand.commit(one, go_on(one, "two")).ready
    two = hand.claim(to_two)
    end = hand.commit(two, go_on(two, step=2))

    assert (first.kind, one.kind, one.call and one.call.name) == ("start", "node", "one")
    assert end.ended is not None
    assert (end.ended.status, end.ended.run_id) == ("success", message.run_id)
    assert run_status(home, message) == "success"
    chain = home.query("SELECT checkpoint_id, parent_id FROM farm.checkpoint ORDER BY checkpoint_id")
    assert [parent for _, parent in chain] == [None, *(checkpoint_id for checkpoint_id, _ in chain[:-1])]
    assert home.query("SELECT head, step FROM farm.thread_head") == [(chain[-1][0], 2)]
    assert home.query("SELECT status FROM farm.thread") == [("idle",)]


def test_a_claim_brings_what_the_node_needs_and_nothing_twice(
    home: Home, hand: Hand, hands: Callable[..., Hand], acme: Tenant
) -> None:
    first = hand.claim(start(home, acme))
    (to_one,) = hand.commit(first, begin(first, "one", text="hello", long=BIG, pair=(1, 2))).ready

    here, elsewhere = hand.executions, hands().executions
    found = elsewhere.claim(to_one)

    assert isinstance(found, Claimed)
    assert found.run == first.run
    loaded = found.saver.get_tuple(config_of(found))  # type: ignore[arg-type]
    assert loaded is not None
    assert loaded.checkpoint["channel_values"] == {"text": "hello", "long": BIG, "pair": (1, 2)}
    assert loaded.checkpoint["id"] == str(to_one.checkpoint_id)
    assert found.attempt == 1
    assert here.claim(to_one) != found


def test_a_head_is_decoded_afresh_for_every_reader(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    (to_one,) = hand.commit(first, begin(first, "one", items=["a"])).ready
    one = hand.claim(to_one)

    read = [one.saver.get_tuple(config_of(one)) for _ in range(2)]  # type: ignore[arg-type]

    assert read[0] is not None
    assert read[1] is not None
    read[0].checkpoint["channel_values"]["items"].append("b")
    assert read[1].checkpoint["channel_values"]["items"] == ["a"]


def test_what_did_not_change_is_stored_once_and_small_values_not_as_blobs(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    small, large = "s" * INLINE_BYTES, "l" * (INLINE_BYTES + 1)
    (to_one,) = hand.commit(first, begin(first, "one", small=small, large=large)).ready
    one = hand.claim(to_one)
    loaded = one.saver.get_tuple(config_of(one))  # type: ignore[arg-type]
    assert loaded is not None

    result = go_on(one, "two")
    put = result.ops[1]
    put.checkpoint["channel_values"] = loaded.checkpoint["channel_values"]  # type: ignore[union-attr]
    put.checkpoint["channel_versions"] = loaded.checkpoint["channel_versions"]  # type: ignore[union-attr]
    put.new_versions.clear()  # type: ignore[union-attr]
    (to_two,) = hand.commit(one, result).ready

    two = hand.claim(to_two)
    again = two.saver.get_tuple(config_of(two))  # type: ignore[arg-type]
    assert again is not None
    assert again.checkpoint["channel_values"] == {"small": small, "large": large}
    assert count(home, "checkpoint_blob") == 1
    assert count(home, "checkpoint") == 2


def test_a_start_may_go_on_with_its_first_node_in_the_same_message(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))

    committed = hand.commit(first, begin(first, "one"), lease_next=True)

    assert committed.ready == ()
    assert committed.leased is not None
    assert execution(home, committed.leased.message)["status"] == "leased"
    one = committed.leased
    loaded = one.saver.get_tuple(config_of(one))  # type: ignore[arg-type]
    assert loaded is not None
    assert loaded.checkpoint["channel_values"] == {"text": "hello"}
    assert hand.refusal(one.message) == "busy"
    assert hand.commit(one, go_on(one)).ended is not None


def test_a_message_delivered_twice_finds_the_lease_or_the_result(
    home: Home, hand: Hand, hands: Callable[..., Hand], acme: Tenant
) -> None:
    message = start(home, acme)
    other = hands("other")

    first = hand.claim(message)
    while_it_runs = (hand.refusal(message), other.refusal(message))
    (to_one,) = hand.commit(first, begin(first, "one")).ready

    assert while_it_runs == ("busy", "busy")
    assert (hand.refusal(message), other.refusal(message)) == ("gone", "gone")
    assert other.executions.open_at_head(message) == (replace(to_one, queue=""),)


def test_of_two_workers_that_claim_at_once_one_gets_it(home: Home, hands: Callable[..., Hand], acme: Tenant) -> None:
    both = [hands(), hands()]

    def race(worker: Hand, message: ExecuteNode, gate: threading.Barrier) -> object:
        gate.wait()
        return worker.executions.claim(message)

    for _ in range(10):
        message, gate = start(home, acme), threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            racers = [pool.submit(race, worker, message, gate) for worker in both]
            answers = [racer.result() for racer in racers]
        assert sorted(type(answer).__name__ for answer in answers) == ["Claimed", "Refused"]


# --------------------------------------------------------------------------- fences


def test_a_zombie_saves_nothing(home: Home, hands: Callable[..., Hand], acme: Tenant) -> None:
    frozen, healthy = hands("frozen"), hands("healthy")
    first = frozen.claim(start(home, acme))
    (to_one,) = frozen.commit(first, begin(first, "one")).ready
    zombie = frozen.claim(to_one)
    home.query("UPDATE farm.worker SET ended_at = now() WHERE worker = %s RETURNING 1", frozen.lease.worker_id())

    taken = healthy.claim(to_one)
    before = count(home, "checkpoint")
    with pytest.raises(LeaseLost):
        frozen.commit(zombie, go_on(zombie))
    with pytest.raises(LeaseLost):
        zombie.saver.put_writes(
            {"configurable": {"thread_id": "x", "checkpoint_ns": "", "checkpoint_id": str(to_one.checkpoint_id)}},
            [("text", "late")],
            str(uuid4()),
        )

    assert (count(home, "checkpoint"), count(home, "checkpoint_write")) == (before, 0)
    assert taken.fence == zombie.fence + 1
    assert taken.attempt == 2
    assert healthy.commit(taken, go_on(taken)).ended is not None
    lost_to = execution(home, to_one)["lost_to"]
    assert [(loss["worker"], loss["attempt"]) for loss in lost_to] == [("frozen-0", 1)]


def test_a_checkpoint_that_would_come_before_its_parent_is_refused(home: Home, hand: Hand, acme: Tenant) -> None:
    from agentfarm.persistence.store_errors import CheckpointOutOfOrder

    first = hand.claim(start(home, acme))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    early = str(UUID(int=to_one.checkpoint_id.int - 1))
    put = put_checkpoint(one.thread_id, to_one.checkpoint_id, step=1, checkpoint_id=early, text="x")

    with pytest.raises(CheckpointOutOfOrder):
        hand.commit(one, SegmentResult(ops=[own_writes(one), put], status="success"))

    assert execution(home, to_one)["status"] == "leased"
    assert hand.commit(one, go_on(one)).ended is not None


def test_a_head_moved_by_somebody_else_ends_the_run_with_a_reason(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    home.query("UPDATE farm.thread_head SET head = %s RETURNING 1", uuid4())

    ended = hand.commit(one, go_on(one)).ended

    assert ended is not None
    assert ended.status == "error"
    assert ended.error is not None
    assert ended.error["error"] == "HeadMoved"
    assert count(home, "checkpoint") == 1


def test_what_a_lost_commit_made_plain_is_not_told_of_the_next_run(
    home: Home, hands: Callable[..., Hand], acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    lossy = FaithfulSerializer(softens=True, lenient=True)
    monkeypatch.setattr(farmhands, "serde_for", lambda _: lossy)
    hand = hands()
    first = hand.claim(start(home, acme))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    home.query("UPDATE farm.node_execution SET fence = fence + 1 RETURNING 1")
    with pytest.raises(LeaseLost):
        hand.commit(one, go_on(one, text=NotKept("of acme")))

    theirs = hand.claim(start(home, globex))
    hand.commit(theirs, begin(theirs, "one"))

    assert home.query("SELECT DISTINCT warnings FROM farm.run") == [(None,)]


def test_a_claim_that_nobody_used_is_given_back(
    home: Home, hand: Hand, hands: Callable[..., Hand], acme: Tenant
) -> None:
    message = start(home, acme)
    claimed = hand.claim(message)
    hand.executions.release(claimed)

    wait_for(lambda: execution(home, message)["status"] == "ready", what="the execution, given back")
    with pytest.raises(LeaseLost):
        hand.commit(claimed, begin(claimed, "one"))

    dropped = hands("other").claim(message)
    del dropped
    wait_for(lambda: execution(home, message)["status"] == "ready", what="the execution of a dropped claim")
    assert [loss["attempt"] for loss in execution(home, message)["lost_to"]] == [1, 2]


def test_a_lost_answer_to_a_claim_does_not_lose_the_lease(home: Home, hand: Hand, acme: Tenant) -> None:
    message = start(home, acme)
    home.query(
        "UPDATE farm.node_execution SET status = 'leased', fence = 1, attempts = 1, worker = %s RETURNING 1",
        hand.lease.worker_id(),
    )

    claimed = hand.claim(message)

    assert (claimed.fence, claimed.attempt) == (2, 1)
    assert execution(home, message)["lost_to"] is None


# --------------------------------------------------------------------------- side by side


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


# --------------------------------------------------------------------------- again, later


def test_a_retry_is_the_same_execution_with_its_tries_counted_and_due_later(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    first = hand.claim(start(home, acme))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    assert one.call is not None

    later = SegmentResult(outcome="retry", retry_in=3600, call=one.call.retried(1, 1.0), error=ValueError("x"))
    committed = hand.commit(one, later)
    assert committed.ready == ()
    assert hand.refusal(to_one) == "busy"
    home.query("UPDATE farm.node_execution SET available_at = now() WHERE outcome = 'retry' RETURNING 1")
    two = hand.claim(to_one)

    assert two.call is not None
    assert (two.call.tries, two.attempt) == (1, 1)
    assert execution(home, to_one)["lost_to"] is None
    at_once = SegmentResult(outcome="retry", retry_in=0, call=two.call.retried(2, 2.0), error=ValueError("x"))
    assert hand.commit(two, at_once).ready == (to_one,)


def test_a_node_that_failed_in_an_earlier_run_may_save_its_writes_at_the_same_checkpoint(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    first = hand.claim(start(home, acme))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    assert one.call is not None
    marked = [("__error__", "x"), ("__error_source_node__", "one")]
    one.saver.put_writes(
        {
            "configurable": {
                "thread_id": str(one.thread_id),
                "checkpoint_ns": "",
                "checkpoint_id": one.call.checkpoint_id,
            }
        },
        marked,
        one.call.execution_id,
    )
    hand.commit(one, SegmentResult(status="error", error=ValueError("x")))

    again = hand.claim(start(home, acme, one.thread_id))
    leased = hand.commit(again, SegmentResult(next=(one.call,)), lease_next=True).leased
    assert leased is not None

    assert hand.commit(leased, go_on(leased)).ended is not None


# --------------------------------------------------------------------------- who is next


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
