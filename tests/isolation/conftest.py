"""The walls are tested with what the persistence's tests use: two tenants in one home."""

from tests.integration.persistence.conftest import acme, globex, hand, hands, home, shared_database, tier

__all__ = ["acme", "globex", "hand", "hands", "home", "shared_database", "tier"]  # fixtures
