"""A process of the farm that dies at a chosen effect, as a process dies: nothing after that point happens.

An effect is what others can see: a statement that is sent to Postgres, an event, a message, an acknowledgement. Each is
two points: before it, and after it while its answer is lost. Death closes the process's sockets, its session lock with
them, and raises `Died`, a BaseException; from then on every effect raises again, so that no `finally` and no `except`
of the product can do what a dead process cannot.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import event

from agentfarm.conf import Settings
from agentfarm.engine.graphs import GraphRegistry
from agentfarm.flow.farm import Farm
from agentfarm.flow.settle import tell
from agentfarm.flow.wave import Durations, Waves
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.database import Database, Databases
from agentfarm.persistence.executions import PostgresExecutions
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.leases import WorkerLease
from agentfarm.persistence.node_cache import RedisNodeCaches
from agentfarm.persistence.redis_tier.claims import RedisClaims
from agentfarm.persistence.redis_tier.healing import RedisHealing
from agentfarm.persistence.redis_tier.leases import RedisHeld
from agentfarm.persistence.redis_tier.scripts import ANSWER_SECONDS, Place, RedisScripts
from agentfarm.persistence.redis_tier.servers import OneServer, Server
from agentfarm.persistence.redis_tier.write_behind import WriteBehind
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.persistence.store import PostgresStores
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.records import Event
from agentfarm.run_options import RunAhead
from agentfarm.streaming.log import RedisEventLog
from tests.integration.crash.cases import SHORT, TASKS


class Died(BaseException):
    """The process is gone. A BaseException: nothing of the product may take it for an error that it can answer."""


class Fate:
    """Counts the effects of one process, and ends it at one of them.

    dies_at  the number of the point, from 1; 0: it lives
    """

    def __init__(self, dies_at: int = 0) -> None:
        self.dies_at = dies_at
        self.points: list[str] = []
        self.is_dead = False
        self.tasks: Counter[str] = Counter()  # as they were counted when it died
        self._lock = threading.Lock()
        self.when_dead: Callable[[], None] = lambda: None

    def at(self, point: str) -> None:
        """Raises Died, once it is dead."""
        if not self.lives_past(point):
            raise Died

    def lives_past(self, point: str) -> bool:
        """For what must not raise, whatever happens: a sink is called in the middle of anything."""
        with self._lock:
            if not self.is_dead:
                self.points.append(point)
                if len(self.points) == self.dies_at:
                    self.is_dead = True
                    self.when_dead()
            return not self.is_dead

    @contextlib.contextmanager
    def effect(self, name: str) -> Any:
        self.at(f"before {name}")
        yield
        self.at(f"after {name}")


# --------------------------------------------------------------------------- Postgres


class Sockets:
    """The connections of one process, closed all at once as the kernel does it."""

    def __init__(self) -> None:
        self.connections: list[psycopg.Connection[Any]] = []
        self.pids: list[int] = []  # of the backends
        self._own: list[socket.socket] = []

    def add(self, connection: psycopg.Connection[Any]) -> None:
        self.connections.append(connection)
        self.pids.append(connection.info.backend_pid)
        self._own.append(socket.socket(fileno=os.dup(connection.pgconn.socket)))  # whoever closes it meanwhile

    def cut(self) -> None:
        """From here on Postgres hears nothing of them, not even a goodbye."""
        for own in self._own:
            with contextlib.suppress(OSError):  # closed by the product before
                own.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        for own in self._own:
            own.close()


class MortalDatabase(Database):
    """The product's, with a point before and after each statement and each commit."""

    def __init__(self, settings: Settings, fate: Fate, sockets: Sockets, **options: Any) -> None:
        super().__init__(settings, **options)
        self.fate = fate
        event.listen(self.engine, "connect", lambda connection, record: sockets.add(connection))
        event.listen(self.engine, "before_cursor_execute", self._before)
        event.listen(self.engine, "after_cursor_execute", self._after)
        dialect: Any = self.engine.dialect
        commit, roll_back = dialect.do_commit, dialect.do_rollback

        def do_commit(connection: Any) -> None:
            with fate.effect("COMMIT"):
                commit(connection)

        def do_rollback(connection: Any) -> None:
            if fate.is_dead:
                raise Died
            roll_back(connection)

        dialect.do_commit, dialect.do_rollback = do_commit, do_rollback

    def _before(self, connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        self.fate.at(f"before {_named(statement)}")

    def _after(self, connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        self.fate.at(f"after {_named(statement)}")

    def _call(self, statement: Any, params: Any) -> Any:
        with self.fate.effect(statement.name):
            return super()._call(statement, params)

    def call_all(self, statement: Any, each: Any) -> Any:
        with self.fate.effect(statement.name):
            return super().call_all(statement, each)


def _named(statement: str) -> str:
    """The function of ours that it calls, or its first words."""
    _, called, rest = statement.partition("farm.")
    return rest.partition("(")[0].split()[0] if called else " ".join(statement.split()[:2])


class MortalLease(WorkerLease):
    """The product's. Its thread ends with the process, and takes its session lock with it."""

    def __init__(self, settings: Settings, fate: Fate, sockets: Sockets, *, name: str) -> None:
        super().__init__(settings, name=name)
        self.fate, self.sockets = fate, sockets

    def _connect(self) -> psycopg.Connection[Any]:
        if self.fate.is_dead:
            raise psycopg.OperationalError("this process is dead")
        connection = super()._connect()
        self.sockets.add(connection)
        return connection

    def die(self) -> None:
        self._stopping = True
        self._wake.set()


# --------------------------------------------------------------------------- the Redis that moves runs


class MortalServer(Server):
    """The product's, with a point before and after each script."""

    def __init__(self, url: str, fate: Fate) -> None:
        super().__init__(url, answer_seconds=ANSWER_SECONDS)
        self.fate = fate

    def run(self, name: str, key: str, *args: Any) -> Any:
        with self.fate.effect(name):
            return super().run(name, key, *args)

    def run_many(self, name: str, calls: Any) -> Any:
        with self.fate.effect(name):
            return super().run_many(name, calls)


class MortalScripts(RedisScripts):
    def __init__(self, url: str, fate: Fate) -> None:
        self.servers = OneServer(MortalServer(url, fate))


class PunctualBehind(WriteBehind):
    """The product's without its thread: every second commit is handed in at once, by who made it, so that a death is
    always at the same place; what is given back, likewise."""

    def __init__(self, scripts: RedisScripts, databases: Databases) -> None:
        super().__init__(scripts, databases)
        self._touched = 0

    def begin(self) -> None:
        pass

    def touch(self, place: Place) -> None:
        super().touch(place)
        self._touched += 1
        if self._touched % 2 == 0:
            self._round()

    def recall_later(self, held: RedisHeld) -> None:
        super().recall_later(held)
        self._round()


# --------------------------------------------------------------------------- streams and messages


class MortalLog:
    """The product's event log in front of a real stream.

    is_lazy  the process's writer sends nothing before it is asked to (flush), so that a death loses all that waits;
             else it is as fast as can be, and a death loses nothing that was handed over
    """

    def __init__(self, real: RedisEventLog, fate: Fate, *, is_lazy: bool) -> None:
        self.real, self.fate, self.is_lazy = real, fate, is_lazy
        self.waiting: list[tuple[UUID, UUID, Event]] = []

    def append(self, tenant_id: UUID, run_id: UUID, event: Event) -> None:
        if self.fate.lives_past("before an event"):
            self.waiting.append((tenant_id, run_id, event))
            if not self.is_lazy:
                self._send()
            self.fate.lives_past("after an event")

    def flush(self, *, seconds: float = 5.0) -> None:
        with self.fate.effect("a flush"):
            self._send()

    def _send(self) -> None:
        for one in self.waiting:
            self.real.append(*one)
        self.waiting.clear()
        self.real.flush()

    def close_run(self, tenant_id: UUID, run_id: UUID, events: Sequence[Event]) -> None:
        with self.fate.effect("the end of a stream"):
            self.real.close_run(tenant_id, run_id, events)

    def follow(self, tenant_id: UUID, run_id: UUID, *, after: str) -> AsyncIterator[Event | None]:
        return self.real.follow(tenant_id, run_id, after=after)


class MortalPublisher:
    """Messages go into a list, which stands for the broker."""

    def __init__(self, send: Callable[[ExecuteNode], None], length: Callable[[], int], fate: Fate) -> None:
        self.send, self.length, self.fate = send, length, fate

    def publish(self, messages: Sequence[ExecuteNode]) -> None:
        for message in messages:
            with self.fate.effect("a message"):
                self.send(message)

    def queue_length(self, queue: str) -> int | None:
        return self.length()


# --------------------------------------------------------------------------- a process


@dataclass(frozen=True, slots=True)
class Outside:
    """What all processes of a farm share: the servers, the graphs, the broker."""

    settings: Settings
    graphs: GraphRegistry
    log: RedisEventLog
    caches: RedisNodeCaches
    send: Callable[[ExecuteNode], None]
    queue_length: Callable[[], int]


class Process:
    """One process: the product's flow and stores, joined as wiring.py does it, every effect a point of its fate.

    is_worker  it holds a lease, and so can claim
    fate       where it dies, if that is not the number of a point
    """

    def __init__(
        self,
        outside: Outside,
        name: str,
        *,
        dies_at: int = 0,
        is_worker: bool = False,
        is_lazy: bool = False,
        fate: Fate | None = None,
    ) -> None:
        self.name = name
        self.fate = fate or Fate(dies_at)
        self.sockets = Sockets()
        settings, fate = outside.settings, self.fate
        self.app = MortalDatabase(settings, fate, self.sockets)
        self.ops = MortalDatabase(settings, fate, self.sockets, url=settings.ops_url)  # connects when it is used
        self.lease = MortalLease(settings, fate, self.sockets, name=name)
        databases = Databases(self.app)

        def serde_for(graph_id: str | None) -> Any:
            return serde_of(outside.graphs.get(graph_id).graph if graph_id else None)

        log: Any = MortalLog(outside.log, fate, is_lazy=is_lazy)
        self.scripts = MortalScripts(settings.redis_url.get_secret_value(), fate)
        self.behind = PunctualBehind(self.scripts, databases)
        # No lease is renewed while a story lasts: that would be a point of another thread's.
        redis = RedisClaims(self.scripts, self.behind, lease_seconds=86_400)
        self.farm = Farm(
            graphs=outside.graphs,
            executions=PostgresExecutions(databases, serde_for, self.lease, settings, redis),
            runs=PostgresRuns(databases, serde_for, behind=self.behind),
            threads=PostgresThreads(databases, serde_for, behind=self.behind),
            stores=PostgresStores(databases, outside.graphs.store, max_value_bytes=settings.store_max_value_bytes),
            healing=PostgresHealing(
                self.ops,
                self.app,
                settings,
                redis=RedisHealing(self.scripts, self.behind, late_seconds=0.0, lease_seconds=0.0),
            ),
            publisher=MortalPublisher(outside.send, outside.queue_length, fate),
            log=log,
            caches=outside.caches,
            keys=None,  # type: ignore[arg-type]  # the API's business
            run_async=_run_async,
            retry_message_seconds=0.0,  # each further try is a message, and so dies on its own
            run_ahead=RunAhead(nodes=100, seconds=60.0),
            waves=_waves(),
        )
        self.behind.tell = partial(tell, self.farm)
        fate.when_dead = self._die
        if is_worker:
            self.lease.start()

    def _die(self) -> None:
        self.fate.tasks = Counter(TASKS)  # a node that is not told may go on, and nobody would see it
        self.sockets.cut()  # first: the lease's thread says goodbye when it ends
        self.lease.die()

    def bury(self, root: psycopg.Connection[Any]) -> None:
        """Once it is dead: wait until Postgres has noticed, then let go of what Python still holds of it."""
        if self.lease._thread.is_alive():
            self.lease._thread.join(10)
        wait_until_gone(root, self.sockets.pids, self.name)
        self._let_go()

    def stop(self) -> None:
        """A clean end."""
        self.lease.stop()
        self._let_go()

    def _let_go(self) -> None:
        self.scripts.close()
        self.sockets.close()
        for database in (self.app, self.ops):
            database.dispose()


class _AsTold(Durations):
    """Of the cases that are to be waves, whatever a machine makes of them."""

    def find(self, graph_id: str, node: str) -> float | None:
        return 0.0 if graph_id in SHORT else None


def _waves() -> Waves:
    """One message beside the wave's first. Nobody watches for long nodes: that would be in a thread of its own, and so
    at no certain point."""
    made = Waves(1)
    made.durations = _AsTold()
    return made


def wait_until_gone(root: psycopg.Connection[Any], backends: Sequence[int], name: str) -> None:
    """Until Postgres has noticed that the process at the other end is dead."""
    end = time.monotonic() + 10
    while root.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)", (list(backends),)).fetchone():
        assert time.monotonic() < end, f"Postgres has not noticed the death of {name}"
        time.sleep(0.0005)


def _run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)
