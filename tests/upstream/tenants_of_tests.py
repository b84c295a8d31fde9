"""Where tests of langgraph-checkpoint-postgres make a saver or a store: a database of theirs is a tenant of ours.

A part of both plugins, which import it whole.
"""

import os
from functools import cache
from uuid import NAMESPACE_OID, UUID, uuid5

from psycopg.conninfo import conninfo_to_dict

from agentfarm.conf import settings
from agentfarm.persistence.database import Database

#: A superuser's, who sees the rows of all tenants.
FARM = os.environ["AGENTFARM_UPSTREAM_FARM"]

#: A superuser's as well, for the databases that the tests make and drop, believing that our part is in them.
URI = os.environ["AGENTFARM_UPSTREAM_ROOT"]


@cache
def database() -> Database:
    return Database(settings())


def tenant_of(conninfo: str) -> UUID:
    return uuid5(NAMESPACE_OID, str(conninfo_to_dict(conninfo)["dbname"]))


def pytest_plugin_registered(plugin: object) -> None:
    """The tests' conftest is imported before the tests, which take the addresses from it."""
    if hasattr(plugin, "DEFAULT_POSTGRES_URI"):
        plugin.DEFAULT_POSTGRES_URI = URI.rsplit("/", 1)[0] + "/"
        plugin.DEFAULT_URI = URI
