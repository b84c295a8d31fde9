"""However a run is executed, a scenario comes to what it comes to by stock LangGraph: where a worker goes on with it by
itself, where Redis moves it, and both.

A sample of the corpus for each, by seed, as of test_equal_after_kills.py; twice as many, as nothing waits for healing.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest

from agentfarm.persistence.database import Database
from tests.contract.differential import stock
from tests.contract.differential.accepted import ACCEPTED
from tests.contract.differential.compare import differences
from tests.contract.differential.driving import Outcome, drive_all
from tests.contract.differential.served import SCENARIOS
from tests.contract.differential.test_equal import AT_ONCE, SECONDS
from tests.contract.differential.test_equal_after_kills import SAMPLE, SEED
from tests.farm import FarmProcesses

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "ahead": {"run_ahead": True},
    "redis": {"persistence": "redis"},
    "redis ahead": {"persistence": "redis", "run_ahead": True},
}


def _chosen(how: str) -> list[str]:
    comparable = [name for name in SCENARIOS if name not in ACCEPTED]
    if SAMPLE == "all":
        return comparable
    return sorted(random.Random(f"{SEED} {how}").sample(comparable, 2 * int(SAMPLE)))


CHOSEN = [(how, name) for how in OPTIONS for name in _chosen(how)]


@pytest.fixture(scope="module")
def executed(request: pytest.FixtureRequest, farm: FarmProcesses, store: Database) -> Mapping[tuple[str, str], Outcome]:
    """Of all scenarios that were asked for (-k)."""
    asked = [
        tuple(item.callspec.params[of] for of in ("how", "name")) for item in request.session.items if _compares(item)
    ]
    found: dict[tuple[str, str], Outcome] = {}
    for how in OPTIONS:
        scenarios = [SCENARIOS[name].asking(OPTIONS[how]) for one, name in asked if one == how]
        driven = asyncio.run(drive_all(scenarios, farm, store, at_once=AT_ONCE, seconds=SECONDS))
        found |= {(how, name): outcome for name, outcome in driven.items()}
    return found


def _compares(item: Any) -> bool:
    return bool(getattr(item, "originalname", "") == test_a_scenario_comes_to_the_same_however.__name__)


@pytest.mark.timeout(900)  # the first one waits for all of them
@pytest.mark.parametrize(("how", "name"), CHOSEN)
def test_a_scenario_comes_to_the_same_however(how: str, name: str, executed: Mapping[tuple[str, str], Outcome]) -> None:
    found = executed[how, name]
    if isinstance(found, Exception):
        raise found

    scenario = SCENARIOS[name]
    assert not differences(stock.drive(scenario), found, parallel=scenario.parallel), f"seed {SEED}"
