"""What each kind of message costs, in numbers that a machine's mood cannot change: round trips, statements, commands,
messages, bytes. A change that adds one fails here and is told what grew; one that saves one writes it into the table.

No clock: what these cost in time is for benchmarks/. Bytes are those on the wire, or in Postgres' write-ahead log.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.contract.cost import graphs
from tests.contract.cost.farm import Cost, Counted, CountedFarm

SMALL, LARGE = 1_000, 100_000


@dataclass(frozen=True, slots=True)
class Price:
    """What a message costs in one tier (conftest.py: TIERS).

    round_trips, statements   to Postgres and in it
    commands   to the Redis of streams
    messages   to the broker
    copies     how often the state's large part, which no node touches and which came as the run's input, travels to
               Postgres; from it to a worker that executed the run's last message; to one that never heard of the run
    beside     bytes to Postgres and from it beside the state, at most: ids, specs, metadata, protocol. 5 % above what
               was counted
    """

    round_trips: int
    statements: int
    commands: int = 0
    messages: int = 0
    copies: tuple[int, int, int] = (0, 0, 0)
    beside: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Row:
    """message  which of a run's: (graph, what Flower calls it, the so-manieth); None: the admission"""

    message: tuple[str, str, int] | None
    why: str
    price: Mapping[str, Price]


PRICES: Mapping[str, Row] = {
    "admission": Row(
        None,
        "farm.admit_alone, which is a transaction; the start is sent. The input is in the run's spec.",
        {"postgres": Price(1, 1, messages=1, copies=(1, 0, 0), beside=(950, 200))},
    ),
    "start and first node": Row(
        ("line", "line.start", 0),
        "Claim, commit that leases the first node to the same worker, commit of that node. The input comes with the "
        "spec, and is saved as LangGraph saves it: as input channel, as a write, as the channel that it becomes.",
        {"postgres": Price(3, 3, messages=1, copies=(3, 1, 1), beside=(5070, 1710))},
    ),
    "lone node": Row(
        ("line", "line.b", 0),
        "Claim and commit. The spec is read once by each worker, with the input in it; so is the state.",
        {"postgres": Price(2, 2, messages=1, copies=(0, 1, 2), beside=(2260, 2680))},
    ),
    "last node": Row(
        ("line", "line.c", 0),
        "Claim, commit that ends the run; its end is appended to the stream, and noted as told.",
        {"postgres": Price(3, 3, commands=1, copies=(0, 0, 2), beside=(1880, 2830))},
    ),
    "node that fans out": Row(
        ("fan_out", "fan_out.start", 0),
        "As any first node; a message for each Send.",
        {"postgres": Price(3, 3, messages=graphs.WIDTH, copies=(3, 1, 1), beside=(6850, 1720))},
    ),
    "sibling": Row(
        ("fan_out", "fan_out.item", 0),
        "Claim and settle. It needs its packet alone, and a worker that is new to the run gets spec and state.",
        {"postgres": Price(2, 2, copies=(0, 1, 2), beside=(570, 2940))},
    ),
    "last sibling, advance": Row(
        ("fan_out", "fan_out.item", -1),
        "Claim, settle that elects it, what its siblings wrote, commit.",
        {"postgres": Price(4, 4, messages=1, copies=(0, 0, 2), beside=(2770, 4250))},
    ),
}


class Runs:
    """One run of a kind, counted once, looked at by many tests."""

    def __init__(self, farm: CountedFarm) -> None:
        self.farm = farm
        self.counted: dict[tuple[str, int, str], Counted] = {}
        for graph_id in ("line", "fan_out"):
            farm.run(graph_id, _input(SMALL))  # connections are made, statements prepared, scripts loaded

    def get(self, graph_id: str, state_bytes: int, worker: str) -> Counted:
        key = (graph_id, state_bytes, worker)
        if key not in self.counted:
            if worker == "cold":
                with self.farm.forgetful():
                    self.counted[key] = self.farm.run(graph_id, _input(state_bytes))
            else:
                self.counted[key] = self.farm.run(graph_id, _input(state_bytes))
        return self.counted[key]

    def stated(self, name: str) -> Price:
        return PRICES[name].price[self.farm.tier]

    def cost(self, name: str, state_bytes: int, worker: str) -> Cost:
        if (message := PRICES[name].message) is None:
            return self.get("line", state_bytes, worker).admission
        graph_id, shadow, number = message
        return self.get(graph_id, state_bytes, worker).of(shadow, number)


def _input(state_bytes: int) -> dict[str, Any]:
    return {"log": [], "ballast": graphs.ballast(state_bytes)}


def priced(cost: Cost, *, like: Price) -> Price:
    """What was counted; of bytes nothing is said here."""
    return replace(
        like,
        round_trips=cost.postgres.round_trips,
        statements=cost.postgres.said.total(),
        commands=cost.streams.said.total(),
        messages=cost.broker.said["LPUSH"],
    )


@pytest.fixture(scope="module")
def runs(farm: CountedFarm) -> Runs:
    return Runs(farm)


@pytest.mark.parametrize("worker", ["warm", "cold"])
@pytest.mark.parametrize("state_bytes", [SMALL, LARGE])
@pytest.mark.parametrize("name", PRICES)
def test_a_message_costs_what_is_stated_whatever_the_size_of_its_state(
    runs: Runs, name: str, state_bytes: int, worker: str
) -> None:
    stated, cost = runs.stated(name), runs.cost(name, state_bytes, worker)

    counted = priced(cost, like=stated)

    assert counted == stated, f"{name}: {PRICES[name].why}\nstated  {stated}\ncounted {counted}\n{cost}"
    assert cost.broker.round_trips <= 1, f"{name}: what becomes ready together goes to the broker together"


@pytest.mark.parametrize("name", PRICES)
def test_a_large_state_travels_as_often_as_is_stated(runs: Runs, name: str) -> None:
    stated = runs.stated(name)
    warm, cold = runs.cost(name, LARGE, "warm").postgres, runs.cost(name, LARGE, "cold").postgres

    counted = tuple(size // LARGE for size in (warm.sent_bytes, warm.received_bytes, cold.received_bytes))

    assert counted == stated.copies, (
        f"{name}: {PRICES[name].why}\nof {LARGE} B of state {counted} copies were sent, received by the worker of the "
        f"message before, and received by another; {stated.copies} are stated"
    )
    assert cold.sent_bytes // LARGE == stated.copies[0]


@pytest.mark.parametrize("name", PRICES)
def test_what_is_told_beside_the_state_is_bounded(runs: Runs, name: str) -> None:
    stated, cost = runs.stated(name), runs.cost(name, SMALL, "cold").postgres
    sent, _, received = stated.copies

    beside = (cost.sent_bytes - sent * SMALL, cost.received_bytes - received * SMALL)

    for counted, most, direction in zip(beside, stated.beside, ("sent to Postgres", "received from it"), strict=True):
        assert counted <= most, f"{name}: {counted} B are {direction} beside the state, at most {most} are stated"
        assert counted > most * 0.85, (
            f"{name}: {counted} B are {direction}: less than is stated ({most}), write it down"
        )


#: A run of three nodes by one message: its claim, a commit for its input and for each node, its end is told.
GONE_AHEAD: Mapping[str, Price] = {"postgres": Price(6, 6, commands=1)}


def test_a_run_that_is_gone_ahead_with_costs_a_commit_a_node_and_no_message(farm: CountedFarm) -> None:
    run = farm.run("line", _input(SMALL), run_ahead=True)

    [(name, cost)] = run.messages
    assert name == "line.start"
    assert priced(cost, like=GONE_AHEAD[farm.tier]) == GONE_AHEAD[farm.tier], cost
    assert priced(run.admission, like=PRICES["admission"].price[farm.tier]) == PRICES["admission"].price[farm.tier]
