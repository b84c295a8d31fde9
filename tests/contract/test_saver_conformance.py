"""LangGraph's own conformance suite over the tenant's saver, on a real Postgres, behind the walls.

Its tests were not written by us. Each capability is a test here, so that one which is not found fails too.
"""

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.conformance.validate import validate

from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Database
from agentfarm.persistence.serde import serde_of
from tests.services import OwnDatabase


@pytest.fixture(scope="module")
def store(database: OwnDatabase) -> Iterator[Database]:
    made = Database(database.settings())
    yield made
    made.dispose()


@pytest.mark.parametrize("capability", sorted(one.value for one in ALL_CAPABILITIES))
async def test_the_saver_passes_langgraphs_conformance_suite(capability: str, store: Database) -> None:
    @checkpointer_test(name=f"TenantSaver {capability}")
    async def registered() -> AsyncIterator[BaseCheckpointSaver[str]]:
        yield TenantSaver(store, uuid4(), serde_of(None))

    report = await validate(registered, capabilities={capability})

    result = report.results[capability]
    assert result.detected
    assert result.failures == []
    assert result.tests_passed > 0
