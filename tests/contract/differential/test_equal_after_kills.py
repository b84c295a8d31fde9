"""A worker may die at any instant, again and again: what a scenario comes to stays what it is by stock LangGraph.

Workers are killed (SIGKILL) while they hold nodes of scenarios that were not hit before. A sample of the corpus, by
seed: DIFFERENTIAL_SEED (today's date), DIFFERENTIAL_SAMPLE (how many; "all" in `make differential`, where each scenario
has to be hit).
"""

import asyncio
import os
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from agentfarm.persistence.database import Database
from tests.contract.differential import report, stock
from tests.contract.differential.accepted import ACCEPTED
from tests.contract.differential.compare import differences_after_kills
from tests.contract.differential.driving import Outcome, drive_all
from tests.contract.differential.killing import Killer
from tests.contract.differential.scenario import Record, Scenario
from tests.contract.differential.served import SCENARIOS
from tests.farm import FarmProcesses

#: They wait for healing more than for a core.
AT_ONCE = 10

#: Of one scenario, driven once. What its dead workers held is found within a second of their death; on a machine that
#: has ten times as much to do as it has cores, those that are to go on take minutes.
SECONDS = 300.0

SEED = os.environ.get("DIFFERENTIAL_SEED") or f"{datetime.now(UTC):%Y-%m-%d}"
SAMPLE = os.environ.get("DIFFERENTIAL_SAMPLE") or "8"

#: Seconds after which no scenario is driven again for want of a hit.
PATIENCE = 1200.0 if SAMPLE == "all" else 60.0

#: Of the scenarios, how many must be hit.
ENOUGH = 1.0 if SAMPLE == "all" else 0.5


def _chosen() -> list[str]:
    comparable = [name for name in SCENARIOS if name not in ACCEPTED]
    if SAMPLE == "all":
        return comparable
    return sorted(random.Random(SEED).sample(comparable, int(SAMPLE)))


CHOSEN = _chosen()


@pytest.fixture(scope="module")
def after_kills(request: pytest.FixtureRequest, farm: FarmProcesses, store: Database) -> Mapping[str, Outcome]:
    """Of all scenarios that were asked for (-k)."""
    asked = [item.callspec.params["name"] for item in request.session.items if _compares(item)]
    began, killer = time.monotonic(), Killer(farm, asked, SEED)

    def again(scenario: Scenario, record: Record) -> bool:
        if record.lost or time.monotonic() - began > PATIENCE:
            return False
        killer.unhit.add(scenario.name)
        return True

    with killer.at_work():
        found = asyncio.run(
            drive_all([SCENARIOS[name] for name in asked], farm, store, at_once=AT_ONCE, seconds=SECONDS, again=again)
        )
    print(f"seed {SEED}: {len(asked)} scenarios in {time.monotonic() - began:.0f} s; killed {killer.kills}")
    return found


def _compares(item: Any) -> bool:
    return bool(getattr(item, "originalname", "") == test_a_scenario_comes_to_the_same_after_kills.__name__)


@pytest.mark.timeout(3600 if SAMPLE == "all" else 900)  # the first one waits for all of them
@pytest.mark.parametrize("name", CHOSEN)
def test_a_scenario_comes_to_the_same_after_kills(name: str, after_kills: Mapping[str, Outcome]) -> None:
    found = after_kills[name]
    if isinstance(found, Exception):
        raise found

    report.note_kills(SCENARIOS[name], found.lost)
    scenario = SCENARIOS[name]
    assert not differences_after_kills(stock.drive(scenario), found, parallel=scenario.parallel), f"seed {SEED}"


def test_the_sample_was_hit(after_kills: Mapping[str, Outcome]) -> None:
    missed = [name for name, found in after_kills.items() if not (isinstance(found, Record) and found.lost)]

    assert len(missed) <= len(after_kills) * (1 - ENOUGH), missed
