"""Many scenarios through one farm, several at a time."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from langgraph_sdk import get_client

from agentfarm.persistence.database import Database
from tests.contract.differential import through_farm
from tests.contract.differential.scenario import Record, Scenario
from tests.farm import FarmProcesses

Outcome = Record | Exception

#: Seconds between two lines that say how far it has come.
PROGRESS = 15.0


async def drive_all(
    scenarios: Iterable[Scenario],
    farm: FarmProcesses,
    store: Database,
    *,
    at_once: int,
    seconds: float,
    again: Callable[[Scenario, Record], bool] = lambda scenario, record: False,
) -> Mapping[str, Outcome]:
    """{name: what came of it}. An exception is kept: it is that scenario's failure and nobody else's.

    seconds  that one may take
    again    whether to drive it once more, on a new thread; the last record counts
    """
    chosen = list(scenarios)
    done: dict[str, Outcome] = {}
    ended: set[str] = set()
    gate = asyncio.Semaphore(at_once)
    async with get_client(url=farm.url, api_key=farm.keys["demo"]) as client:

        async def drive(scenario: Scenario) -> None:
            async with gate:
                try:
                    while True:
                        async with asyncio.timeout(seconds):
                            record = await through_farm.drive(scenario, farm, client, store)
                        done[scenario.name] = record
                        if not again(scenario, record):
                            return
                except Exception as error:
                    done[scenario.name] = error
                finally:
                    ended.add(scenario.name)

        async def tell() -> None:
            began = time.monotonic()
            while True:
                await asyncio.sleep(PROGRESS)
                left = [one.name for one in chosen if one.name not in ended]
                named = f": {', '.join(left)}" if len(left) <= at_once else ""
                print(f"{time.monotonic() - began:.0f} s: {len(ended)} done, {len(left)} left{named}", flush=True)

        telling = asyncio.create_task(tell())
        try:
            await asyncio.gather(*(drive(one) for one in chosen))
        finally:
            telling.cancel()
    return done
