"""A farm that serves the corpus: web, three workers and beat as processes."""

from collections.abc import Iterator, Mapping

import pytest
from pydantic import SecretStr

from agentfarm.conf import Settings
from agentfarm.local.services import Services
from agentfarm.local.state import State
from agentfarm.local.valkey import Valkey
from agentfarm.persistence.database import Database
from tests.contract.differential import report, served, through_farm
from tests.farm import FarmProcesses, running
from tests.services import WITH_TENANTS, OwnDatabase, emptied, number_of

WORKERS = ("one", "two", "three")


@pytest.fixture(scope="module")
def broker_url(servers: Services, worker_id: str) -> str:
    """Valkey alone: results do not depend on the broker, and what brokers do is tested elsewhere with both."""
    return emptied(Valkey(State(servers.folder)).url(2 * number_of(worker_id) + 1))


@pytest.fixture(scope="session")
def template(tenant_keys: Mapping[str, str]) -> str:
    return WITH_TENANTS


@pytest.fixture(scope="module")
def farm(
    farm_environment: Mapping[str, str],
    database: OwnDatabase,
    tenant_keys: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FarmProcesses]:
    folder = tmp_path_factory.mktemp("farm")
    config = through_farm.write_config(folder, list(served.SCENARIOS))
    environment = {**farm_environment, "AGENTFARM_CONFIG": str(config), "AGENTFARM_LEASE_SECONDS": "4"}
    made = FarmProcesses(environment, folder, database.root_url, tenant_keys)
    with running(made):
        made.start_all(*WORKERS)
        yield made


@pytest.fixture(scope="module")
def store(database: OwnDatabase) -> Iterator[Database]:
    """The farm's, as its own code sees it."""
    nowhere = SecretStr("redis://127.0.0.1:1")
    settings = Settings(
        database_url=SecretStr(database.app_url), redis_url=nowhere, broker_url=nowhere, secret_key=SecretStr("tests")
    )
    made = Database(settings)
    yield made
    made.dispose()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := report.lines():
        terminalreporter.section("the farm and stock LangGraph")
        for line in lines:
            terminalreporter.line(line)
