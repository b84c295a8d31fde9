"""Real servers for the tests: started when the first test asks, shared by pytest-xdist's processes, ended with them.

    servers       Services of this test session below .farm/test/; PostgreSQL and Valkey run
    database      a fresh copy of the migrated database, one a test module
    redis_url     a Redis database of its own, emptied, one a test module; own_redis() makes one for a session
    sqs           an SQS of this process of the tests, on loopback
    broker_url    an empty broker, one a test module: on Valkey and on RabbitMQ, on SQS too where ALL_BROKERS says so
    farm_environment   all of it, as the product's processes read it

A server that is not there skips its tests by name, and fails them in CI.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from pydantic import SecretStr

from agentfarm.conf import Settings
from agentfarm.local.postgres import ADMIN, APP, OPS, OWNER, ROOT, Postgres, database_grants
from agentfarm.local.processes import is_alive
from agentfarm.local.rabbitmq import RabbitMQ
from agentfarm.local.services import Services
from agentfarm.local.state import State, locked
from agentfarm.local.valkey import Valkey
from tests.farm import FarmProcesses, running
from tests.sqs import Moto

PROJECT = Path(__file__).resolve().parent.parent
TESTS = PROJECT / "tests"
FOLDER = "AGENTFARM_TEST_FOLDER"
TEMPLATE = "migrated"
WITH_TENANTS = "with_tenants"

#: Databases of Valkey below this are those of modules, two for each process of the tests: four at most.
FIRST_OWN_REDIS = 10

#: What a crash of the machine would lose; the tests kill processes, never the machine.
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "400"}

NOWHERE = "redis://127.0.0.1:1"

#: Of the fixture farm_over.
FarmMaker = Callable[..., AbstractContextManager[FarmProcesses]]

SECRETS = {
    "AGENTFARM_SECRET_KEY": "for-tests-only-for-tests-only-for-tests-only",
    "FLOWER_USER": "admin",
    "FLOWER_PASSWORD": "for-tests-only",
    "LANGGRAPH_STRICT_MSGPACK": "true",
}


# --------------------------------------------------------------------------- one folder a session


def pytest_configure(config: pytest.Config) -> None:
    """The first process names the folder; xdist's processes inherit the name."""
    if not hasattr(config, "workerinput"):
        os.environ[FOLDER] = str(PROJECT / ".farm" / "test" / str(os.getpid()))


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    _remove(Path(os.environ.pop(FOLDER)))


def _remove(folder: Path) -> None:
    if folder.exists():
        Services(folder, given={}).reset()


def _remove_abandoned(folder: Path) -> None:
    """What a session that was killed could not end: its servers, and workers that its tests had started."""
    for other in folder.parent.glob("[0-9]*"):
        if other != folder and not is_alive(int(other.name)):
            for process in _started_by(other):
                process.kill()
            _remove(other)


def _started_by(folder: Path) -> list[psutil.Process]:
    """They inherited the folder's name from their session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(FOLDER) == str(folder):
                found.append(process)
    return found


# --------------------------------------------------------------------------- servers


@pytest.fixture(scope="session")
def servers() -> Services:
    """PostgreSQL and Valkey, running. What the environment names (DATABASE_URL and so on) is not touched."""
    services = Services(Path(os.environ[FOLDER]), given={}, postgres_options=FAST)
    services.folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(services.folder.parent.parent / "test-lock"):
        _remove_abandoned(services.folder)
    services.start()
    return services


@pytest.fixture(scope="session")
def rabbitmq(servers: Services) -> RabbitMQ:
    """A node of its own, running. Skips where there is no rabbitmq-server, and fails in CI."""
    if not RabbitMQ.is_installed():
        missing("rabbitmq", "rabbitmq-server is not installed here")
    with locked(servers.folder) as state:
        node = RabbitMQ(state)
        node.start()
    return node


@pytest.fixture(scope="session")
def sqs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """Running. Whoever uses it empties it first."""
    server = Moto(tmp_path_factory.mktemp("sqs"))
    server.start()
    yield server
    server.kill()


def missing(name: str, sentence: str) -> None:
    """Skip here, fail in CI, unless it was said that this machine cannot have it: AGENTFARM_WITHOUT=rabbitmq."""
    if os.environ.get("CI") and name not in os.environ.get("AGENTFARM_WITHOUT", "").split(","):
        pytest.fail(f"{sentence}; in CI it must be", pytrace=False)
    pytest.skip(sentence)


# --------------------------------------------------------------------------- databases


@dataclass(frozen=True, slots=True)
class OwnDatabase:
    """A migrated database that nobody else uses. Roles as in production, and farm_root, which may all."""

    name: str
    app_url: str
    owner_url: str
    ops_url: str
    admin_url: str
    root_url: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.app_url,
            "DATABASE_OWNER_URL": self.owner_url,
            "DATABASE_OPS_URL": self.ops_url,
            "DATABASE_ADMIN_URL": self.admin_url,
        }

    def settings(self, redis_url: str = NOWHERE) -> Settings:
        """For the product's code in this process. There is no broker."""
        return Settings(
            database_url=SecretStr(self.app_url),
            database_ops_url=SecretStr(self.ops_url),
            redis_url=SecretStr(redis_url),
            broker_url=SecretStr(NOWHERE),
            secret_key=SecretStr("of the tests"),
        )


@pytest.fixture(scope="session")
def template(servers: Services) -> str:
    """What `database` is a copy of. Tests that start a farm have it with tenants (WITH_TENANTS)."""
    return TEMPLATE


@pytest.fixture(scope="module")
def database(servers: Services, template: str, request: pytest.FixtureRequest) -> Iterator[OwnDatabase]:
    with copy_of_migrated(servers, Path(request.node.name).stem, template=template) as own:
        yield own


@contextlib.contextmanager
def copy_of_migrated(servers: Services, name: str, *, template: str = TEMPLATE) -> Iterator[OwnDatabase]:
    """For fixtures of another scope than `database`. Dropped at the end, whoever is still connected."""
    postgres = _migrated(servers)
    unique = f"{re.sub(r'[^a-z0-9]+', '_', name.lower())[:30]}_{uuid.uuid4().hex[:8]}"
    _as_root(postgres, f"CREATE DATABASE {unique} OWNER {OWNER} TEMPLATE {template}", database_grants(unique))
    roles = {"app_url": APP, "owner_url": OWNER, "ops_url": OPS, "admin_url": ADMIN, "root_url": ROOT}
    try:
        yield OwnDatabase(name=unique, **{field: postgres.url(role, unique) for field, role in roles.items()})
    finally:
        _as_root(postgres, f"DROP DATABASE {unique} WITH (FORCE)")


def _as_root(postgres: Postgres, *statements: str) -> None:
    """Each in a transaction of its own."""
    with psycopg.connect(postgres.url(ROOT), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]  # made of names of our own


def _migrated(servers: Services) -> Postgres:
    """The server with the template. Whoever comes first migrates it; the others wait, and hear it if that failed."""
    with locked(servers.folder) as state:
        postgres, facts = Postgres(state), state.section("tests")
        if "migrated" not in facts:
            _as_root(postgres, f"CREATE DATABASE {TEMPLATE} OWNER {OWNER}", database_grants(TEMPLATE))
            facts["migrated"] = _migrate(postgres, servers)
            state.save()
        if facts["migrated"]:
            pytest.fail(f"`manage.py migrate` failed:\n{facts['migrated']}", pytrace=False)
        return postgres


@pytest.fixture(scope="session")
def tenant_keys(servers: Services) -> Mapping[str, str]:
    """{slug: API key} of the tenants that are in every copy of WITH_TENANTS, as farm_setup makes them."""
    postgres = _migrated(servers)
    with locked(servers.folder) as state:
        facts = state.section("tests")
        if "keys" not in facts:
            _as_root(
                postgres,
                f"CREATE DATABASE {WITH_TENANTS} OWNER {OWNER} TEMPLATE {TEMPLATE}",
                database_grants(WITH_TENANTS),
            )
            told = _manage(postgres, servers, WITH_TENANTS, "farm_setup", "--json")
            assert told.returncode == 0, told.stderr
            facts["keys"] = {tenant["slug"]: tenant["key"] for tenant in json.loads(told.stdout)["tenants"]}
            state.save()
        keys: dict[str, str] = facts["keys"]
        return keys


def _migrate(postgres: Postgres, servers: Services) -> str:
    """What went wrong, or ''."""
    done = _manage(postgres, servers, TEMPLATE, "migrate", "--verbosity", "0")
    return (done.stderr or done.stdout)[-4000:] if done.returncode else ""


def _manage(postgres: Postgres, servers: Services, database: str, *command: str) -> "subprocess.CompletedProcess[str]":
    urls = {
        "DATABASE_URL": postgres.url(APP, database),
        "DATABASE_OWNER_URL": postgres.url(OWNER, database),
        "DATABASE_OPS_URL": postgres.url(OPS, database),
        "DATABASE_ADMIN_URL": postgres.url(ADMIN, database),
    }
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=PROJECT,
        env={**os.environ, **servers.environment(), **SECRETS, **urls},
        capture_output=True,
        text=True,
        check=False,
    )


# --------------------------------------------------------------------------- streams and brokers


@pytest.fixture(scope="module")
def redis_url(servers: Services, worker_id: str) -> str:
    return emptied(Valkey(State(servers.folder)).url(2 * number_of(worker_id)))


BROKERS = ["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]

#: For a module's `pytestmark`. A whole farm on SQS is slower than on the others, and differs in the queue alone.
ALL_BROKERS = pytest.mark.parametrize("broker_url", [*BROKERS, "sqs"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=BROKERS)
def broker_url(request: pytest.FixtureRequest, servers: Services, worker_id: str) -> Iterator[str]:
    """Empty: no queue, no message."""
    if request.param == "redis":
        yield emptied(Valkey(State(servers.folder)).url(2 * number_of(worker_id) + 1))
        return
    if request.param == "sqs":
        server: Moto = request.getfixturevalue("sqs")
        server.empty()
        yield server.url
        return
    node: RabbitMQ = request.getfixturevalue("rabbitmq")
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield node.make_virtual_host(name)
    node.drop_virtual_host(name)


@pytest.fixture(scope="module")
def farm_environment(database: OwnDatabase, redis_url: str, broker_url: str) -> Mapping[str, str]:
    """What web, workers and beat are started with."""
    return {**database.environment, "REDIS_URL": redis_url, "CELERY_BROKER_URL": broker_url, **SECRETS}


@pytest.fixture(scope="session")
def own_redis(servers: Services) -> Callable[[], str]:
    """Makes Redis databases that no other test and no other process of the tests has, for what outlives a module."""

    def make() -> str:
        with locked(servers.folder) as state:
            facts = state.section("tests")
            facts["redis"] = facts.get("redis", FIRST_OWN_REDIS - 1) + 1
            state.save()
            return Valkey(state).url(facts["redis"])

    return make


@pytest.fixture(scope="session")
def farm_over(
    own_redis: Callable[[], str], tenant_keys: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> FarmMaker:
    """Makes a farm over a database, on Valkey alone, for tests whose results do not depend on the broker; `with` ends
    it. Its graphs are those of `config`, a file below tests/ or a path; what else it is told is its environment."""

    @contextlib.contextmanager
    def make(
        database: OwnDatabase, config: str | Path, *workers: str, beat: bool = True, **environment: str
    ) -> Iterator[FarmProcesses]:
        told = {
            **database.environment,
            **SECRETS,
            "REDIS_URL": own_redis(),
            "CELERY_BROKER_URL": own_redis(),
            "AGENTFARM_CONFIG": str(TESTS / config),
            **environment,
        }
        made = FarmProcesses(told, tmp_path_factory.mktemp("farm"), database.root_url, tenant_keys)
        with running(made):
            made.start_all(*workers, beat=beat)
            yield made

    return make


def number_of(worker_id: str) -> int:
    """0 without xdist, 1, 2, … for gw0, gw1, …"""
    return int(worker_id.removeprefix("gw")) + 1 if worker_id.startswith("gw") else 0


def emptied(url: str) -> str:
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushdb()
    return url
