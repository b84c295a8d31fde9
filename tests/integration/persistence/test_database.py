from sqlalchemy import text

from agentfarm.persistence.database import check_at_start
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home


def test_the_roles_of_a_migrated_home_may_start(home: Home) -> None:
    check_at_start(home.app)
    check_at_start(home.ops, setting="DATABASE_OPS_URL", role="ops")


def test_a_transaction_knows_its_tenant_and_the_next_one_does_not(home: Home, acme: Tenant) -> None:
    with home.app.transaction(acme) as connection:
        assert connection.execute(text("SELECT farm.tenant()")).scalar_one() == acme.id
    with home.app.transaction_of_nobody() as connection:
        assert connection.execute(text("SELECT farm.tenant()")).scalar_one() is None
