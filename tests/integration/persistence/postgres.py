"""What a test of the persistence holds of PostgreSQL: a migrated database of its own, and the ways into it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from agentfarm.conf import Settings
from agentfarm.persistence.database import Database
from tests.services import OwnDatabase

ROOT = Path(__file__).resolve().parents[3]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Home:
    """A migrated database, without rows at first. app, ops: as the product connects."""

    own: OwnDatabase
    settings: Settings
    app: Database
    ops: Database

    @property
    def name(self) -> str:
        return self.own.name

    def url(self, role: str) -> str:
        """role  farm_app, farm_owner, farm_ops, farm_admin or farm_root, which may all"""
        url: str = getattr(self.own, f"{role.removeprefix('farm_')}_url")
        return url

    def connect(self, role: str = "farm_root") -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(role), autocommit=True)

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """As the superuser: the facts, whatever the walls show."""
        with self.connect() as connection:
            return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]  # literal SQL of the tests


#: Tables with rows, of ours and of Django's, but for what a migration fills.
FILLED = """
    SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables
     WHERE (schemaname = 'farm' OR tablename LIKE 'tenants\\_%')
       AND pg_relation_size(format('%I.%I', schemaname, tablename)::regclass) > 0
"""


def empty(own: OwnDatabase) -> None:
    """Whoever is still connected from the test before is cut off, as when the database is dropped."""
    with psycopg.connect(own.root_url, autocommit=True) as root:
        root.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        ((filled,),) = root.execute(FILLED).fetchall()
        if filled:
            root.execute("SET session_replication_role = replica")  # without the trigger that keeps the audit
            root.execute(f"TRUNCATE {filled} RESTART IDENTITY CASCADE")


def wait_for(fact: Callable[[], T], *, what: str, seconds: float = 15.0) -> T:
    """The first truthy answer. Raises AssertionError, which names what did not come in time."""
    end = time.monotonic() + seconds
    while not (answer := fact()):
        if time.monotonic() > end:
            raise AssertionError(f"did not come within {seconds:.0f} s: {what}")
        time.sleep(0.02)
    return answer
