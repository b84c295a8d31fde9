"""How a worker ends: nodes that run may end within a time; what has not is given back, and the process goes.

Celery alone would wait for a node however long it takes, until the orchestrator kills the worker; its nodes would then
be taken over as from the dead, and count as lost to it. Neither an OS thread nor native code can be told to stop, so
the process ends around them: a late commit of theirs is fenced out.
"""

import atexit
import contextlib
import logging
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from billiard import active_children

logger = logging.getLogger(__name__)

#: How long the database may take to hear what is given back.
HAND_BACK_SECONDS: Final = 3.0

#: By which the parent of prefork children tells them. Blocked in all of a child's threads but the one that waits for
#: it, so that a node in the middle of native code does not hold it up; programs that nodes start have it blocked, too.
GIVE_BACK: Final = signal.SIGUSR2

#: By which it says before that they are to end soon. One that a child which does not wait for it yet ignores.
END_SOON: Final = signal.SIGURG


class Drain(threading.Thread):
    """Waits until it is asked to end, says so, waits for the grace, then gives back and ends the process with 0.

    A worker whose nodes end before just ends, and this thread with it.

    end_soon  tells those who would go on by themselves, from one node to the next
    """

    def __init__(self, seconds: float, end_soon: Callable[[], None], hand_back: Callable[[], None]) -> None:
        super().__init__(name="drain", daemon=True)
        self._seconds = seconds
        self._end_soon = end_soon
        self._hand_back = hand_back
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()  # may be put into by a signal's handler

    def ask(self, how: str = "Warm", **_: object) -> None:
        """Celery's signal worker_shutting_down. Asked a second time, or for a cold shutdown, it is over at once."""
        self._asked.put(None)
        if how == "Cold":
            self._asked.put(None)

    def run(self) -> None:
        self._asked.get()
        self._end_soon()
        try:
            self._asked.get(timeout=self._seconds)
        except queue.Empty:
            logger.warning("nodes still run after %s s; they are given back", f"{self._seconds:g}")
        end_now(self._hand_back)


def end_now(hand_back: Callable[[], None]) -> None:
    """Whatever becomes of the giving back, this process ends: who is not heard of is taken over."""
    try:
        hand_back()
    except Exception:
        logger.exception("what still ran could not be given back; it is taken over")
    finally:
        os._exit(0)


def skip_finalization(**_: object) -> None:
    """Celery's signal worker_shutting_down: when all has been ended in order, this process is gone at once, with 0.

    Python would take every object apart before it ends: 1.5 s of CPU with LangGraph loaded, half a minute on a machine
    that has much else to do, after the last node and the end of the lease.
    """
    atexit.register(_end_after_the_others)  # the last to be registered is called first


def _end_after_the_others() -> None:
    atexit.unregister(_end_after_the_others)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def obey_parent(hand_back: Callable[[], None], end_soon: Callable[[], None]) -> None:
    """In a child, before it has another thread: give back and end when the parent says so."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {GIVE_BACK, END_SOON})

    def wait() -> None:
        while signal.sigwait({GIVE_BACK, END_SOON}) == END_SOON:
            end_soon()
        end_now(hand_back)

    threading.Thread(target=wait, name="drain", daemon=True).start()


def end_children_soon() -> None:
    """In the parent: its children go no further than the nodes that they execute."""
    for child in active_children():
        _send(child.pid, END_SOON)


def _send(pid: int | None, what: signal.Signals) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def tell_children() -> None:
    """In the parent: back when they have ended, or have had time to."""
    children = active_children()
    for child in children:
        _send(child.pid, GIVE_BACK)
    end = time.monotonic() + HAND_BACK_SECONDS + 1.0
    for child in children:
        child.join(max(0, math.ceil(end - time.monotonic())))
