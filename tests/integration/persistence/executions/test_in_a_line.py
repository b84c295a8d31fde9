"""claim, commit, advance: a run whose nodes come one after the other, and those that are tried again."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import FanOutTooWide, StateTooLarge
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.bodies import INLINE_BYTES
from agentfarm.persistence.claims import saver_of
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.records import Claimed
from agentfarm.run_options import Persistence
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import (
    BIG,
    Hand,
    begin,
    config_of,
    count,
    execution,
    go_on,
    run_status,
    start,
)
from tests.integration.persistence.postgres import Home, wait_for


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


def test_a_worker_keeps_nothing_of_a_run_that_it_has_ended(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    claims = hand.executions.claims
    meanwhile = (len(claims._runs), len(claims._heads))

    hand.commit(one, go_on(one, step=1))

    assert meanwhile == (1, 1)
    assert (len(claims._runs), len(claims._heads)) == (0, 0)


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


def test_a_first_node_that_names_a_queue_is_left_to_the_workers_of_that_queue(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    first = hand.claim(start(home, acme))
    begun = begin(first, "embed")
    begun = replace(begun, next=tuple(replace(call, queue="gpu") for call in begun.next))

    committed = hand.commit(first, begun, lease_next=True)

    assert committed.leased is None
    (to_embed,) = committed.ready
    assert (to_embed.node, to_embed.queue) == ("embed", "gpu")
    assert execution(home, to_embed)["status"] == "ready"


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


def test_a_worker_goes_on_with_one_node_after_the_other_each_under_a_lease_of_its_own(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    first = hand.claim(start(home, acme))
    one = hand.commit(first, begin(first, "one"), lease_next=True).leased
    assert one is not None

    two = hand.commit(one, go_on(one, "two"), lease_next=True).leased

    assert two is not None
    assert (two.call and two.call.name, two.attempt) == ("two", 1)
    loaded = two.saver.get_tuple(config_of(two))  # type: ignore[arg-type]
    assert loaded is not None
    assert loaded.checkpoint["channel_values"] == {"text": "one"}
    assert [execution(home, work.message)["status"] for work in (first, one, two)] == ["done", "done", "leased"]
    assert hand.refusal(two.message) == "busy"
    assert hand.commit(two, go_on(two, step=2), lease_next=True).ended is not None


def test_what_one_node_changed_in_the_config_the_next_one_finds_as_it_was(home: Home, hand: Hand, acme: Tenant) -> None:
    message = start(home, acme, tags=["a"])
    first = hand.claim(message)
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    one.run.config["tags"].append("changed in place")

    two = hand.commit(one, go_on(one, "two"), lease_next=True).leased

    assert two is not None
    assert two.run.config["tags"] == ["a"]


def test_a_worker_that_lives_under_a_new_id_leases_nothing_under_the_old_one(
    home: Home, hand: Hand, acme: Tenant
) -> None:
    first = hand.claim(start(home, acme))
    old = hand.lease.worker_id()
    home.query("UPDATE farm.worker SET ended_at = clock_timestamp() WHERE worker = %s RETURNING 1", old)
    wait_for(lambda: not hand.lease.is_known_as(old), what="the lease's thread, which is told that it was given up")

    committed = hand.commit(first, begin(first, "one"), lease_next=True)

    assert committed.leased is None
    assert [message.node for message in committed.ready] == ["one"]


@pytest.mark.parametrize("tier", ["postgres", "redis"])
def test_a_step_that_leaves_too_much_saves_nothing_and_its_run_may_end_with_an_error(
    home: Home, hands: Callable[..., Hand], acme: Tenant, tier: Persistence
) -> None:
    hand = hands(max_state_bytes=1 << 20)
    message = start(home, acme, tier=tier)
    first = hand.claim(message)
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)

    with pytest.raises(StateTooLarge, match="at most 1048576 are taken at once"):
        hand.commit(one, go_on(one, "two", text="x" * (2 << 20)))

    assert count(home, "checkpoint") <= 1  # of the start; where Redis moves the run, maybe not yet
    assert hand.commit(one, SegmentResult(status="error", error=StateTooLarge(size=2, most=1))).ended is not None
    assert run_status(home, message) == "error"


@pytest.mark.parametrize("tier", ["postgres", "redis"])
def test_a_step_that_sends_to_too_many_nodes_begins_none(
    home: Home, hands: Callable[..., Hand], acme: Tenant, tier: Persistence
) -> None:
    hand = hands(max_fan_out=3)
    message = start(home, acme, tier=tier)
    first = hand.claim(message)

    with pytest.raises(FanOutTooWide, match="begin 4 nodes beside each other, and at most 3"):
        hand.commit(first, begin(first, "one", "two", "three", "four"))

    assert len(hand.commit(first, begin(first, "one", "two", "three")).ready) == 3


@pytest.mark.parametrize("tier", ["postgres", "redis"])
def test_the_first_node_has_the_values_of_its_start_and_reads_what_it_asks_for_later(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    first = hand.claim(start(home, acme, tier=tier))
    said, others = [HumanMessage("hello", id="1"), HumanMessage(BIG, id="2")], ["hello", BIG]

    one = hand.commit(first, begin(first, "one", said=said, others=others), lease_next=True).leased

    assert one is not None
    given = _values(one)
    assert given["said"][1] is said[1]  # what nobody else has
    assert given["others"] == others
    assert given["others"] is not others
    given["said"][1].content = "changed in place by a node"
    assert _values(one)["said"][1].content == BIG


def test_the_first_node_of_a_graph_that_is_made_anew_reads_all_of_it(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    said = [HumanMessage(BIG, id="1")]
    one = hand.commit(first, begin(first, "one", said=said), lease_next=True).leased
    assert one is not None

    saver_of(one).use_serde(FaithfulSerializer())

    assert _values(one)["said"][0] is not said[0]


def test_a_node_after_another_reads_its_values(home: Home, hand: Hand, acme: Tenant) -> None:
    first = hand.claim(start(home, acme))
    one = hand.commit(first, begin(first, "one", said=[BIG]), lease_next=True).leased
    assert one is not None
    said = [BIG, "one"]

    two = hand.commit(one, go_on(one, "two", said=said), lease_next=True).leased

    assert two is not None
    assert _values(two)["said"] == said
    assert _values(two)["said"] is not said


def test_what_a_start_has_made_plain_its_first_node_reads_plain(home: Home, hand: Hand, acme: Tenant) -> None:
    class Unknown(list[str]):
        """Of no graph's state."""

    first = hand.claim(start(home, acme))
    saver_of(first).use_serde(FaithfulSerializer(softens=True, lenient=True))

    one = hand.commit(first, begin(first, "one", said=[Unknown([BIG])]), lease_next=True).leased

    assert one is not None
    assert type(_values(one)["said"][0]) is list


def _values(claimed: Claimed) -> dict[str, Any]:
    found = saver_of(claimed).get_tuple(config_of(claimed))  # type: ignore[arg-type]
    assert found is not None
    return found.checkpoint["channel_values"]
