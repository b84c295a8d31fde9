"""Where a worker goes on with a run by itself, a scenario comes to what it comes to with a message for each node.

A sample of the corpus, by seed, as of test_equal_after_kills.py; three times as many, since nothing waits for healing.
"""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from agentfarm.persistence.database import Database
from tests.contract.differential import stock
from tests.contract.differential.accepted import ACCEPTED
from tests.contract.differential.compare import differences
from tests.contract.differential.driving import Outcome, drive_all
from tests.contract.differential.scenario import Run, Scenario
from tests.contract.differential.served import SCENARIOS
from tests.contract.differential.test_equal import AT_ONCE, SECONDS
from tests.contract.differential.test_equal_after_kills import SAMPLE, SEED
from tests.farm import FarmProcesses

OPTIONS = {"agentfarm": {"run_ahead": True}}


def _chosen() -> list[str]:
    comparable = [name for name in SCENARIOS if name not in ACCEPTED]
    if SAMPLE == "all":
        return comparable
    return sorted(random.Random(f"{SEED} ahead").sample(comparable, 3 * int(SAMPLE)))


CHOSEN = _chosen()


def _ahead(scenario: Scenario) -> Scenario:
    steps = (
        replace(step, config={**step.config, **OPTIONS}) if isinstance(step, Run) else step for step in scenario.steps
    )
    return replace(scenario, steps=tuple(steps))


@pytest.fixture(scope="module")
def going_ahead(request: pytest.FixtureRequest, farm: FarmProcesses, store: Database) -> Mapping[str, Outcome]:
    """Of all scenarios that were asked for (-k)."""
    asked = [item.callspec.params["name"] for item in request.session.items if _compares(item)]
    scenarios = [_ahead(SCENARIOS[name]) for name in asked]
    return asyncio.run(drive_all(scenarios, farm, store, at_once=AT_ONCE, seconds=SECONDS))


def _compares(item: Any) -> bool:
    return bool(getattr(item, "originalname", "") == test_a_scenario_comes_to_the_same_ahead.__name__)


@pytest.mark.timeout(900)  # the first one waits for all of them
@pytest.mark.parametrize("name", CHOSEN)
def test_a_scenario_comes_to_the_same_ahead(name: str, going_ahead: Mapping[str, Outcome]) -> None:
    found = going_ahead[name]
    if isinstance(found, Exception):
        raise found

    scenario = SCENARIOS[name]
    assert not differences(stock.drive(scenario), found, parallel=scenario.parallel), f"seed {SEED}"
