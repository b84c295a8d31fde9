"""Replay, then follow."""

import pytest

from agentfarm.errors import NotFound
from agentfarm.flow.farm import Farm
from agentfarm.flow.watch import stream_run
from agentfarm.records import Event, RunRow
from agentfarm.tenancy import Tenant
from tests.unit.flow.world import World, over

TOLD = ["metadata", "values", "updates|child:1", "messages", "messages/partial", "custom", "error", "end"]


async def names(farm: Farm, tenant: Tenant, row: RunRow, modes: list[str] | None) -> list[str]:
    return [event.name async for event in stream_run(farm, tenant, row.run_id, modes=modes) if event is not None]


@pytest.mark.parametrize(
    ("modes", "passed"),
    [
        (None, TOLD),
        ([], ["metadata", "error", "end"]),
        (["values"], ["metadata", "values", "error", "end"]),
        (["updates"], ["metadata", "updates|child:1", "error", "end"]),
        (["messages-tuple"], ["metadata", "messages", "error", "end"]),
        (["messages"], ["metadata", "messages/partial", "error", "end"]),
    ],
    ids=str,
)
async def test_a_follower_gets_the_modes_that_it_asked_for(
    farm: Farm, world: World, tenant: Tenant, run_row: RunRow, modes: list[str] | None, passed: list[str]
) -> None:
    world.runs[run_row.run_id] = run_row
    world.events = [Event(name, b"{}") for name in TOLD]

    assert await names(farm, tenant, run_row, modes) == passed


async def test_a_run_that_was_over_long_ago_still_ends_its_stream(
    farm: Farm, world: World, tenant: Tenant, run_row: RunRow
) -> None:
    world.runs[run_row.run_id] = over(run_row)

    assert await names(farm, tenant, run_row, None) == ["end"]


async def test_a_run_that_does_not_exist_is_not_followed(farm: Farm, tenant: Tenant, run_row: RunRow) -> None:
    with pytest.raises(NotFound):
        await names(farm, tenant, run_row, None)
