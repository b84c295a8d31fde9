"""A worker may die at any instant, again and again: what a scenario comes to stays what it is by stock LangGraph.

Workers are killed (SIGKILL) while they hold nodes of scenarios that were not hit before. A sample of the corpus, by
seed: DIFFERENTIAL_SEED (today's date), DIFFERENTIAL_SAMPLE (how many; "all" in `make differential`, where each scenario
has to be hit).
"""

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from agentfarm.persistence.database import Database
from tests.contract.differential import report, stock
from tests.contract.differential.accepted import ACCEPTED, TELLS_ATTEMPTS
from tests.contract.differential.compare import differences_after_kills
from tests.contract.differential.driving import Outcome, drive_all
from tests.contract.differential.scenario import Record, Scenario
from tests.contract.differential.served import SCENARIOS
from tests.farm import FarmProcesses

AT_ONCE = 6

#: Of one scenario with workers dying around it: it waits for those that come, which takes long on a busy machine.
SECONDS = 300.0

SEED = os.environ.get("DIFFERENTIAL_SEED") or f"{datetime.now(UTC):%Y-%m-%d}"
SAMPLE = os.environ.get("DIFFERENTIAL_SAMPLE") or "8"

#: Seconds after which a scenario is no longer driven again for want of a hit, if the sample has enough of them.
PATIENCE = 60.0

#: Of the scenarios, how many must be hit.
ENOUGH = 1.0 if SAMPLE == "all" else 0.5

HELD = (
    "SELECT DISTINCT t.metadata->>'graph_id' FROM farm.node_execution e"
    " JOIN farm.worker w ON w.worker = e.worker JOIN farm.thread t ON t.thread_id = e.thread_id"
    " WHERE e.status = 'leased' AND w.pid = ANY(%s)"
)


def _chosen() -> list[str]:
    comparable = [name for name in SCENARIOS if name not in TELLS_ATTEMPTS and name not in ACCEPTED]
    if SAMPLE == "all":
        return comparable
    return sorted(random.Random(SEED).sample(comparable, int(SAMPLE)))


CHOSEN = _chosen()


class Killer:
    """Kills workers that hold a node of a scenario which was not hit yet, and starts others in their place.

    One worker is always left. Those that come are started beside it all: on a busy machine that takes a while.
    """

    def __init__(self, farm: FarmProcesses) -> None:
        self.farm, self.random = farm, random.Random(SEED)
        self.unhit = set(CHOSEN)
        self.kills = 0
        self._ready = [one for one in farm.processes if one.name not in ("web", "beat")]
        self._is_over = threading.Event()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Raises at the end what it died of."""
        with ThreadPoolExecutor(1) as own, ThreadPoolExecutor(1) as starting:
            work = own.submit(self._run, starting)
            try:
                yield
            finally:
                self._is_over.set()
            for started in work.result():
                started.result()

    def _run(self, starting: ThreadPoolExecutor) -> list[Future[None]]:
        started: list[Future[None]] = []
        while not self._is_over.wait(self.random.uniform(0.005, 0.05)):
            worker = self.random.choice(self._ready)
            if len(self._ready) < 2:
                continue
            worker.freeze()
            held = {name for (name,) in self.farm.query(HELD, [worker.pid])}
            if not held & self.unhit:
                worker.thaw()
                continue
            worker.kill()
            self._ready.remove(worker)
            self.farm.processes.remove(worker)
            self.unhit -= held
            self.kills += 1
            started.append(starting.submit(self._start, f"again-{self.kills}"))
        return started

    def _start(self, name: str) -> None:
        self._ready.append(self.farm.start_worker(name))


@pytest.fixture(scope="module")
def after_kills(farm: FarmProcesses, store: Database) -> Mapping[str, Outcome]:
    began, killer = time.monotonic(), Killer(farm)

    def again(scenario: Scenario, record: Record) -> bool:
        if record.lost:
            return False
        killer.unhit.add(scenario.name)
        return time.monotonic() - began < PATIENCE or len(killer.unhit) > len(CHOSEN) * (1 - ENOUGH)

    with killer.at_work():
        found = asyncio.run(
            drive_all([SCENARIOS[name] for name in CHOSEN], farm, store, at_once=AT_ONCE, seconds=SECONDS, again=again)
        )
    print(f"seed {SEED}: {len(CHOSEN)} scenarios, {killer.kills} kills")
    return found


@pytest.mark.timeout(7200 if SAMPLE == "all" else 900)  # the first one waits for all of them
@pytest.mark.parametrize("name", CHOSEN)
def test_a_scenario_comes_to_the_same_after_kills(name: str, after_kills: Mapping[str, Outcome]) -> None:
    found = after_kills[name]
    if isinstance(found, Exception):
        raise found

    report.note_kills(SCENARIOS[name], found.lost)
    scenario = SCENARIOS[name]
    assert not differences_after_kills(stock.drive(scenario), found, parallel=scenario.parallel), f"seed {SEED}"


def test_the_sample_was_hit(after_kills: Mapping[str, Outcome]) -> None:
    hit = [name for name, found in after_kills.items() if isinstance(found, Record) and found.lost]

    assert len(hit) >= len(CHOSEN) * ENOUGH
