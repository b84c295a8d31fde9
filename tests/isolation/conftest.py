"""The walls are tested with what the persistence's tests use: two tenants in one home."""

from tests.integration.persistence.conftest import acme, globex, hand, hands, home, shared_database, tier
from tests.isolation.redis_users import server, url_of_globex

__all__ = ["acme", "globex", "hand", "hands", "home", "server", "shared_database", "tier", "url_of_globex"]  # fixtures
