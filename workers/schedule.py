"""Beat: the healer, as a thread of the beat process. `celery -A workers beat`; several may run.

No heal message travels on the queue: a healer that waits behind the work it is to heal heals nothing, and one that
needs a worker cannot notice that all are dead (docs/decisions/0006). Celery's own schedule is empty.
"""

import atexit
import logging
import threading
from collections.abc import Callable

from celery import signals

from agentfarm import wiring
from agentfarm.conf import settings
from agentfarm.errors import Unavailable
from agentfarm.flow.heal import sweep_once

logger = logging.getLogger(__name__)

#: How long a sweep may take to end when beat does.
STOP_SECONDS = 5.0


class Healer(threading.Thread):
    """Sweeps every so many seconds until it is stopped, whatever a sweep raises."""

    def __init__(self, sweep: Callable[[], object], every_seconds: float) -> None:
        super().__init__(name="healer", daemon=True)
        self._sweep = sweep
        self._every_seconds = every_seconds
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._sweep()
            except Unavailable as error:
                logger.warning("a sweep did not end; the next finds the same", extra={"code": error.code})
            except Exception:
                # A healer that ends in silence would leave the farm without one while beat looks alive.
                logger.exception("a sweep failed")
            self._stopping.wait(self._every_seconds)

    def stop(self) -> None:
        """Let the running sweep end. Returns when it has, or after STOP_SECONDS."""
        self._stopping.set()
        self.join(STOP_SECONDS)


def install() -> None:
    """Begin healing when Celery's beat begins."""
    signals.beat_init.connect(_begin, weak=False)


def _begin(**_: object) -> None:
    healer = Healer(lambda: sweep_once(wiring.farm()), settings().heal_seconds)
    healer.start()
    atexit.register(healer.stop)
    logger.info("healing every %s s", settings().heal_seconds)
