"""Django's admin in this process, over a migrated database of the test module, as the role farm_admin."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import django
import psycopg
import pytest
from pytest_django import DjangoDbBlocker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.contrib.auth.models import Permission, User  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import Client  # noqa: E402

from agentfarm.ids import new_id  # noqa: E402
from tenants.models import Member, Tenant  # noqa: E402
from tests.integration.admin.rows import Rows  # noqa: E402
from tests.services import SECRETS, OwnDatabase  # noqa: E402
from tests.wired import wired  # noqa: E402

GRAPHS = Path(__file__).parents[1] / "farm" / "langgraph.json"


@pytest.fixture(scope="module", autouse=True)
def own_database(database: OwnDatabase, django_db_blocker: DjangoDbBlocker) -> Iterator[OwnDatabase]:
    """Point Django at the module's database, and back."""
    entries = {"default": database.admin_url, "owner": database.owner_url}
    before = dict(connections.databases)
    for alias, url in entries.items():
        _point(alias, url)
    with django_db_blocker.unblock():
        yield database
    for alias in entries:
        connections[alias].close()
        delattr(connections._connections, alias)
    connections.databases.clear()
    connections.databases.update(before)


def _point(alias: str, url: str) -> None:
    facts = psycopg.conninfo.conninfo_to_dict(url)
    entry = dict(connections.databases["default"])
    entry.update(
        NAME=facts["dbname"], USER=facts["user"], PASSWORD=facts["password"], HOST=facts["host"], PORT=facts["port"]
    )
    connections.databases[alias] = entry
    if hasattr(connections._connections, alias):
        delattr(connections._connections, alias)


@pytest.fixture
def root(own_database: OwnDatabase) -> Iterator[psycopg.Connection]:
    """The database as nobody is walled: for facts, and for rows that the flow would have written."""
    with psycopg.connect(own_database.root_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def rows(root: psycopg.Connection) -> Rows:
    return Rows(root)


@pytest.fixture
def tenant(own_database: OwnDatabase) -> Tenant:
    return Tenant.objects.create(slug=f"acme-{new_id().hex[-8:]}", name="Acme")


@pytest.fixture
def other(own_database: OwnDatabase) -> Tenant:
    return Tenant.objects.create(slug=f"globex-{new_id().hex[-8:]}", name="Globex")


@pytest.fixture
def superuser(own_database: OwnDatabase) -> Client:
    """Logged in as one who runs the farm."""
    user = User.objects.create_superuser(f"root-{new_id().hex[-8:]}", password=None)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def member_of(own_database: OwnDatabase) -> Callable[[Tenant, str], Client]:
    """member_of(tenant, role): logged in as staff with all of Django's permissions, and that one tenant."""

    def log_in(tenant: Tenant, role: str) -> Client:
        user = User.objects.create_user(f"{role}-{new_id().hex[-8:]}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(content_type__app_label="tenants"))
        Member.objects.create(tenant=tenant, user=user, role=role)
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture(scope="module")
def real_farm(own_database: OwnDatabase, redis_url: str) -> Iterator[None]:
    """wiring.farm() of this process is over the module's database; the broker is away, which costs a warning."""
    environment = {
        **SECRETS,
        **own_database.environment,
        "REDIS_URL": redis_url,
        "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
        "AGENTFARM_CONFIG": str(GRAPHS),
    }
    logging.getLogger("agentfarm").setLevel(logging.ERROR)
    with wired(environment):
        yield
    logging.getLogger("agentfarm").setLevel(logging.NOTSET)


def audit_of(root: psycopg.Connection, tenant_id: UUID) -> list[tuple[str, str]]:
    """[(what, kind)] in order."""
    found = root.execute("SELECT what, kind FROM tenants_audit WHERE tenant_id = %s ORDER BY id", [tenant_id])
    return [(what, kind) for what, kind in found.fetchall()]
