"""What a scenario comes to through the farm is what it comes to by stock LangGraph, to the event."""

import asyncio
from collections.abc import Mapping

import pytest
from langgraph_sdk import get_client

from agentfarm.persistence.database import Database
from tests.contract.differential import stock, through_farm
from tests.contract.differential.compare import differences
from tests.contract.differential.scenario import Record, Scenario
from tests.contract.differential.served import SCENARIOS
from tests.farm import FarmProcesses

#: Scenarios at the same time. Three workers on two cores have enough to do.
AT_ONCE = 6

#: Of one scenario. Undisturbed, the slowest takes some.
SECONDS = 60.0


@pytest.fixture(scope="module")
def through_the_farm(farm: FarmProcesses, store: Database) -> Mapping[str, Record | Exception]:
    return asyncio.run(_drive_all(farm, store))


async def _drive_all(farm: FarmProcesses, store: Database) -> Mapping[str, Record | Exception]:
    done: dict[str, Record | Exception] = {}
    gate = asyncio.Semaphore(AT_ONCE)
    async with get_client(url=farm.url, api_key=farm.keys["demo"]) as client:

        async def drive(scenario: Scenario) -> None:
            async with gate:
                try:
                    async with asyncio.timeout(SECONDS):
                        done[scenario.name] = await through_farm.drive(scenario, farm, client, store)
                except Exception as error:  # the scenario's test fails with it
                    done[scenario.name] = error

        await asyncio.gather(*(drive(one) for one in SCENARIOS.values()))
    return done


@pytest.mark.timeout(300)  # the first one waits for all of them
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_comes_to_the_same(name: str, through_the_farm: Mapping[str, Record | Exception]) -> None:
    found = through_the_farm[name]
    if isinstance(found, Exception):
        raise found
    expected = stock.drive(SCENARIOS[name])

    assert not differences(expected, found, parallel=SCENARIOS[name].parallel)
