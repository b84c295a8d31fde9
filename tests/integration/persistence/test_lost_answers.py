"""Postgres carried out a call and its answer was lost: what it leased is nobody's work, and must not stay leased."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from agentfarm.errors import StoreUnavailable
from agentfarm.messages import ExecuteNode
from agentfarm.persistence import executions, leases
from agentfarm.persistence.claims import Claims
from agentfarm.persistence.database import Database
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.records import Claimed
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import (
    Hand,
    advanced,
    begin,
    go_on,
    run_status,
    settled,
    start,
)
from tests.integration.persistence.postgres import Home, wait_for


@pytest.fixture
def healer(home: Home) -> PostgresHealing:
    return PostgresHealing(home.ops, home.app, home.settings)


@pytest.fixture
def lose_answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Of every call of that name: Postgres carries it out, and the connection is gone before it says so."""

    def lose(name: str) -> None:
        real = Database._call

        def lost(self: Database, statement: Any, params: Any) -> Any:
            answer = real(self, statement, params)
            if statement.name != name:
                return answer
            raise StoreUnavailable

        monkeypatch.setattr(Database, "_call", lost)

    return lose


def everything_leased(home: Home) -> list[tuple[Any, ...]]:
    return home.query(
        "SELECT execution_id FROM farm.node_execution WHERE status = 'leased' "
        "UNION ALL SELECT checkpoint_id FROM farm.superstep WHERE worker IS NOT NULL"
    )


def found_by(healer: PostgresHealing) -> tuple[ExecuteNode, ...]:
    """What is sent again because nobody has sent it, however long the queue."""
    return wait_for(lambda: healer.lost(lambda queue: 10_000).again, what="what was given back", seconds=10)


def test_what_a_commit_leased_is_given_back_when_its_answer_was_lost(
    home: Home,
    hands: Callable[..., Hand],
    acme: Tenant,
    healer: PostgresHealing,
    lose_answer: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_off, other = hands("cut-off"), hands("other")
    message = start(home, acme)
    first = cut_off.claim(message)
    lose_answer("commit")

    with pytest.raises(StoreUnavailable):
        cut_off.commit(first, begin(first, "one"), lease_next=True)
    monkeypatch.undo()

    (to_one,) = found_by(healer)
    assert other.refusal(message) == "gone"
    assert to_one.node == "one"
    one = other.claim(to_one)
    assert other.commit(one, go_on(one)).ended is not None
    assert run_status(home, message) == "success"


def test_the_last_siblings_election_is_given_back_when_its_answer_was_lost(
    home: Home,
    hands: Callable[..., Hand],
    acme: Tenant,
    healer: PostgresHealing,
    lose_answer: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_off, other = hands("cut-off"), hands("other")
    message = start(home, acme)
    claimed = cut_off.claim(message)
    last = cut_off.claim(cut_off.commit(claimed, begin(claimed, "only", sole=False)).ready[0])
    lose_answer("settle")

    with pytest.raises(StoreUnavailable):
        cut_off.commit(last, settled(last))
    monkeypatch.undo()

    (to_advance,) = wait_for(lambda: healer.stalled().again, what="the superstep that nobody advances", seconds=5)
    advance = other.claim(to_advance)
    assert other.commit(advance, advanced(advance)).ended is not None


def wave_of_three(hand: Hand, message: ExecuteNode) -> tuple[Claimed, Claimed, UUID]:
    """Two that this worker holds, and one that waits."""
    claimed = hand.claim(message)
    begun = begin(claimed, "a", "b", "c")
    committed = hand.commit(claimed, begun, lease_next=True, wake=1)
    assert committed.leased is not None
    held = committed.leased, hand.claim(committed.ready[0])
    (waiting,) = {UUID(call.execution_id) for call in begun.next} - {one.message.execution_id for one in held}
    return *held, waiting


def test_a_sibling_that_was_taken_is_given_back_and_those_in_hand_are_not(
    home: Home,
    hand: Hand,
    acme: Tenant,
    healer: PostgresHealing,
    lose_answer: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settling, in_hand, waiting = wave_of_three(hand, start(home, acme))
    lose_answer("settle")

    with pytest.raises(StoreUnavailable):
        hand.commit(settling, settled(settling), lease_next=True)
    monkeypatch.undo()

    assert [message.execution_id for message in found_by(healer)] == [waiting]
    assert everything_leased(home) == [(in_hand.message.execution_id,)]
    hand.commit(in_hand, settled(in_hand))


def test_a_claim_is_given_back_when_both_its_answers_were_lost(
    home: Home,
    hands: Callable[..., Hand],
    acme: Tenant,
    healer: PostgresHealing,
    lose_answer: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_off, other = hands("cut-off"), hands("other")
    message = start(home, acme)
    lose_answer("claim")

    with pytest.raises(StoreUnavailable):
        cut_off.executions.claim(message)
    monkeypatch.undo()

    assert [again.execution_id for again in found_by(healer)] == [message.execution_id]
    assert other.claim(message).kind == "start"


def test_a_claim_that_is_carried_out_after_the_first_look_is_found_by_the_second(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = start(home, acme)
    monkeypatch.setattr(leases, "STATEMENT_TIMEOUT_SECONDS", 2)
    real = Database._call
    on_their_way: list[tuple[Any, Any]] = []

    def never_heard_of(self: Database, statement: Any, params: Any) -> Any:
        on_their_way.append((statement, params))
        raise StoreUnavailable

    with monkeypatch.context() as cut:
        cut.setattr(Database, "_call", never_heard_of)
        with pytest.raises(StoreUnavailable):
            hand.executions.claim(message)
    wait_for(lambda: len(hand.lease._answers) == 1, what="the first look")
    real(home.app, *on_their_way[-1])

    assert [again.execution_id for again in found_by(healer)] == [message.execution_id]


def test_what_a_commit_under_way_has_leased_is_no_stray(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two siblings at once: the answer to one is lost, that to the other is on its way."""
    monkeypatch.setattr(leases, "STATEMENT_TIMEOUT_SECONDS", 2)
    one, two, _ = wave_of_three(hand, start(home, acme))
    taken = executions.PostgresExecutions._taken
    looks: list[int] = []
    real_look = hand.lease._look

    def look(connection: Any, lost: Any) -> bool:
        looks.append(1)
        return real_look(connection, lost)

    def slowly(self: Any, *args: Any) -> Any:
        # The sibling is leased in Postgres, and not yet known here, while the other's lost answer is looked into.
        self.claims.lost_answer(one)
        wait_for(lambda: looks, what="a look", seconds=5)
        return taken(self, *args)

    monkeypatch.setattr(hand.lease, "_look", look)
    monkeypatch.setattr(executions.PostgresExecutions, "_taken", slowly)
    third = hand.commit(two, settled(two), lease_next=True).leased

    assert third is not None
    wait_for(lambda: not hand.lease._answers, what="the last look", seconds=5)
    assert everything_leased(home) == [(third.message.execution_id,)]
    hand.commit(third, settled(third))


# --------------------------------------------------------------------------- the answer came, and what followed failed


def test_a_sibling_that_cannot_be_gone_on_with_is_given_back(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = hand.claim(start(home, acme))
    begun = begin(claimed, "a", "b")
    settling = hand.commit(claimed, begun, lease_next=True, wake=0).leased
    assert settling is not None
    monkeypatch.setattr(executions, "load_call", _fails)

    with pytest.raises(MemoryError):
        hand.commit(settling, settled(settling), lease_next=True)

    assert [str(message.execution_id) for message in found_by(healer)] == [begun.next[1].execution_id]


def test_a_next_execution_that_cannot_be_gone_on_with_is_given_back(
    home: Home, hand: Hand, acme: Tenant, healer: PostgresHealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = hand.claim(start(home, acme))
    monkeypatch.setattr(Claims, "lease", _fails)

    with pytest.raises(MemoryError):
        hand.commit(claimed, begin(claimed, "one"), lease_next=True)

    assert [again.node for again in found_by(healer)] == ["one"]


def _fails(*args: Any, **more: Any) -> Any:
    raise MemoryError
