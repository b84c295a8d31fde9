"""How far a worker goes on by itself, and what makes it stop."""

from dataclasses import replace
from typing import Any, cast

import pytest

from agentfarm.engine.steps import NodeCall, RunSpec
from agentfarm.flow.ahead import TURN_SECONDS, Ahead
from agentfarm.messages import ExecuteNode
from agentfarm.records import Claimed
from agentfarm.run_options import RunAhead, RunOptions

MOST = RunAhead(nodes=10, seconds=1.0)


class Crowd:
    """A backlog, as the test says it is."""

    def __init__(self) -> None:
        self.is_ending = False
        self.waiting: set[str] = set()
        self.asked = 0

    def has_work(self, queue: str) -> bool:
        self.asked += 1
        return queue in self.waiting


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("agentfarm.clock.monotonic_seconds", made)
    return made


def work(message: ExecuteNode, *, queue: str | None = None, **options: Any) -> Claimed:
    run = RunSpec(
        str(message.run_id), "t", "g", None, {}, {}, options=RunOptions(**{"run_ahead_seconds": 1.0, **options})
    )
    call = NodeCall("n", ("__pregel_pull", "n"), True, 25, "", "c", "e", False, None, False, True, queue=queue)
    return Claimed(message, "node", message.run_id, run, call, fence=1, attempt=1, saver=cast("Any", None))


def test_a_run_that_asks_for_nothing_goes_no_further(message: ExecuteNode, crowd: Crowd) -> None:
    claimed = work(message)

    assert not Ahead(claimed, MOST, crowd).goes_on_after(claimed)


@pytest.mark.parametrize(("asked", "most", "went"), [(3, 10, 3), (50, 10, 10), (3, 0, 0)])
def test_it_goes_as_far_as_the_run_asks_and_the_operator_lets_it(
    message: ExecuteNode, crowd: Crowd, asked: int, most: int, went: int
) -> None:
    claimed = work(message, run_ahead_nodes=asked)
    ahead = Ahead(claimed, replace(MOST, nodes=most), crowd)

    gone = 0
    while ahead.goes_on_after(claimed):
        ahead.note()
        gone += 1

    assert gone == went


@pytest.mark.parametrize(("asked", "most"), [(0.4, 1.0), (5.0, 0.4)])
def test_it_stops_when_the_time_of_its_message_is_over(
    message: ExecuteNode, crowd: Crowd, clock: Clock, asked: float, most: float
) -> None:
    claimed = work(message, run_ahead_nodes=10, run_ahead_seconds=asked)
    ahead = Ahead(claimed, replace(MOST, seconds=most), crowd)

    clock.seconds += 0.39
    assert ahead.goes_on_after(claimed)
    clock.seconds += 0.02
    assert not ahead.goes_on_after(claimed)


def test_it_has_its_turn_and_then_lets_others_pass(message: ExecuteNode, crowd: Crowd, clock: Clock) -> None:
    claimed = work(message, run_ahead_nodes=10, queue="gpu")
    ahead = Ahead(claimed, MOST, crowd)
    crowd.waiting = {"gpu"}

    clock.seconds += TURN_SECONDS * 0.9
    assert ahead.goes_on_after(claimed)
    assert crowd.asked == 0
    clock.seconds += TURN_SECONDS * 0.2
    assert not ahead.goes_on_after(claimed)


def test_who_waits_for_another_queue_does_not_wait_for_this_worker(
    message: ExecuteNode, crowd: Crowd, clock: Clock
) -> None:
    claimed = work(replace(message, build="1.4"), run_ahead_nodes=10, queue="gpu")
    ahead = Ahead(claimed, MOST, crowd)
    clock.seconds += TURN_SECONDS * 2

    crowd.waiting = {"", "gpu", "io@1.4"}
    assert ahead.goes_on_after(claimed)
    crowd.waiting = {"gpu@1.4"}
    assert not ahead.goes_on_after(claimed)


def test_a_process_that_is_to_end_goes_no_further(message: ExecuteNode, crowd: Crowd) -> None:
    claimed = work(message, run_ahead_nodes=10)
    ahead = Ahead(claimed, MOST, crowd)

    crowd.is_ending = True

    assert not ahead.goes_on_after(claimed)


@pytest.mark.parametrize("changed", [{"attempt": 2}, {"kind": "advance"}], ids=str)
def test_what_was_lost_before_and_what_was_healed_is_executed_by_itself(
    message: ExecuteNode, crowd: Crowd, changed: dict[str, Any]
) -> None:
    claimed = replace(work(message, run_ahead_nodes=10), **changed)

    assert not Ahead(claimed, MOST, crowd).goes_on_after(claimed)
