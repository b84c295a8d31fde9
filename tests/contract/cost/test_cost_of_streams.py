"""What tokens cost on their way through Redis: the first leaves at once, what is said meanwhile leaves together.

Whoever moves the run: its figures are the same in each tier, and nobody but the Redis of streams is asked.

The node and its reader are held and let go by facts (what the tap has heard, what the reader has got), never by time.
"""

import asyncio
import threading
from collections.abc import Callable
from itertools import pairwise
from uuid import UUID

import pytest

from agentfarm.flow.watch import FROM_THE_START
from agentfarm.records import Event
from agentfarm.streaming import stream
from agentfarm.streaming.log import PAGE
from tests.contract.cost import graphs
from tests.contract.cost.farm import CountedFarm
from tests.farm import wait_for
from tests.tap import script

#: Commands that append, of which each is one script for one run's stream.
APPEND = script(stream.APPEND.sha)

#: Events that one command may bring (streaming/writer.py).
BATCH = 500

#: The command that reads a page of events.
READ = script(stream.READ.sha)


@pytest.fixture
def after_token(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Has the speaking node call this after each of its tokens."""
    return lambda called: monkeypatch.setattr(graphs, "after_token", called)


@pytest.fixture(autouse=True)
def warm(farm: CountedFarm) -> None:
    """Connections are made, scripts are loaded."""
    farm.run("speaker", {"tokens": 1}, stream_mode=["custom"])


def appends(farm: CountedFarm) -> int:
    return farm.streams.traffic().said[APPEND]


def test_a_run_that_nobody_streams_says_its_end_alone(farm: CountedFarm) -> None:
    counted = farm.run("speaker", {"tokens": 50})

    assert counted.whole.streams.said == {APPEND: 1}


def test_a_token_that_is_waited_for_is_one_command_and_one_round_trip(
    farm: CountedFarm, after_token: Callable[[Callable[[int], None]], None]
) -> None:
    told = []

    def note(number: int) -> None:
        farm.farm.log.flush()
        told.append(farm.now())

    after_token(note)
    farm.run("speaker", {"tokens": 20}, stream_mode=["custom"])

    each = [after - before for before, after in pairwise(told)]
    assert [(one.streams.round_trips, dict(one.streams.said)) for one in each] == [(1, {APPEND: 1})] * 19
    assert not any(one.postgres.said or one.redis.said or one.broker.said for one in each)


@pytest.mark.parametrize("tokens", [200, 1200])
def test_the_first_token_leaves_at_once_and_what_is_said_meanwhile_leaves_together(
    farm: CountedFarm, after_token: Callable[[Callable[[int], None]], None], tokens: int
) -> None:
    """Redis takes as long to answer the first as the node to say all the others."""
    begun = 0
    holding = farm.streams.holding_answers()

    def hold(number: int) -> None:
        nonlocal begun
        if number == 0:
            farm.farm.log.flush()
            begun = appends(farm)
            holding.__enter__()
        if number == 1:
            wait_for(lambda: appends(farm) == begun + 1, what="the token is on its way before the next is made")
        if number == tokens - 1:
            assert appends(farm) == begun + 1, "nothing is sent while the answer to the first is awaited"
            holding.__exit__(None, None, None)

    after_token(hold)
    farm.run("speaker", {"tokens": tokens}, stream_mode=["custom"])

    batches = -(-(tokens - 2) // BATCH)
    assert appends(farm) == begun + 1 + batches + 1, "one for the first, one a batch, one for the end"


def test_events_of_a_message_are_waited_for_once_before_its_commit(farm: CountedFarm) -> None:
    """A node's update and values, and its commit, whatever the number of modes: at most a command an event."""
    counted = farm.run("line", {"log": []}, stream_mode=["values", "updates", "custom", "tasks"])

    lone = counted.of("line.b").streams
    assert 1 <= lone.said[APPEND] <= 5, lone  # an update, values, two of tasks; as many as leave together are one
    assert set(lone.said) == {APPEND}


# --------------------------------------------------------------------------- reading


class Reader(threading.Thread):
    """Follows a run on an event loop of its own, as the web process does."""

    def __init__(self, farm: CountedFarm, run_id: UUID) -> None:
        super().__init__(daemon=True)
        self.farm, self.run_id = farm, run_id
        self.got: list[Event] = []

    def run(self) -> None:
        asyncio.run(self._follow())

    async def _follow(self) -> None:
        log = self.farm.farm.log
        async for event in log.follow(self.farm.tenant.id, self.run_id, after=FROM_THE_START):
            if event is not None:
                self.got.append(event)
        await log.aclose()  # type: ignore[attr-defined]  # of the real log: its loop ends here


def _tokens(reader: Reader) -> int:
    return sum(event.name == "custom" for event in reader.got)


def read_commands(farm: CountedFarm) -> int:
    """All that the farm says to Redis but what appends, and the question whether a silent connection is alive."""
    said = farm.streams.traffic().said
    return said.total() - said[APPEND] - said["PING"]


def test_a_token_that_comes_alone_is_read_by_one_command(
    farm: CountedFarm, after_token: Callable[[Callable[[int], None]], None]
) -> None:
    readers: list[Reader] = []
    counted = []

    def read(number: int) -> None:
        farm.farm.log.flush()
        if not readers:
            readers.append(Reader(farm, farm.run_ids[-1]))
            readers[0].start()
        wait_for(lambda: _tokens(readers[0]) == number + 1, what=f"token {number} at the reader")
        counted.append(read_commands(farm))

    after_token(read)
    farm.run("speaker", {"tokens": 10}, stream_mode=["custom"])
    readers[0].join(20)

    # The first look is one of several: whether the run is over by then.
    assert [after - before for before, after in pairwise(counted)] == [1] * 9
    assert [event.name for event in readers[0].got] == ["metadata", *["custom"] * 10, "end"]


def test_tokens_that_left_together_are_read_together(farm: CountedFarm) -> None:
    counted = farm.run("speaker", {"tokens": 1000}, stream_mode=["custom"])
    before = farm.streams.traffic().said[READ]

    reader = Reader(farm, counted.run_id)
    reader.start()
    reader.join(20)

    assert _tokens(reader) == 1000
    assert farm.streams.traffic().said[READ] - before == -(-1002 // PAGE)
