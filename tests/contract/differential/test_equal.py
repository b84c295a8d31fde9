"""What a scenario comes to through the farm is what it comes to by stock LangGraph, to the event."""

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest

from agentfarm.persistence.database import Database
from tests.contract.differential import report, stock
from tests.contract.differential.accepted import ACCEPTED
from tests.contract.differential.compare import differences
from tests.contract.differential.driving import Outcome, drive_all
from tests.contract.differential.served import SCENARIOS
from tests.farm import FarmProcesses

#: Three workers on two cores have enough to do with as many.
AT_ONCE = 6

#: Of one scenario. On an idle machine the slowest takes two; where each core has ten processes waiting, a minute.
SECONDS = 180.0


@pytest.fixture(scope="module")
def through_the_farm(request: pytest.FixtureRequest, farm: FarmProcesses, store: Database) -> Mapping[str, Outcome]:
    """Of all scenarios that were asked for (-k)."""
    asked = [item.callspec.params["name"] for item in request.session.items if _compares(item)]
    began = time.monotonic()
    found = asyncio.run(drive_all([SCENARIOS[name] for name in asked], farm, store, at_once=AT_ONCE, seconds=SECONDS))
    print(f"{len(found)} scenarios in {time.monotonic() - began:.0f} s")
    return found


def _compares(item: Any) -> bool:
    return bool(getattr(item, "originalname", "") == test_a_scenario_comes_to_the_same.__name__)


@pytest.mark.timeout(900)  # the first one waits for all of them
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_comes_to_the_same(name: str, through_the_farm: Mapping[str, Outcome]) -> None:
    found = through_the_farm[name]
    if isinstance(found, Exception):
        raise found

    told = differences(stock.drive(SCENARIOS[name]), found, parallel=SCENARIOS[name].parallel)

    report.note(SCENARIOS[name], told)
    accepted = ACCEPTED.get(name)
    assert not [one for one in told if accepted is None or not re.match(accepted.places, one)]
    assert told or not accepted, "this difference is gone: take it out of accepted.py"


def test_there_are_enough_scenarios() -> None:
    assert len(SCENARIOS) >= 120
    assert set(ACCEPTED) <= set(SCENARIOS)
