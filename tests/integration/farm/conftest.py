"""A whole farm a test module and broker: web, two workers and beat as processes, spoken to by the official client."""

from collections.abc import Iterator, Mapping

import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from tests.farm import ROOT, FarmProcesses, running
from tests.services import WITH_TENANTS, OwnDatabase


@pytest.fixture(scope="session")
def template(tenant_keys: Mapping[str, str]) -> str:
    return WITH_TENANTS


#: For a module's `pytestmark`: its tests with runs that Postgres moves, and with runs that Redis moves.
BOTH_TIERS = pytest.mark.parametrize("farm", ["postgres", "redis"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def farm(
    request: pytest.FixtureRequest,
    farm_environment: Mapping[str, str],
    database: OwnDatabase,
    tenant_keys: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FarmProcesses]:
    folder = tmp_path_factory.mktemp("farm")
    environment = {
        **farm_environment,
        "AGENTFARM_CONFIG": str(ROOT / "tests/integration/farm/langgraph.json"),
        "AGENTFARM_LEASE_SECONDS": "4",  # how long a frozen worker is waited for
    }
    made = FarmProcesses(environment, folder, database.root_url, tenant_keys)
    tier = getattr(request, "param", "postgres")
    made.query("UPDATE tenants_tenant SET persistence = %s RETURNING 1", tier)
    with running(made):
        made.start_all("one", "two")
        yield made


@pytest.fixture
def client(farm: FarmProcesses) -> Iterator[SyncLangGraphClient]:
    """As tenant demo."""
    with get_sync_client(url=farm.url, api_key=farm.keys["demo"]) as made:
        yield made


@pytest.fixture
def other_client(farm: FarmProcesses) -> Iterator[SyncLangGraphClient]:
    """As another tenant."""
    with get_sync_client(url=farm.url, api_key=farm.keys["other"]) as made:
        yield made
