"""One event loop a process, for async nodes: made when first needed, kept as long as the process.

Clients that nodes keep (HTTP pools, database pools) are bound to the loop they were made on; a loop a node would break
them. The loop has a thread of its own, so that a worker's threads wait for their coroutines side by side.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class ProcessLoop:
    """Runs coroutines from any thread. After a fork the child makes its own: the parent's loop has no thread there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns or raises. Not for the loop's own thread: it would wait for itself."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._started()).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None and self._pid == os.getpid():
            return self._loop
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=self._loop.run_forever, name="async nodes", daemon=True).start()
            return self._loop
