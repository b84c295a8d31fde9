"""What every test stands on: strict serialisation before langgraph is imported, and servers of our own.

Also which of pytest-xdist's processes gets which tests: a module's go to one, and so do those of modules that share a
farm, whose processes take longer to start than most of the tests to run.
"""

import os

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.farm import RUNNING

pytest_plugins = ["tests.services"]

#: Each has a conftest.py with a farm for the whole session.
WITH_ONE_FARM = ("tests/contract/differential/", "tests/integration/api/", "tests/integration/farm/policies/")


def sharing_a_farm(nodeid: str) -> str:
    """The folder of a test's farm, else its module."""
    module = nodeid.split("::", 1)[0]
    return next((folder for folder in WITH_ONE_FARM if module.startswith(folder)), module)


class ByFarm(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return sharing_a_farm(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFarm | None:
    return ByFarm(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """A folder's farm ends with its last test: its fixture alone would keep the processes until all tests are over."""
    if nextitem is None or sharing_a_farm(item.nodeid) != sharing_a_farm(nextitem.nodeid):
        for farm in RUNNING:
            farm.stop()
