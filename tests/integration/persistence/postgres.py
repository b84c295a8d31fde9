"""A real PostgreSQL of this folder's own: how it is started, and what a test holds of it."""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg

from agentfarm.conf import Settings, strict_msgpack

strict_msgpack()  # before langgraph is imported below

from agentfarm.persistence.database import Database  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
T = TypeVar("T")
ROLES = ("farm_owner", "farm_app", "farm_ops", "farm_admin")

MIGRATE = """
import sys
from django.conf import settings
from django.core.management import call_command
name, port = sys.argv[1:]
settings.configure(INSTALLED_APPS=["agentfarm.persistence"], USE_TZ=True, DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": name, "USER": "farm_owner", "HOST": "127.0.0.1", "PORT": port}})
import django
django.setup()
call_command("migrate", verbosity=0)
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A cluster that trusts its loopback: what is tested here is what roles may do, not passwords."""

    port: int

    def url(self, role: str, name: str) -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{name}"

    def run(self, sql: str, *, name: str = "postgres") -> None:
        with psycopg.connect(self.url("farm_root", name), autocommit=True) as connection:
            connection.execute(sql)  # type: ignore[arg-type]  # literal SQL of the tests


@dataclass(frozen=True, slots=True)
class Home:
    """A migrated database of one test, and the ways into it."""

    server: Server
    name: str
    settings: Settings
    app: Database
    ops: Database

    def url(self, role: str) -> str:
        return self.server.url(role, self.name)

    def connect(self, role: str = "farm_root") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url(role), autocommit=True)

    def query(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        """As the superuser: the facts, whatever the walls show."""
        with self.connect() as connection:
            return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]  # literal SQL of the tests


def not_root() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for account in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(account)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("no account to run PostgreSQL as")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            server.run("SELECT 1")
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"PostgreSQL did not start: {log.read_text()[-2000:]}") from error
            time.sleep(0.05)
        else:
            return


def wait_for(fact: Callable[[], T], *, what: str, seconds: float = 15.0) -> T:
    """The first truthy answer. Raises AssertionError, which names what did not come in time."""
    end = time.monotonic() + seconds
    while not (answer := fact()):
        if time.monotonic() > end:
            raise AssertionError(f"did not come within {seconds:.0f} s: {what}")
        time.sleep(0.02)
    return answer
