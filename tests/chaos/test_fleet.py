"""The supervisor starts again whatever ended, and tells what no fault has ended."""

import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.chaos.fleet import PROCESSES, Fleet
from tests.chaos.proxy import Network
from tests.chaos.servers import Servers
from tests.farm import Process, wait_for


class Sleepers(Fleet):
    """Its processes do nothing."""

    def _start(self, name: str) -> None:
        self.running[name] = Process(name, subprocess.Popen(["sleep", "60"]), self.folder)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Sleepers]:
    servers = cast("Servers", SimpleNamespace(root_url=""))
    network = cast("Network", SimpleNamespace(proxy=lambda *_: None))
    made = Sleepers(servers, network, {}, tmp_path, random.Random(1))
    for name in PROCESSES:
        made._start(name)
    yield made
    made.kill_all()
    for process in made.running.values():
        process.kill()


def test_what_ends_is_started_again_and_told_unless_it_was_killed(fleet: Sleepers) -> None:
    fleet.running["one"].popen.send_signal(signal.SIGTERM)
    fleet.running["two"].kill()

    fleet._supervisor.start()
    wait_for(lambda: fleet.restarts == 2, what="two processes, started again")

    assert fleet.ended == [("one", -signal.SIGTERM)]


def test_a_worker_is_stopped_at_a_moment_that_is_worth_it_and_goes_on_after_it(fleet: Sleepers) -> None:
    looks: list[str] = []

    def is_worth_it(pids: list[int]) -> bool:
        looks.append(_state(pids[0]))
        return len(looks) == 3

    with fleet.still("one", is_worth_it, seconds=60) as pids:
        assert _state(pids[0]) == "T"

    assert looks == ["T", "T", "T"]
    wait_for(lambda: _state(pids[0]) == "S", what="the process, going on")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0]
