"""A farm over the fakes of world.py."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from langgraph.cache.memory import InMemoryCache

from agentfarm.flow.farm import Farm
from agentfarm.ids import new_id
from agentfarm.messages import ExecuteNode
from agentfarm.records import Ended, RunRow
from agentfarm.tenancy import Tenant
from tests.unit.flow.world import (
    NOW,
    FakeExecutions,
    FakeHealing,
    FakeLog,
    FakePublisher,
    FakeRuns,
    FakeStores,
    FakeThreads,
    World,
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def farm(world: World) -> Farm:
    nothing = cast("Any", None)
    return Farm(
        graphs=nothing,
        executions=FakeExecutions(world),
        runs=cast("Any", FakeRuns(world)),
        threads=cast("Any", FakeThreads(world)),
        stores=FakeStores(world),
        healing=FakeHealing(world),
        publisher=FakePublisher(world),
        log=FakeLog(world),
        caches=cast("Any", SimpleNamespace(of=lambda *graph, **fingerprint: InMemoryCache())),
        keys=nothing,
        run_async=asyncio.run,
    )


@pytest.fixture
def tenant() -> Tenant:
    return Tenant(id=new_id(), slug="acme")


@pytest.fixture
def message(tenant: Tenant) -> ExecuteNode:
    return ExecuteNode(tenant.id, "main", run_id=new_id(), checkpoint_id=new_id(), execution_id=new_id(), graph_id="g")


@pytest.fixture
def ended(tenant: Tenant, message: ExecuteNode) -> Ended:
    return Ended(tenant.id, "main", message.run_id, new_id(), "success")


@pytest.fixture
def run_row(ended: Ended) -> RunRow:
    return RunRow(
        run_id=ended.run_id,
        thread_id=ended.thread_id,
        assistant_id=new_id(),
        graph_id="g",
        status="running",
        strategy="enqueue",
        metadata={},
        error=None,
        created_at=NOW,
        updated_at=NOW,
        finished_at=None,
        forget_thread=False,
    )
