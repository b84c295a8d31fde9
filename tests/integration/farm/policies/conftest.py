"""One farm for all modules (tests/conftest.py), on Valkey alone: none of what is tested here is the broker's."""

from collections.abc import Callable, Iterator, Mapping

import pytest

from agentfarm.local.services import Services
from tests.farm import ROOT, FarmProcesses, running
from tests.services import SECRETS, WITH_TENANTS, OwnDatabase, copy_of_migrated


@pytest.fixture(scope="session")
def database(servers: Services, tenant_keys: Mapping[str, str]) -> Iterator[OwnDatabase]:
    with copy_of_migrated(servers, "policies", template=WITH_TENANTS) as own:
        yield own


@pytest.fixture(scope="session")
def farm(
    database: OwnDatabase,
    own_redis: Callable[[], str],
    tenant_keys: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FarmProcesses]:
    environment = {
        **database.environment,
        **SECRETS,
        "REDIS_URL": own_redis(),
        "CELERY_BROKER_URL": own_redis(),
        "AGENTFARM_CONFIG": str(ROOT / "tests/integration/farm/policies.json"),
        "AGENTFARM_LEASE_SECONDS": "4",
        "AGENTFARM_RETRY_MESSAGE_SECONDS": "0.5",
    }
    made = FarmProcesses(environment, tmp_path_factory.mktemp("farm"), database.root_url, tenant_keys)
    with running(made):
        made.start_all("one", "two")
        yield made
