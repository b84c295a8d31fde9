"""Postgres' primary is lost and its standby takes over: the farm goes on by itself, with the one that takes writes."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping

import pytest

from agentfarm.local.postgres import ROOT, Postgres
from agentfarm.local.services import Services
from agentfarm.local.state import State
from tests.farm import FarmProcesses, children, wait_for
from tests.integration.away.load import Load
from tests.integration.away.standby import Standby, of_both
from tests.integration.away.test_come_back import COMMITS, nobody_restarts, only_what_may_be_told, under_way


@pytest.fixture(scope="module")
def standby(mortals: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standby]:
    made = Standby(Postgres(State(mortals.folder)), tmp_path_factory.mktemp("standby"))
    made.follow()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def addresses(mortals: Services, standby: Standby) -> Mapping[str, str]:
    return {
        name: of_both(url, standby) if name.startswith("DATABASE") else url
        for name, url in mortals.environment().items()
    }


@pytest.fixture(scope="module")
def root_url(mortals: Services, standby: Standby) -> str:
    return of_both(Postgres(State(mortals.folder)).url(ROOT), standby)


def lose(server: Postgres) -> None:
    """All of its processes at once, as with its host."""
    assert server.pid is not None
    for pid in [server.pid, *children(server.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_standby_takes_over(farm: FarmProcesses, mortals: Services, standby: Standby) -> None:
    with nobody_restarts(farm), Load(farm) as load:
        under_way(farm, load)
        lose(Postgres(State(mortals.folder)))
        wait_for(lambda: load.told["503"] > 0, what="a client that is told to come back")
        standby.promote()

        promoted = time.monotonic()
        ((before,),) = farm.query(COMMITS)
        wait_for(lambda: farm.query(COMMITS)[0][0] > before, what="the first commit", seconds=60)
        first = time.monotonic() - promoted
        known = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > known + 2, what="new runs", seconds=60)
    took = load.check()

    print(f"first commit {first:.2f} s after the standby was promoted, all done {took:.1f} s after the load ended")
    only_what_may_be_told(load)
    assert first < 10
