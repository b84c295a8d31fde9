"""A migrated database without rows for each test, tenants, and worker processes as far as the database can tell."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from agentfarm.local.services import Services
from agentfarm.persistence.database import Database
from agentfarm.run_options import Persistence
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home, empty
from tests.services import OwnDatabase, copy_of_migrated


@pytest.fixture
def home(shared_database: OwnDatabase) -> Iterator[Home]:
    """Without a row of another test's, with connections of its own. What is not rows is to stay as it is here."""
    empty(shared_database)
    with home_in(shared_database) as made:
        yield made


@pytest.fixture
def own_home(servers: Services) -> Iterator[Home]:
    """A database of the test's own, which may change its tables and functions."""
    with copy_of_migrated(servers, "own") as own, home_in(own) as made:
        yield made


@pytest.fixture(scope="session")
def shared_database(servers: Services) -> Iterator[OwnDatabase]:
    """One for all these tests of a process: to make one takes six times as long as to empty it."""
    with copy_of_migrated(servers, "shared") as own:
        yield own


@contextmanager
def home_in(own: OwnDatabase) -> Iterator[Home]:
    settings = own.settings()
    made = Home(own, settings, Database(settings), Database(settings, url=settings.ops_url))
    try:
        yield made
    finally:
        made.app.dispose()
        made.ops.dispose()


@pytest.fixture
def acme() -> Tenant:
    return Tenant(id=uuid4(), slug="acme")


@pytest.fixture
def globex() -> Tenant:
    return Tenant(id=uuid4(), slug="globex")


@pytest.fixture
def tier() -> Persistence:
    """Of the runs that a test executes; a test of both has it as a parameter."""
    return "postgres"


@pytest.fixture
def hands(home: Home, tier: Persistence, request: pytest.FixtureRequest) -> Iterator[Callable[..., Hand]]:
    """Makes worker processes, as far as the database can tell; ended with the test."""
    made: list[Hand] = []
    redis_url = request.getfixturevalue("redis_url") if tier == "redis" else None

    def make(name: str = "hand", **settings: object) -> Hand:
        made.append(Hand(home, f"{name}-{len(made)}", redis_url, **settings))
        return made[-1]

    try:
        yield make
    finally:
        for hand in made:
            hand.stop()


@pytest.fixture
def hand(hands: Callable[..., Hand]) -> Hand:
    return hands()
