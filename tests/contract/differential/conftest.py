"""A farm that serves the corpus: web, three workers and beat as processes, for all modules (tests/conftest.py)."""

from collections.abc import Iterator, Mapping

import pytest

from agentfarm.local.services import Services
from agentfarm.persistence.database import Database
from tests.contract.differential import report, served, through_farm
from tests.farm import FarmProcesses
from tests.services import WITH_TENANTS, FarmMaker, OwnDatabase, copy_of_migrated

WORKERS = ("one", "two", "three")


@pytest.fixture(scope="session")
def database(servers: Services, tenant_keys: Mapping[str, str]) -> Iterator[OwnDatabase]:
    with copy_of_migrated(servers, "corpus", template=WITH_TENANTS) as own:
        yield own


@pytest.fixture(scope="session")
def farm(
    farm_over: FarmMaker, database: OwnDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FarmProcesses]:
    config = through_farm.write_config(tmp_path_factory.mktemp("corpus"), list(served.SCENARIOS))
    with farm_over(database, config, *WORKERS, AGENTFARM_LEASE_SECONDS="4") as made:
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
