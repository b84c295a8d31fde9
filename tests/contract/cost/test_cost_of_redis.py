"""What a run costs that Redis moves: Postgres at its beginning and at its end, a script for each claim and commit.

What is written behind meanwhile is not in it: it is one transaction a half second, for all threads of a process.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from agentfarm.persistence.executions import PostgresExecutions
from agentfarm.run_options import RunChoices
from tests.contract.cost.farm import Counted, CountedFarm

#: {message: (what Postgres is asked, what Redis is asked)}
PRICES: Mapping[str, tuple[Mapping[str, int], int]] = {
    # The claim reads, and writes nothing. Opened, its input committed, its first node committed.
    "line.start": ({"claim": 1}, 3),
    # Claimed, committed.
    "line.b": ({}, 2),
    # … and what Postgres lacks is asked for, applied, forgotten; the stream is told the end, which is noted.
    "line.c": ({"apply_entries": 1, "mark_announced": 1}, 5),
}


@pytest.fixture(scope="module")
def run(farm: CountedFarm) -> Counted:
    executions: Any = farm.farm.executions
    assert isinstance(executions, PostgresExecutions)
    assert executions.claims.redis is not None
    executions.claims.redis.behind.begin = lambda: None  # type: ignore[method-assign]  # no clock: its thread is not there
    farm.choices = RunChoices(persistence="redis")
    farm.run("line", {"log": [], "ballast": ""})  # connections are made, scripts loaded
    return farm.run("line", {"log": [], "ballast": ""})


@pytest.mark.parametrize("message", PRICES)
def test_a_message_costs_what_is_stated(run: Counted, message: str) -> None:
    cost = run.of(message)

    said = {what: count for what, count in cost.postgres.said.items() if count}
    assert (said, cost.streams.said.total()) == PRICES[message], cost


def test_its_admission_is_that_of_any_run(run: Counted) -> None:
    assert run.admission.postgres.round_trips == 1
    assert run.admission.streams.said.total() == 0
