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
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import psycopg

from agentfarm.conf import Settings
from agentfarm.errors import StoreUnavailable
from agentfarm.persistence.connections import STATEMENT_TIMEOUT_SECONDS, connect

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


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """A call on a run whose answer did not come: it may have leased something to this process that nobody works on.

    first  the lease under which the call was made, given back before anything is looked for: with its fence moved, a
           call that Postgres has not carried out by then never will be. None for a claim, which has none yet
    judge  which of what was found nobody here works on; None when that cannot be told now
    """

    tenant_id: UUID
    run_id: UUID
    worker: int
    first: Held | None
    judge: Callable[[Sequence[Held]], Sequence[Held] | None]


class WorkerLease:
    """name    how operators see the process, for example Celery's node name with the pid
    queues  that it reads, as graphs name them: the healer looks whether one reads the quarantine
    """

    def __init__(self, settings: Settings, *, name: str, queues: Sequence[str] = ()) -> None:
        self.name, self.build, self.queues = name, settings.build, list(queues)
        self._url = settings.database_url.get_secret_value()
        self._settings = settings
        self._beat_seconds = settings.heartbeat_seconds
        self._health_file = settings.health_file
        self._id: int | None = None
        self._registered = threading.Event()
        self._wake = threading.Event()
        self._stopping = self._takes_no_more = False
        self._returns: deque[Held] = deque()
        self._answers: deque[tuple[float, LostAnswer]] = deque()  # to be looked into from then on
        self._thread = threading.Thread(target=self._live, name="farm-lease", daemon=True)

    def start(self) -> None:
        """Beat from now on; back when registered. After a fork, in the child. Raises StoreUnavailable."""
        self._thread.start()
        self.worker_id()

    def worker_id(self) -> int:
        """The id to claim under now; waits while the process is not registered. Raises StoreUnavailable."""
        if self._takes_no_more:
            raise StoreUnavailable("This worker ends, so it takes no more work; another does.")
        self._registered.wait(REGISTER_TIMEOUT_SECONDS)
        worker = self._id
        if worker is None:
            raise StoreUnavailable("This worker is not registered with the database, so it may not take work.")
        return worker

    def is_known_as(self, worker: int) -> bool:
        """Whether what is leased under this id is still held by this process, and may be more. Never waits."""
        return worker == self._id and not self._takes_no_more

    def give_back(self, held: Held, *, at_once: bool = True) -> None:
        """This process will not finish it: let another have it. Never blocks, never raises.

        at_once  wake the thread that does it; without it takes no lock, and so may be called by the garbage collector
        """
        self._returns.append(held)
        if at_once:
            self._wake.set()

    def give_back_strays(self, lost: LostAnswer) -> None:
        """Let another have what a call may have leased to this process unnoticed. Never blocks, never raises."""
        now = time.monotonic()
        # Twice: a claim, or the second transaction of a settle, may be carried out as late as a statement may end.
        self._answers.append((now, lost))
        self._answers.append((now + STATEMENT_TIMEOUT_SECONDS + 1, lost))
        self._wake.set()

    def take_no_more(self) -> None:
        """From now on no claim of this process succeeds."""
        self._takes_no_more = True

    def stop(self, *, seconds: float = BEAT_TIMEOUT_SECONDS * 2) -> None:
        """End cleanly: what this process still holds may be taken over from now on. Back after so long at most."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    # ----------------------------------------------------------------------- the thread

    def _live(self) -> None:
        while not self._stopping:
            try:
                with self._connect() as connection:
                    self._register(connection)
                    self._beat_while_known(connection)
            except psycopg.Error as error:
                logger.warning("the worker's lease is lost", extra={"worker": self.name, "why": type(error).__name__})
            except Exception:
                # Without this thread the process would refuse every message for ever.
                logger.exception("the worker's lease is lost", extra={"worker": self.name})
            finally:
                self._registered.clear()
                self._id = None
            if not self._stopping:
                # Not `_wake`: each node that is given back meanwhile would hasten the next try.
                time.sleep(RECONNECT_SECONDS)

    def _connect(self) -> psycopg.Connection[Any]:
        return connect(
            self._url,
            self._settings,
            application="agentfarm-lease",
            options=f"-c statement_timeout={BEAT_TIMEOUT_SECONDS}s",
            answer_seconds=BEAT_TIMEOUT_SECONDS + 1.0,
            autocommit=True,
        )

    def _register(self, connection: psycopg.Connection[Any]) -> None:
        worker = secrets.randbits(62)
        place = (self.name, socket.gethostname(), os.getpid(), self.build, self.queues)
        connection.execute("SELECT farm.register(%s, %s, %s, %s, %s, %s::text[])", (worker, *place))
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
            if self._health_file is not None:
                self._health_file.touch()
        self._return_all(connection)
        connection.execute("SELECT farm.leave(%s)", (worker,))

    def _return_all(self, connection: psycopg.Connection[Any]) -> None:
        """What was asked for until now, once each. What meets somebody's row lock is tried again after a beat."""
        end = time.monotonic() + self._beat_seconds  # the beat must not wait for many of them
        for _ in range(len(self._returns)):
            held = self._returns[0]  # taken out when it is done: a lost connection must not lose it
            is_done = self._try(connection, partial(self._return, connection, held))
            self._returns.popleft()
            if not is_done:
                self._returns.append(held)
            if time.monotonic() > end:
                return
        for _ in range(len(self._answers)):
            due, lost = self._answers[0]
            is_over = lost.worker != self._id  # the lock of that id is free: anybody may take over what it held
            if not is_over and due <= time.monotonic():
                is_over = self._try(connection, partial(self._look, connection, lost))
            self._answers.popleft()
            if not is_over:
                self._answers.append((due, lost))
            if time.monotonic() > end:
                return

    def _try(self, connection: psycopg.Connection[Any], act: Callable[[], bool | None]) -> bool:
        """Whether it is done. One that fails must not cost the session, and with it all that this process holds.

        act  answers False where it cannot be done yet
        """
        try:
            return act() is not False
        except psycopg.Error as error:
            if connection.closed:
                raise
            logger.warning(
                "a lease could not be given back yet", extra={"worker": self.name, "why": type(error).__name__}
            )
            return False

    def _return(self, connection: psycopg.Connection[Any], held: Held) -> None:
        connection.execute(
            "SELECT farm.give_back(%s, %s, %s, %s, %s, %s)",
            (held.tenant_id, held.run_id, held.checkpoint_id, held.execution_id, held.fence, held.worker),
        )

    def _look(self, connection: psycopg.Connection[Any], lost: LostAnswer) -> bool:
        """Whether its strays are given back; False: they cannot be told now."""
        if lost.first is not None:
            self._return(connection, lost.first)
        rows = connection.execute(
            "SELECT * FROM farm.leased_to(%s, %s, %s)", (lost.tenant_id, lost.run_id, lost.worker)
        ).fetchall()
        found = [Held(lost.tenant_id, lost.run_id, at, execution, fence, lost.worker) for at, execution, fence in rows]
        strays = lost.judge(found)
        for held in strays or ():
            self._return(connection, held)
        return strays is not None
