"""A real web process and one worker, over servers of the tests."""

from collections.abc import Iterator, Mapping

import httpx
import pytest

from agentfarm.local.services import Services
from agentfarm.local.state import State
from agentfarm.local.valkey import Valkey
from tests.farm import ROOT, FarmProcesses, running
from tests.services import WITH_TENANTS, OwnDatabase, emptied, number_of

#: Small, so that a test can exceed them.
MAX_BODY_BYTES = 200_000
MAX_VALUE_BYTES = 10_000


@pytest.fixture(scope="module")
def broker_url(servers: Services, worker_id: str) -> str:
    """One broker is enough here: what is tested ends at the API."""
    return emptied(Valkey(State(servers.folder)).url(2 * number_of(worker_id) + 1))


@pytest.fixture(scope="session")
def template(tenant_keys: Mapping[str, str]) -> str:
    return WITH_TENANTS


@pytest.fixture(scope="module")
def farm(
    farm_environment: Mapping[str, str],
    database: OwnDatabase,
    tenant_keys: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FarmProcesses]:
    environment = {
        **farm_environment,
        "AGENTFARM_CONFIG": str(ROOT / "tests/integration/api/langgraph.json"),
        "AGENTFARM_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        "AGENTFARM_STORE_MAX_VALUE_BYTES": str(MAX_VALUE_BYTES),
        "AGENTFARM_STREAM_HEARTBEAT_SECONDS": "0.5",
        "LOG_JSON": "true",
    }
    made = FarmProcesses(environment, tmp_path_factory.mktemp("farm"), database.root_url, tenant_keys)
    with running(made):
        made.start_all("one")
        yield made


@pytest.fixture
def http(farm: FarmProcesses) -> Iterator[httpx.Client]:
    """As tenant demo."""
    with httpx.Client(base_url=farm.url, headers={"x-api-key": farm.keys["demo"]}, timeout=30) as client:
        yield client
