"""Servers of these tests' own, which may be killed, and a farm over them: web, two workers and beat."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agentfarm.local.postgres import ROOT as SUPERUSER
from agentfarm.local.postgres import Postgres
from agentfarm.local.rabbitmq import RabbitMQ
from agentfarm.local.services import Broker, Services
from agentfarm.local.state import State
from tests.farm import ROOT, FarmProcesses, running
from tests.services import FAST, SECRETS, missing

Server = Callable[[Services], Mapping[str, str]]


@pytest.fixture(scope="module")
def broker() -> Broker:
    """What carries the messages. A module says otherwise by a fixture of its own."""
    return "redis"


@pytest.fixture(scope="module")
def mortals(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """PostgreSQL, Valkey and, if it is asked for, RabbitMQ."""
    if broker == "rabbitmq" and not RabbitMQ.is_installed():
        missing("rabbitmq", "rabbitmq-server is not installed here")
    services = Services(tmp_path_factory.mktemp("mortals"), broker=broker, given={}, postgres_options=FAST)
    try:
        services.start()
        yield services
    finally:
        services.reset()


@pytest.fixture(scope="module")
def addresses(mortals: Services) -> Mapping[str, str]:
    """DATABASE_URL and its like. A module says otherwise by a fixture of its own."""
    return mortals.environment()


@pytest.fixture(scope="module")
def root_url(mortals: Services) -> str:
    """The database, for tests to look into."""
    return Postgres(State(mortals.folder)).url(SUPERUSER)


@pytest.fixture(scope="module")
def workers() -> tuple[str, ...]:
    """Those that the farm begins with."""
    return ("one", "two")


@pytest.fixture(scope="module")
def farm(
    addresses: Mapping[str, str], root_url: str, workers: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FarmProcesses]:
    environment = {
        **addresses,
        **SECRETS,
        "AGENTFARM_CONFIG": str(ROOT / "tests/integration/away/langgraph.json"),
        "AGENTFARM_LEASE_SECONDS": "4",
        "AGENTFARM_DRAIN_SECONDS": "1",
    }
    _manage(environment, "migrate", "--verbosity", "0")
    keys = {
        tenant["slug"]: tenant["key"] for tenant in json.loads(_manage(environment, "farm_setup", "--json"))["tenants"]
    }
    made = FarmProcesses(environment, tmp_path_factory.mktemp("farm"), root_url, keys)
    with running(made):
        made.start_all(*workers)
        yield made


def _manage(environment: Mapping[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
