"""One farm for all modules (tests/conftest.py), on Valkey alone: none of what is tested here is the broker's."""

from collections.abc import Iterator, Mapping

import pytest

from agentfarm.local.services import Services
from tests.farm import FarmProcesses
from tests.services import WITH_TENANTS, FarmMaker, OwnDatabase, copy_of_migrated


@pytest.fixture(scope="session")
def database(servers: Services, tenant_keys: Mapping[str, str]) -> Iterator[OwnDatabase]:
    with copy_of_migrated(servers, "policies", template=WITH_TENANTS) as own:
        yield own


@pytest.fixture(scope="session")
def farm(farm_over: FarmMaker, database: OwnDatabase) -> Iterator[FarmProcesses]:
    short = {"AGENTFARM_LEASE_SECONDS": "4", "AGENTFARM_RETRY_MESSAGE_SECONDS": "0.5"}
    with farm_over(database, "integration/farm/policies.json", "one", "two", **short) as made:
        yield made
