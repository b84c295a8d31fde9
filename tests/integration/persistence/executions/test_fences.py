"""Who has lost his lease, or another's head, saves nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import LeaseLost
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.tenancy import Tenant
from tests.integration.persistence import farmhands
from tests.integration.persistence.farmhands import (
    Hand,
    begin,
    count,
    execution,
    go_on,
    own_writes,
    put_checkpoint,
    start,
)
from tests.integration.persistence.postgres import Home, wait_for


@dataclass
class NotKept:
    """Of no graph's state: it is refused, or made plain."""

    text: str


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
