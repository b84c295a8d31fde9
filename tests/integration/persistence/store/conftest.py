import pytest

from agentfarm.persistence.store import TenantStore
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.store.parts import stores


@pytest.fixture
def store(home: Home, acme: Tenant) -> TenantStore:
    return stores(home).of(acme)
