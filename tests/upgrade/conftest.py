"""A database and workers, as the tests of the persistence have them."""

from tests.integration.persistence.conftest import acme, globex, hand, hands, home, own_home, shared_database, tier

__all__ = ["acme", "globex", "hand", "hands", "home", "own_home", "shared_database", "tier"]  # fixtures
