"""A process says what it still works on: leases in Redis have no lock that the kernel frees.

From a thread of its own, which waits for nothing but the clock and Redis. One that waited for Postgres, too, would lose
the leases of all nodes of its process with it.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from agentfarm.errors import RedisTierUnavailable
from agentfarm.persistence.redis_tier.leases import RedisHeld
from agentfarm.persistence.redis_tier.scripts import RedisScripts

logger = logging.getLogger(__name__)


class Renewal:
    """seconds  between two times: a third of a lease
    holding  what this process works on right now; claims.py knows
    """

    def __init__(self, scripts: RedisScripts, *, seconds: float) -> None:
        self.holding: Callable[[], Sequence[RedisHeld]] = tuple
        self._scripts = scripts
        self._seconds = seconds
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Before anything is leased to this process. Idempotent."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="farm-renewal", daemon=True)
                self._thread.start()

    def close(self) -> None:
        self._stopping.set()

    def _live(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self.renew()
            except Exception:  # a bug of ours: without this thread every long node would be taken from this process
                logger.exception("leases in Redis could not be renewed")

    def renew(self) -> None:
        """Each server is told of what it has. One that does not answer keeps no other from hearing of it."""
        for server, held in self._scripts.by_server(self.holding(), key=lambda one: one.place.key):
            try:
                self._scripts.renew_many(server, [(one.place, one) for one in held])
            except RedisTierUnavailable as error:
                logger.warning("leases in Redis could not be renewed", extra={"code": error.code, "leases": len(held)})
