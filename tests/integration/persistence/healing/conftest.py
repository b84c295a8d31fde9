"""The healer: what it finds and what it makes of it, over all tenants, as a role that sees no state."""

import pytest

from agentfarm.persistence.healing import PostgresHealing
from tests.integration.persistence.postgres import Home


@pytest.fixture
def healer(home: Home) -> PostgresHealing:
    return PostgresHealing(home.ops, home.app, home.settings)
