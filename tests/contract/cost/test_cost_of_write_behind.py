"""What it costs to bring to Postgres what Redis alone has: one interval, for all threads of a process together.

Its clock is not there: an interval is a call.
"""

from collections.abc import Iterator

import pytest

from agentfarm import ids
from agentfarm.flow import read
from tests.contract.cost import graphs
from tests.contract.cost.farm import Cost, CountedFarm
from tests.tap import Traffic

pytestmark = pytest.mark.parametrize("farm", ["redis"], indirect=True, scope="module")

#: Threads that one transaction takes along (persistence/redis_tier/write_behind.py).
BATCH = 64

LARGE = 100_000

NOTHING = Cost(Traffic(), Traffic(), Traffic(), Traffic())


@pytest.fixture(autouse=True)
def at_rest(farm: CountedFarm) -> Iterator[None]:
    """Connections are made, statements prepared, scripts loaded; no run is left under way."""
    farm.run("line", {"log": []})
    yield
    farm.execute()


def begin_runs(farm: CountedFarm, threads: int, *, state_bytes: int = 1_000) -> None:
    """Each has committed its first node; the message of its second waits."""
    given = {"log": [], "ballast": graphs.ballast(state_bytes)}
    for _ in range(threads):
        farm.admit("line", given, thread_id=ids.new_id())
    begun = farm.execute(most=threads)
    assert [name for name, _ in begun] == ["line.start"] * threads


@pytest.mark.parametrize("threads", [1, 16, BATCH, BATCH + 1])
def test_an_interval_is_one_transaction_with_a_call_for_each_thread(farm: CountedFarm, threads: int) -> None:
    """So it grows by one round trip of Postgres a thread; its flushes do not, up to BATCH of them."""
    begin_runs(farm, threads)

    cost = farm.write_behind()

    transactions = -(-threads // BATCH)
    assert cost.postgres.said == {"BEGIN": transactions, "apply_entries": threads, "COMMIT": transactions}
    assert cost.postgres.round_trips == threads + 2 * transactions
    assert cost.redis.said == {"peek": threads, "trim": threads}
    assert not cost.streams.said
    assert not cost.broker.said


@pytest.mark.parametrize("threads", [1, 16])
def test_an_interval_goes_to_redis_twice_however_many_threads_there_are(farm: CountedFarm, threads: int) -> None:
    """Those of 16 are no more than redis-py sends in one go (6 kB). Of more, the first are answered before the last are
    sent: how often the tap sees that is the machine's mood."""
    begin_runs(farm, threads)

    assert farm.write_behind().redis.round_trips == 2


def test_an_interval_without_a_commit_costs_nothing(farm: CountedFarm) -> None:
    begin_runs(farm, 3)
    farm.write_behind()

    assert farm.write_behind() == NOTHING


def test_what_a_thread_has_committed_meanwhile_is_one_call(farm: CountedFarm) -> None:
    begin_runs(farm, 1)
    farm.execute(most=1)

    cost = farm.write_behind()

    assert cost.postgres.said == {"BEGIN": 1, "apply_entries": 1, "COMMIT": 1}
    assert cost.redis.said == {"peek": 1, "trim": 1}


def test_a_run_that_has_ended_meanwhile_costs_an_interval_nothing(farm: CountedFarm) -> None:
    """Whoever ended it has brought it: the row "last node" of test_cost_of_messages.py."""
    begin_runs(farm, 1)
    farm.execute()

    assert farm.write_behind() == NOTHING


def test_who_reads_a_thread_has_it_brought_by_one_call(farm: CountedFarm) -> None:
    begin_runs(farm, 1)
    thread_id = farm.collecting.messages[0].thread_id
    assert thread_id is not None
    before = farm.now()

    state = read.get_state(farm.farm, farm.tenant, thread_id)

    cost = farm.now() - before
    assert state["next"] == ["b"]
    assert cost.postgres.said["apply_entries"] == 1
    assert cost.redis.said == {"peek": 1, "trim": 1}


def test_what_was_brought_is_not_brought_again(farm: CountedFarm) -> None:
    """Of a large input three copies: input channel, write, the channel that it becomes. Its other commits name it."""
    begin_runs(farm, 1, state_bytes=LARGE)
    first = farm.write_behind()
    farm.execute(most=1)
    second = farm.write_behind()
    [(_, last)] = farm.execute()

    assert [brought(cost) for cost in (first, second)] == [(3, 3), (0, 0)]
    assert last.postgres.sent_bytes < LARGE


def brought(cost: Cost) -> tuple[int, int]:
    """Copies of the state that came from Redis, and that went to Postgres."""
    return cost.redis.received_bytes // LARGE, cost.postgres.sent_bytes // LARGE
