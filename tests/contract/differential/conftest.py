"""A farm that serves the corpus: web, three workers and beat as processes, for all modules (tests/conftest.py)."""

from collections.abc import Callable, Iterator, Mapping

import pytest

from agentfarm.local.services import Services
from agentfarm.persistence.database import Database
from tests.contract.differential import report, served, through_farm
from tests.farm import FarmProcesses, running
from tests.services import SECRETS, WITH_TENANTS, OwnDatabase, copy_of_migrated

WORKERS = ("one", "two", "three")


@pytest.fixture(scope="session")
def database(servers: Services, tenant_keys: Mapping[str, str]) -> Iterator[OwnDatabase]:
    with copy_of_migrated(servers, "corpus", template=WITH_TENANTS) as own:
        yield own


@pytest.fixture(scope="session")
def farm(
    database: OwnDatabase,
    own_redis: Callable[[], str],
    tenant_keys: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FarmProcesses]:
    folder = tmp_path_factory.mktemp("farm")
    config = through_farm.write_config(folder, list(served.SCENARIOS))
    environment = {
        **database.environment,
        **SECRETS,
        "REDIS_URL": own_redis(),
        "CELERY_BROKER_URL": own_redis(),  # results do not depend on the broker; brokers are tested elsewhere, both
        "AGENTFARM_CONFIG": str(config),
        "AGENTFARM_LEASE_SECONDS": "4",
    }
    made = FarmProcesses(environment, folder, database.root_url, tenant_keys)
    with running(made):
        made.start_all(*WORKERS)
        yield made


@pytest.fixture(scope="session")
def store(database: OwnDatabase) -> Iterator[Database]:
    """The farm's, as its own code sees it."""
    made = Database(database.settings())
    yield made
    made.dispose()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := report.lines():
        terminalreporter.section("the farm and stock LangGraph")
        for line in lines:
            terminalreporter.line(line)
