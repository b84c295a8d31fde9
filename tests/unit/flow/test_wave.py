"""Which siblings are taken one after the other, and what happens where one of them takes long."""

import threading
from dataclasses import replace
from typing import Any, cast

import pytest

from agentfarm.engine.steps import NodeCall, RunSpec, SegmentResult
from agentfarm.errors import StoreUnavailable
from agentfarm.flow import wave
from agentfarm.flow.wave import LONG_SECONDS, MOST_NODES, SHORT_SECONDS, Durations, Waves
from agentfarm.messages import ExecuteNode
from agentfarm.records import Claimed
from tests.farm import wait_for


def call(name: str, *, queue: str | None = None, sole: bool = False) -> NodeCall:
    return NodeCall(name, ("__pregel_pull", name), sole, 25, "", "c", "e", False, None, False, True, queue=queue)


@pytest.fixture
def claimed(message: ExecuteNode) -> Claimed:
    run = RunSpec(str(message.run_id), "t", "g", None, {}, {})
    return Claimed(message, "node", message.run_id, run, call("split", sole=True), 1, 1, saver=cast("Any", None))


def known(most: int = 5, **seconds: float) -> Waves:
    waves = Waves(most)
    for name, one in seconds.items():
        waves.durations.note("g", name, one)
    return waves


def siblings(*calls: NodeCall) -> SegmentResult:
    return SegmentResult(next=calls)


@pytest.mark.parametrize(("width", "seconds", "sent"), [(2, 0.0, 0), (8, 0.0, 2), (8, 0.001, 4), (100, 0.0, 5)])
def test_of_short_siblings_as_many_are_sent_for_as_are_worth_a_message(
    claimed: Claimed, width: int, seconds: float, sent: int
) -> None:
    assert known(work=seconds).plan(claimed, siblings(*[call("work")] * width)) == sent


def test_what_was_not_seen_yet_is_sent_for(claimed: Claimed) -> None:
    assert known(work=0.0).plan(claimed, siblings(call("work"), call("new"))) is None


@pytest.mark.parametrize("long", [SHORT_SECONDS * 1.1, 10.0])
def test_where_one_sibling_is_long_each_is_sent_for(claimed: Claimed, long: float) -> None:
    assert known(work=0.0, long=long).plan(claimed, siblings(call("work"), call("long"))) is None


@pytest.mark.parametrize(("mine", "theirs"), [(None, "gpu"), ("gpu", None)])
def test_what_is_for_another_queue_is_sent_for(claimed: Claimed, mine: str | None, theirs: str | None) -> None:
    claimed.call = call("split", queue=mine)
    there = call("work", queue=theirs)

    assert known(work=0.0).plan(claimed, siblings(there, there)) is None
    assert known(work=0.0).plan(claimed, siblings(there, call("work", queue=mine))) is None
    assert known(work=0.0).plan(claimed, siblings(*[call("work", queue=mine)] * 2)) == 0


def test_one_node_is_no_wave_and_an_operator_may_have_none(claimed: Claimed) -> None:
    assert known(work=0.0).plan(claimed, siblings(call("work", sole=True))) is None
    assert known(work=0.0).plan(claimed, SegmentResult(status="success")) is None
    assert known(-1, work=0.0).plan(claimed, siblings(call("work"), call("work"))) is None


def test_a_nodes_duration_follows_what_it_takes(claimed: Claimed) -> None:
    durations = Durations()
    assert durations.find("g", "work") is None

    durations.note("g", "work", 1.0)
    assert durations.find("g", "work") == 1.0
    for _ in range(20):
        durations.note("g", "work", 0.0)

    assert 0 < cast("float", durations.find("g", "work")) < 0.01
    assert durations.find("another", "work") is None


def test_as_many_nodes_are_remembered_as_there_is_room_for(claimed: Claimed) -> None:
    durations = Durations()

    for n in range(MOST_NODES):
        durations.note("g", f"node{n}", 0.0)
    durations.note("g", "node0", 0.0)
    durations.note("g", "one more", 0.0)

    assert durations.find("g", "node1") is None  # for longest not executed
    assert durations.find("g", "node0") == durations.find("g", "node2") == 0.0


class Given:
    """What was given out of waves, by the watching thread."""

    def __init__(self, *errors: Exception) -> None:
        self.works: list[Claimed] = []
        self.most: list[int] = []
        self.errors = list(errors)

    def __call__(self, work: Claimed, most: int) -> None:
        self.works.append(work)
        self.most.append(most)
        if self.errors:
            raise self.errors.pop()


@pytest.fixture
def in_wave(claimed: Claimed) -> Claimed:
    return replace(claimed, call=call("work"), in_wave=True)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node takes long."""
    monkeypatch.setattr(wave, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(wave, "LOOK_SECONDS", 0.001)


@pytest.mark.usefixtures("at_once")
def test_the_longer_a_node_takes_the_more_siblings_are_sent_for(in_wave: Claimed) -> None:
    given = Given()
    other = replace(in_wave)

    with Waves(5, given).part() as part:
        with part.at(in_wave):
            wait_for(lambda: len(given.works) >= 3, what="three times")
        with part.at(other):
            wait_for(lambda: given.works[-1] is other, what="the other")

    assert given.most[:3] == [1, 2, 4]
    assert given.most[[work is other for work in given.works].index(True)] == 1


def test_a_node_that_takes_long_is_noticed_when_it_has_and_not_at_every_look(
    in_wave: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wave, "LOOK_SECONDS", 0.001)
    seconds = [10.0]
    monkeypatch.setattr("agentfarm.clock.monotonic_seconds", lambda: seconds[0])
    given = Given()

    with Waves(5, given).part() as part, part.at(in_wave):
        for after, times in ((1.1, 1), (2.1, 2), (4.1, 3)):
            seconds[0] = 10.0 + LONG_SECONDS * after
            wait_for(lambda times=times: len(given.most) == times, what="it, sent for")  # type: ignore[misc]

    assert given.most == [1, 2, 4]


@pytest.mark.usefixtures("at_once")
def test_the_watching_thread_outlives_a_database_that_is_away_and_ends_with_the_waves(in_wave: Claimed) -> None:
    given = Given(ValueError("a bug"), StoreUnavailable())
    waves = Waves(5, given)

    with waves.part() as part:
        for at in (1, 2, 3):
            with part.at(replace(in_wave)):
                wait_for(lambda at=at: len(given.works) >= at, what="it, sent for")  # type: ignore[misc]

    wait_for(lambda: waves._watcher is None, what="the end of the thread")
    assert "waves" not in {thread.name for thread in threading.enumerate()}


def test_who_is_in_no_wave_is_not_watched(claimed: Claimed) -> None:
    waves = Waves(5, Given())

    with waves.part() as part, part.at(claimed):
        assert waves._watcher is None


def test_short_is_shorter_than_long() -> None:
    assert SHORT_SECONDS < LONG_SECONDS
