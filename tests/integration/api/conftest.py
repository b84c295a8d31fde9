"""A real web process and one worker, over servers of the tests: one farm for all modules (tests/conftest.py)."""

from collections.abc import Iterator, Mapping

import httpx
import pytest

from agentfarm.local.services import Services
from tests.farm import FarmProcesses
from tests.services import WITH_TENANTS, FarmMaker, OwnDatabase, copy_of_migrated

#: Small, so that a test can exceed them.
MAX_BODY_BYTES = 200_000
MAX_VALUE_BYTES = 10_000


@pytest.fixture(scope="session")
def database(servers: Services, tenant_keys: Mapping[str, str]) -> Iterator[OwnDatabase]:
    with copy_of_migrated(servers, "api", template=WITH_TENANTS) as own:
        yield own


@pytest.fixture(scope="session")
def farm(farm_over: FarmMaker, database: OwnDatabase) -> Iterator[FarmProcesses]:
    told = {
        "AGENTFARM_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        "AGENTFARM_STORE_MAX_VALUE_BYTES": str(MAX_VALUE_BYTES),
        "AGENTFARM_STREAM_HEARTBEAT_SECONDS": "0.5",
        "LOG_JSON": "true",
    }
    with farm_over(database, "integration/api/langgraph.json", "one", beat=False, **told) as made:
        yield made


@pytest.fixture
def http(farm: FarmProcesses) -> Iterator[httpx.Client]:
    """As tenant demo."""
    with httpx.Client(base_url=farm.url, headers={"x-api-key": farm.keys["demo"]}, timeout=30) as client:
        yield client
