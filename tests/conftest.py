"""What every test stands on: strict serialisation before langgraph is imported, and servers of our own.

Also which of pytest-xdist's processes gets which tests: a module's go to one, and so do those of modules that share a
farm, whose processes take longer to start than most of the tests to run.
"""

import os

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

pytest_plugins = ["tests.services"]

#: Each has a conftest.py with a farm for the whole session.
WITH_ONE_FARM = ("tests/contract/differential/", "tests/integration/api/", "tests/integration/farm/policies/")


class ByFarm(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        module: str = super()._split_scope(nodeid)
        return next((folder for folder in WITH_ONE_FARM if module.startswith(folder)), module)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFarm | None:
    return ByFarm(config, log) if config.getoption("dist") == "loadfile" else None
