"""A migrated database for each test, tenants, and worker processes as far as the database can tell."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from pydantic import SecretStr

from agentfarm.conf import Settings
from agentfarm.local.services import Services
from agentfarm.persistence.database import Database
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home
from tests.services import copy_of_migrated


@pytest.fixture
def home(servers: Services) -> Iterator[Home]:
    with home_of(servers) as made:
        yield made


@contextmanager
def home_of(servers: Services) -> Iterator[Home]:
    """For fixtures of another scope than `home`."""
    with copy_of_migrated(servers, "home") as own:
        settings = Settings(
            database_url=SecretStr(own.app_url),
            database_ops_url=SecretStr(own.ops_url),
            redis_url=SecretStr("redis://127.0.0.1:1"),
            broker_url=SecretStr("redis://127.0.0.1:1"),
            secret_key=SecretStr("of the tests"),
        )
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
def hands(home: Home) -> Iterator[Callable[..., Hand]]:
    """Makes worker processes, as far as the database can tell; ended with the test."""
    made: list[Hand] = []

    def make(name: str = "hand", **settings: object) -> Hand:
        made.append(Hand(home, f"{name}-{len(made)}", **settings))
        return made[-1]

    try:
        yield make
    finally:
        for hand in made:
            hand.stop()


@pytest.fixture
def hand(hands: Callable[..., Hand]) -> Hand:
    return hands()
