"""What a turn of a chat costs when its history is short and when it is long; what a run writes to disk.

A channel that keeps its messages as one value is saved by what was added (persistence/pieces.py), where stock saves all
of it in each step. A DeltaChannel is made whole again by reading, which is what its rows here are about.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from agentfarm import ids
from agentfarm.persistence.serde import serde_of
from tests.contract.cost import graphs
from tests.contract.cost.farm import Counted, CountedFarm

SHORT, LONG = 10, 1_000

#: Of one message in a history, in letters.
MESSAGE = 100


@dataclass(frozen=True, slots=True)
class Turn:
    """A message comes in, one node answers.

    round_trips, statements        to Postgres and in it
    scripts                        {script: how often} to the Redis that moves runs
    sent, received                 how many times as much goes to Postgres, and comes from it, as the history is long
    redis_sent, redis_received     the same of the Redis that moves runs
    log_bytes                      in Postgres' write-ahead log at a short history, at most
    """

    round_trips: int
    statements: int
    sent: int
    received: int
    log_bytes: int
    scripts: Mapping[str, int] = field(default_factory=dict)
    redis_sent: int = 0
    redis_received: int = 0


TURNS: Mapping[str, Mapping[str, Turn]] = {
    # Admission, claim, two commits, the end is told. Read once.
    "chat": {
        "postgres": Turn(5, 5, sent=0, received=1, log_bytes=15_000),
        # Admission, claim, what Redis has is brought, the end is told. Read by the claim, and given to Redis, where the
        # run begins.
        "redis": Turn(
            4,
            4,
            sent=0,
            received=1,
            log_bytes=15_000,
            scripts={"open": 1, "finish": 2, "peek": 1, "trim": 1},
            redis_sent=1,
            redis_received=0,
        ),
    },
    # One more transaction, to read the writes of a line of checkpoints (BEGIN, three SELECTs, COMMIT).
    "delta_chat": {
        "postgres": Turn(10, 10, sent=0, received=1, log_bytes=12_000),
        # Before it, Redis is asked for what Postgres lacks, which is nothing at a start. What the end brings is no
        # history.
        "redis": Turn(
            9,
            9,
            sent=0,
            received=1,
            log_bytes=13_500,
            scripts={"open": 1, "finish": 2, "peek": 1 + 1, "trim": 1},
            redis_sent=0,
            redis_received=0,
        ),
    },
}


@dataclass(frozen=True, slots=True)
class Taken:
    """A turn, and what it wrote. The least of several: an index's page splits in one turn and not in another."""

    turn: Counted
    log_bytes: int


class Chats:
    def __init__(self, farm: CountedFarm) -> None:
        self.farm = farm
        self.taken: dict[tuple[str, int], Taken] = {}
        for graph_id in TURNS:
            self._turn(graph_id, self._begin(graph_id, SHORT))  # connections, prepared statements

    def get(self, graph_id: str, history: int) -> Taken:
        key = (graph_id, history)
        if key not in self.taken:
            thread_id = self._begin(graph_id, history)
            turns = [self._turn(graph_id, thread_id) for _ in range(3)]
            self.taken[key] = Taken(turns[0].turn, min(turn.log_bytes for turn in turns))
        return self.taken[key]

    def _begin(self, graph_id: str, history: int) -> UUID:
        thread_id = ids.new_id()
        said = [
            {"role": ("user", "assistant")[number % 2], "content": f"{number:0{MESSAGE}}"}
            for number in range(history - 1)
        ]
        self.farm.run(graph_id, {"messages": said}, thread_id=thread_id)
        return thread_id

    def _turn(self, graph_id: str, thread_id: UUID) -> Taken:
        with self.farm.logged() as written:
            turn = self.farm.run(
                graph_id, {"messages": [{"role": "user", "content": "Is it so?"}]}, thread_id=thread_id
            )
        return Taken(turn, written[0])


@pytest.fixture(scope="module")
def chats(farm: CountedFarm) -> Chats:
    return Chats(farm)


@pytest.mark.parametrize("history", [SHORT, LONG])
@pytest.mark.parametrize("graph_id", TURNS)
def test_a_turn_costs_as_many_round_trips_whatever_the_history(chats: Chats, graph_id: str, history: int) -> None:
    stated = TURNS[graph_id][chats.farm.tier]
    whole = chats.get(graph_id, history).turn.whole

    counted = replace(
        stated,
        round_trips=whole.postgres.round_trips,
        statements=whole.postgres.said.total(),
        scripts=dict(whole.redis.said),
    )

    assert counted == stated, f"a turn at message {history}\nstated  {stated}\ncounted {counted}\n{whole}"
    assert (whole.streams.said.total(), whole.broker.said.total()) == (1, 1), whole
    assert whole.redis.round_trips == whole.redis.said.total(), whole


@pytest.mark.parametrize("graph_id", TURNS)
def test_the_history_travels_as_often_as_is_stated(chats: Chats, graph_id: str) -> None:
    stated = TURNS[graph_id][chats.farm.tier]
    short, long = (chats.get(graph_id, history).turn.whole for history in (SHORT, LONG))
    more = long - short
    # What a history's length makes of one message: the text is a third, the rest is names of fields.
    size = _serialised(LONG) - _serialised(SHORT)

    counted = replace(
        stated,
        sent=round(more.postgres.sent_bytes / size),
        received=round(more.postgres.received_bytes / size),
        redis_sent=round(more.redis.sent_bytes / size),
        redis_received=round(more.redis.received_bytes / size),
    )

    assert counted == stated, f"{graph_id}: of {size} B of history\nstated  {stated}\ncounted {counted}\n{more}"


def _serialised(history: int) -> int:
    """Bytes of so many messages as one value: what a plain channel is received as."""
    said = [
        (HumanMessage, AIMessage)[number % 2](f"{number:0{MESSAGE}}", id=str(ids.new_id())) for number in range(history)
    ]
    return len(serde_of(None).dumps_typed(said)[1])


@pytest.mark.parametrize("graph_id", TURNS)
def test_a_turn_writes_no_more_than_is_stated(chats: Chats, graph_id: str) -> None:
    most, written = TURNS[graph_id][chats.farm.tier].log_bytes, chats.get(graph_id, SHORT).log_bytes

    assert written <= most, f"{graph_id}: a turn writes {written} B of write-ahead log, at most {most} are stated"
    assert written > most * 0.8, f"{graph_id}: a turn writes {written} B, less than is stated ({most}): write it down"


@pytest.mark.parametrize("graph_id", TURNS)
def test_a_turn_writes_as_much_after_a_long_history_as_after_a_short_one(chats: Chats, graph_id: str) -> None:
    short, long = chats.get(graph_id, SHORT).log_bytes, chats.get(graph_id, LONG).log_bytes

    assert long <= short * 1.1, f"a turn writes {short} B at message {SHORT}, {long} B at message {LONG}"


#: What a run writes, from its admission to its end, at most, with 1 kB of state.
RUNS: Mapping[str, Mapping[str, int]] = {
    "line": {"postgres": 25_000, "redis": 24_000},
    "fan_out": {"postgres": 33_000, "redis": 29_000},
}


@pytest.mark.parametrize("graph_id", RUNS)
def test_a_run_writes_no_more_than_is_stated(farm: CountedFarm, graph_id: str) -> None:
    most, told = RUNS[graph_id][farm.tier], []

    for _ in range(4):
        with farm.logged() as written:
            farm.run(graph_id, {"log": [], "ballast": graphs.ballast(1_000)})
        told.append(written[0])

    assert min(told) <= most, f"{graph_id}: runs write {told} B of write-ahead log, at most {most} are stated"
    assert min(told) > most * 0.8, f"{graph_id}: runs write {told} B, less than is stated ({most}): write it down"
