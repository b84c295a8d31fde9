"""What each kind of message costs, in numbers that a machine's mood cannot change: round trips, statements, commands,
messages, bytes. A change that adds one fails here and is told what grew; one that saves one writes it into the table.

No clock: what these cost in time is for benchmarks/. Bytes are those on the wire, or in Postgres' write-ahead log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from agentfarm import ids
from tests.contract.cost import graphs
from tests.contract.cost.farm import Cost, Counted, CountedFarm
from tests.contract.cost.prices import Copies, Price, priced
from tests.tap import Traffic

SMALL, LARGE = 1_000, 100_000


@dataclass(frozen=True, slots=True)
class Row:
    """message  which of a run's: (graph, what Flower calls it, the so-manieth); None: the admission"""

    message: tuple[str, str, int] | None
    why: str
    price: Mapping[str, Price]


#: Of a run that Redis moves and a message ends: what Postgres is asked, and what Redis is.
ARRIVES = {"apply_entries": 1, "mark_announced": 1}
ENDS = {"claim": 1, "finish": 1, "peek": 1, "trim": 1}

PRICES: Mapping[str, Row] = {
    "admission": Row(
        None,
        "farm.admit_alone, which is a transaction; the start is sent. The input is in the run's spec. Of Redis nothing "
        "is asked.",
        {
            "postgres": Price(1, {"admit_alone": 1}, messages=1, copies=(1, 0, 0), beside=(950, 200)),
            "redis": Price(1, {"admit_alone": 1}, messages=1, copies=(1, 0, 0), beside=(960, 200)),
        },
    ),
    "start and first node": Row(
        ("line", "line.start", 0),
        "Claim, commit that leases the first node to the same worker, commit of that node. The input comes with the "
        "spec, and is saved as LangGraph saves it: as input channel, as a write, as the channel that it becomes. Redis "
        "is given the spec and the new checkpoint to claim from, besides what is Postgres'.",
        {
            "postgres": Price(3, {"claim": 1, "commit": 2}, messages=1, copies=(3, 1, 1), beside=(5070, 1710)),
            "redis": Price(
                1,
                {"claim": 1},
                {"open": 1, "finish": 2},
                messages=1,
                copies=(0, 1, 1),
                beside=(205, 1350),
                redis_copies=(5, 0, 0),
                redis_beside=(8000, 52),
            ),
        },
    ),
    "lone node": Row(
        ("line", "line.b", 0),
        "Claim and commit. The spec is read once by each worker, with the input in it; so is the state.",
        {
            "postgres": Price(2, {"claim": 1, "commit": 1}, messages=1, copies=(0, 1, 2), beside=(2260, 2680)),
            "redis": Price(
                0, {}, {"claim": 1, "finish": 1}, messages=1, redis_copies=(0, 1, 2), redis_beside=(3720, 1940)
            ),
        },
    ),
    "last node": Row(
        ("line", "line.c", 0),
        "Claim, commit that ends the run; its end is appended to the stream, and noted as told. What Redis alone has "
        "is asked for, brought to Postgres, and forgotten.",
        {
            "postgres": Price(
                3, {"claim": 1, "commit": 1, "mark_announced": 1}, commands=1, copies=(0, 0, 2), beside=(1880, 2830)
            ),
            "redis": Price(
                2,
                ARRIVES,
                ENDS,
                commands=1,
                copies=(3, 0, 0),
                beside=(7320, 375),
                redis_copies=(0, 3, 5),
                redis_beside=(3280, 8430),
            ),
        },
    ),
    "node that fans out": Row(
        ("fan_out", "fan_out.start", 0),
        "As any first node; a message for each Send.",
        {
            "postgres": Price(
                3, {"claim": 1, "commit": 2}, messages=graphs.WIDTH, copies=(3, 1, 1), beside=(6850, 1720)
            ),
            "redis": Price(
                1,
                {"claim": 1},
                {"open": 1, "finish": 2},
                messages=graphs.WIDTH,
                copies=(0, 1, 1),
                beside=(205, 1360),
                redis_copies=(5, 0, 0),
                redis_beside=(11270, 52),
            ),
        },
    ),
    "sibling": Row(
        ("fan_out", "fan_out.item", 0),
        "Claim and settle. It needs its packet alone, and a worker that is new to the run gets spec and state.",
        {
            "postgres": Price(2, {"claim": 1, "settle": 1}, copies=(0, 1, 2), beside=(570, 2940)),
            "redis": Price(0, {}, {"claim": 1, "settle": 1}, redis_copies=(0, 1, 2), redis_beside=(1320, 2260)),
        },
    ),
    "last sibling, advance": Row(
        ("fan_out", "fan_out.item", -1),
        "Claim, settle that elects it, what its siblings wrote, commit.",
        {
            "postgres": Price(
                4,
                {"claim": 1, "settle": 1, "load_step": 1, "commit": 1},
                messages=1,
                copies=(0, 0, 2),
                beside=(2770, 4250),
            ),
            "redis": Price(
                0,
                {},
                {"claim": 1, "settle": 1, "step": 1, "finish": 1},
                messages=1,
                redis_copies=(0, 0, 2),
                redis_beside=(4880, 3170),
            ),
        },
    ),
    "node that gathers": Row(
        ("fan_out", "fan_out.e", 0),
        "As any last node, whatever its siblings were.",
        {
            "postgres": Price(
                3, {"claim": 1, "commit": 1, "mark_announced": 1}, commands=1, copies=(0, 0, 2), beside=(1910, 2800)
            ),
            "redis": Price(
                2,
                ARRIVES,
                ENDS,
                commands=1,
                copies=(3, 0, 0),
                beside=(9920, 375),
                redis_copies=(0, 3, 5),
                redis_beside=(3330, 11370),
            ),
        },
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
    warm, cold = runs.cost(name, LARGE, "warm"), runs.cost(name, LARGE, "cold")

    counted = copies(warm.postgres, cold.postgres), copies(warm.redis, cold.redis)

    assert counted == (stated.copies, stated.redis_copies), (
        f"{name}: {PRICES[name].why}\nof {LARGE} B of state {counted} copies were sent, received by the worker of the "
        f"message before, and received by another: of Postgres, and of Redis; {stated.copies} and "
        f"{stated.redis_copies} are stated"
    )
    assert (cold.postgres.sent_bytes // LARGE, cold.redis.sent_bytes // LARGE) == (counted[0][0], counted[1][0])


def copies(warm: Traffic, cold: Traffic) -> Copies:
    return warm.sent_bytes // LARGE, warm.received_bytes // LARGE, cold.received_bytes // LARGE


@pytest.mark.parametrize("name", PRICES)
def test_what_is_told_beside_the_state_is_bounded(runs: Runs, name: str) -> None:
    stated, cost = runs.stated(name), runs.cost(name, SMALL, "cold")

    for server, traffic, (sent, _, received), most in (
        ("Postgres", cost.postgres, stated.copies, stated.beside),
        ("Redis", cost.redis, stated.redis_copies, stated.redis_beside),
    ):
        check_beside(f"{name}: sent to {server}", traffic.sent_bytes - sent * SMALL, most[0])
        check_beside(f"{name}: received from {server}", traffic.received_bytes - received * SMALL, most[1])


def check_beside(what: str, counted: int, most: int) -> None:
    assert counted <= most, f"{what}: {counted} B beside the state, at most {most} are stated"
    assert counted > most * 0.85 or most == 0, f"{what}: {counted} B is less than is stated ({most}), write it down"


#: How often a large state that an earlier run has left, which this one does not touch, travels to workers each of which
#: is new to it: (to Postgres, from Postgres, to Redis, from Redis). A run begins in Redis with all of it.
LEFT: Mapping[str, Mapping[str, tuple[int, int, int, int]]] = {
    "line.start": {"postgres": (0, 1, 0, 0), "redis": (0, 1, 1, 0)},
    "line.b": {"postgres": (0, 1, 0, 0), "redis": (0, 0, 0, 1)},
    "line.c": {"postgres": (0, 1, 0, 0), "redis": (0, 0, 0, 1)},
}


def test_a_worker_that_is_new_to_a_run_is_given_its_state_once(farm: CountedFarm) -> None:
    thread_id = ids.new_id()
    farm.run("line", _input(LARGE), thread_id=thread_id)

    with farm.forgetful():
        run = farm.run("line", {"log": []}, thread_id=thread_id)

    counted = {
        name: tuple(
            size // LARGE
            for traffic in (cost.postgres, cost.redis)
            for size in (traffic.sent_bytes, traffic.received_bytes)
        )
        for name, cost in run.messages
    }
    assert counted == {name: stated[farm.tier] for name, stated in LEFT.items()}


#: A run of three nodes by one message: its claim, a commit for its input and for each node, its end is told.
GONE_AHEAD: Mapping[str, Price] = {
    "postgres": Price(6, {"claim": 1, "commit": 4, "mark_announced": 1}, commands=1),
    "redis": Price(3, {"claim": 1, **ARRIVES}, {"open": 1, "finish": 4, "peek": 1, "trim": 1}, commands=1),
}


def test_a_run_that_is_gone_ahead_with_costs_a_commit_a_node_and_no_message(farm: CountedFarm) -> None:
    run = farm.run("line", _input(SMALL), run_ahead=True)

    [(name, cost)] = run.messages
    assert name == "line.start"
    assert priced(cost, like=GONE_AHEAD[farm.tier]) == GONE_AHEAD[farm.tier], cost
    assert priced(run.admission, like=PRICES["admission"].price[farm.tier]) == PRICES["admission"].price[farm.tier]
