"""Kills workers (SIGKILL) while they execute nodes of scenarios that were not hit before.

Two kinds die: children of a prefork worker, which hold one node each and are replaced in a moment by their parent, and
whole workers of threads, which hold many and take long to be replaced: one at a time.
"""

import contextlib
import os
import random
import signal
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import redis

from tests.farm import FarmProcesses, Process, children
from tests.in_redis import read_moved

#: Of the prefork worker. Each has the graphs in memory, and uses a core only while it executes.
CHILDREN = 6

#: Of the chances to kill a whole worker, how many are taken.
WHOLE = 0.1

#: Who holds nodes of which graphs right now: in Postgres, and what is given as (workers, threads) that hold in Redis.
HELD = (
    "SELECT w.pid, array_agg(DISTINCT t.metadata->>'graph_id') FROM ("
    "SELECT worker, thread_id FROM farm.node_execution WHERE status = 'leased'"
    " UNION ALL SELECT * FROM unnest(%s::int8[], %s::uuid[])) held (worker, thread_id)"
    " JOIN farm.worker w USING (worker) JOIN farm.thread t USING (thread_id) GROUP BY w.pid"
)


class Holders:
    """Who holds nodes, as the stores say."""

    def __init__(self, postgres: psycopg.Connection[Any], client: redis.Redis) -> None:
        self._postgres, self._redis = postgres, client

    def read(self) -> Mapping[int, Collection[str]]:
        """{pid: the graphs' ids}"""
        held = [
            (one.worker, moved.thread_id)
            for moved in read_moved(self._redis)
            if moved.is_open
            for one in moved.executions
            if one.worker is not None
        ]
        workers, threads = [worker for worker, _ in held], [thread for _, thread in held]
        return dict(self._postgres.execute(HELD, (workers, threads)).fetchall())


class Killer:
    """unhit  scenarios of which no worker has died yet; its user adds those that are to be hit (again)"""

    def __init__(self, farm: FarmProcesses, seed: str) -> None:
        self.farm, self.random = farm, random.Random(seed)
        self.unhit: set[str] = set()
        self.kills = {"child": 0, "worker": 0}
        self._whole = {one.pid: one for one in farm.processes if one.name not in ("web", "beat")}
        self._replacing: Future[None] | None = None
        self._is_over = threading.Event()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Raises at the end what it died of. A prefork worker is started for it, and stays."""
        self._parent = self.farm.start_worker("children", pool="prefork", slots=CHILDREN)
        with (
            psycopg.connect(self.farm.admin_dsn, autocommit=True) as root,
            contextlib.closing(redis.Redis.from_url(self.farm.environment["REDIS_URL"])) as client,
            ThreadPoolExecutor(1) as own,
            ThreadPoolExecutor(1) as starting,
        ):
            work = own.submit(self._run, Holders(root, client), starting)
            try:
                yield
            finally:
                self._is_over.set()
            work.result()
            if self._replacing:
                self._replacing.result()

    def _run(self, holders: Holders, starting: ThreadPoolExecutor) -> None:
        while not self._is_over.wait(self.random.uniform(0.002, 0.02)):
            of_use = [pid for pid, names in holders.read().items() if self.unhit.intersection(names)]
            mortal = [pid for pid in of_use if self._may_die(pid)]
            if not mortal or not self._still_holds(holders, pid := self.random.choice(mortal)):
                continue
            if whole := self._whole.pop(pid, None):
                whole.kill()
                self.farm.processes.remove(whole)
                self.kills["worker"] += 1
                self._replacing = starting.submit(self._replace, f"again-{self.kills['worker']}")
            else:
                os.kill(pid, signal.SIGKILL)
                self.kills["child"] += 1

    def _may_die(self, pid: int) -> bool:
        if pid not in self._whole:
            return pid in children(self._parent.pid)
        if self._replacing and self._replacing.done():
            self._replacing.result()
            self._replacing = None
        return not self._replacing and self.random.random() < WHOLE

    def _still_holds(self, holders: Holders, pid: int) -> bool:
        """Stops it, and looks again: what it holds now it will never finish. Goes on if that is nothing of use."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            held = self.unhit.intersection(holders.read().get(pid, ()))
            if held:
                self.unhit -= held
                return True
            os.kill(pid, signal.SIGCONT)
        return False

    def _replace(self, name: str) -> None:
        made: Process = self.farm.start_worker(name)
        self._whole[made.pid] = made
