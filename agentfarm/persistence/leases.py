"""The life of a worker process, as the database sees it: a session lock that the kernel frees when the process dies,
and a row that it refreshes.

One lease a process (each prefork child has its own), on a connection of its own, from a thread that waits for nothing
but the clock. While the lock is held nobody takes over what this process executes; when it is free, anybody may.
A process that lost its connection has lost its lock, so it comes back under a new id: what it executes meanwhile may be
taken over, and its fence refuses the late commit. Safety never rests on the lock.
"""

import logging
import os
import secrets
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

from agentfarm.conf import Settings
from agentfarm.errors import StoreUnavailable
from agentfarm.persistence.database import KEEPALIVES

logger = logging.getLogger(__name__)

#: A beat that Postgres does not answer within this is a lost connection.
BEAT_TIMEOUT_SECONDS: Final = 5

#: Between two attempts to connect.
RECONNECT_SECONDS: Final = 0.3

#: How long a claim waits for the process to be registered again before the message goes back to the queue.
REGISTER_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Held:
    """A lease of this process on a node execution (execution_id ZERO: on the advance of a superstep)."""

    tenant_id: UUID
    run_id: UUID
    checkpoint_id: UUID
    execution_id: UUID
    fence: int
    worker: int


class WorkerLease:
    """name  how operators see the process, for example Celery's node name with the pid"""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self.name = name
        self._url = settings.database_url.get_secret_value()
        self._connect_timeout = max(1, round(settings.connect_timeout_seconds))
        self._beat_seconds = settings.heartbeat_seconds
        self._id: int | None = None
        self._registered = threading.Event()
        self._wake = threading.Event()
        self._stopping = False
        self._returns: deque[Held] = deque()
        self._thread = threading.Thread(target=self._live, name="farm-lease", daemon=True)

    def start(self) -> None:
        """Beat from now on; back when registered. After a fork, in the child. Raises StoreUnavailable."""
        self._thread.start()
        self.worker_id()

    def worker_id(self) -> int:
        """The id to claim under now; waits while the process is not registered. Raises StoreUnavailable."""
        self._registered.wait(REGISTER_TIMEOUT_SECONDS)
        worker = self._id
        if worker is None:
            raise StoreUnavailable("This worker is not registered with the database, so it may not take work.")
        return worker

    def give_back(self, held: Held, *, at_once: bool = True) -> None:
        """This process will not finish it: let another have it. Never blocks, never raises.

        at_once  wake the thread that does it; without it takes no lock, and so may be called by the garbage collector
        """
        self._returns.append(held)
        if at_once:
            self._wake.set()

    def stop(self) -> None:
        """End cleanly: what this process still holds may be taken over from now on."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(BEAT_TIMEOUT_SECONDS * 2)

    # ----------------------------------------------------------------------- the thread

    def _live(self) -> None:
        while not self._stopping:
            try:
                with self._connect() as connection:
                    self._register(connection)
                    self._beat_while_known(connection)
            except psycopg.Error as error:
                logger.warning("the worker's lease is lost", extra={"worker": self.name, "why": type(error).__name__})
            finally:
                self._registered.clear()
                self._id = None
            if not self._stopping:
                self._wake.wait(RECONNECT_SECONDS)

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=self._connect_timeout,
            application_name="agentfarm-lease",
            options=f"-c statement_timeout={BEAT_TIMEOUT_SECONDS}s",
            **KEEPALIVES,  # type: ignore[arg-type]  # libpq's own words
        )

    def _register(self, connection: psycopg.Connection[Any]) -> None:
        worker = secrets.randbits(62)
        place = (self.name, socket.gethostname(), os.getpid())
        connection.execute("SELECT farm.register(%s, %s, %s, %s)", (worker, *place))
        self._id = worker
        self._registered.set()

    def _beat_while_known(self, connection: psycopg.Connection[Any]) -> None:
        """Until the process stops, or somebody has declared it dead."""
        worker = self._id
        while not self._stopping:
            self._wake.wait(self._beat_seconds)
            self._wake.clear()
            self._return_all(connection)
            row = connection.execute("SELECT farm.beat(%s)", (worker,)).fetchone()
            if row is None or not row[0]:
                logger.warning("the worker was declared dead and takes a new id", extra={"worker": self.name})
                return
        self._return_all(connection)
        connection.execute("SELECT farm.leave(%s)", (worker,))

    def _return_all(self, connection: psycopg.Connection[Any]) -> None:
        while self._returns:
            held = self._returns[0]  # taken out when it is done: a lost connection must not lose it
            connection.execute(
                "SELECT farm.give_back(%s, %s, %s, %s, %s, %s)",
                (held.tenant_id, held.run_id, held.checkpoint_id, held.execution_id, held.fence, held.worker),
            )
            self._returns.popleft()
