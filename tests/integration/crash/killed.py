"""A worker that is a process of the machine's, and dies by SIGKILL at a chosen effect.

It is the product's flow and stores as in mortal.py, in a child of Python's fork server: it gets messages through a pipe
and works them, sends through it what it publishes, and when it comes to the place where it is to die, says so and goes
no further. Its parent then kills it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import psycopg

from agentfarm.conf import Settings
from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.graphs import GraphRegistry
from agentfarm.flow import step
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.node_cache import RedisNodeCaches
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.streaming.log import RedisEventLog
from tests.integration.crash.cases import CASES
from tests.integration.crash.mortal import Fate, Outside, Process, wait_until_gone

#: Its server imports the product once, and each worker is a fork of it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])

#: Of one message, on a machine that has much else to do.
SECONDS = 60.0


class Stops(Fate):
    """At the effect of that name, when it has come so often: it says so, and nothing of this thread happens after."""

    def __init__(self, point: str, times: int, say: Callable[[], None]) -> None:
        super().__init__()
        self.point, self.times, self.say = point, times, say

    def lives_past(self, point: str) -> bool:
        lives = super().lives_past(point)
        if point == self.point and self.points.count(point) == self.times:
            self.say()
            threading.Event().wait()
        return lives


class KilledWorker:
    """One worker process, to the moment at which it was killed.

    place  (point, how often it has come by then)
    """

    def __init__(self, settings: Settings, redis_url: str, place: tuple[str, int]) -> None:
        self.place = place
        self.is_dead = False
        self._pipe, others = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_work, args=(settings, redis_url, place, others), daemon=True)
        self._process.start()
        others.close()

    def work(
        self,
        message: ExecuteNode,
        *,
        redelivered: bool,
        send: Callable[[ExecuteNode], None],
        root: psycopg.Connection[Any],
    ) -> bool:
        """Whether it lived through this message. send: gets what it publishes. root: sees Postgres' backends."""
        self._pipe.send((message, redelivered))
        while True:
            assert self._pipe.poll(SECONDS), f"a worker is silent that was to die {self.place}"
            kind, told = self._pipe.recv()
            if kind == "publishes":
                send(told)
            elif kind == "done":
                return True
            else:
                self._kill()
                wait_until_gone(root, told, "a killed worker")
                return False

    def _kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(10)
        assert self._process.exitcode == -signal.SIGKILL
        self.is_dead = True
        self._pipe.close()

    def stop(self) -> None:
        """However it ends: the process is gone afterwards."""
        if not self.is_dead:
            self._kill()


def _work(settings: Settings, redis_url: str, place: tuple[str, int], pipe: Connection) -> None:
    """The child. It never returns: its end is the signal."""
    graphs = GraphRegistry({name: describe_graph(name, case.graph) for name, case in CASES.items()})
    caches = RedisNodeCaches(redis_url, lambda graph_id: FaithfulSerializer(), max_bytes=1 << 20, max_seconds=60)
    outside = Outside(
        settings, graphs, RedisEventLog(redis_url), caches, lambda message: pipe.send(("publishes", message)), lambda: 0
    )
    fate = Stops(*place, lambda: pipe.send(("here", worker.sockets.pids)))
    worker = Process(outside, "a worker that is killed", is_worker=True, fate=fate)
    while True:
        message, redelivered = pipe.recv()
        step.execute_node(worker.farm, message, redelivered=redelivered)
        fate.at("before the acknowledgement")
        pipe.send(("done", None))
