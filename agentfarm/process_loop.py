"""One event loop a process, for async nodes: made when first needed, kept as long as the process.

Clients that nodes keep (HTTP pools, database pools) are bound to the loop they were made on; a loop a node would break
them. The loop has a thread of its own, so that a worker's threads wait for their coroutines side by side.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

#: How long `close` waits for the loop's thread.
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Running:
    """A loop, its thread, and the process that they live in."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    pid: int


class ProcessLoop:
    """Runs coroutines from any thread. After a fork the child makes its own: the parent's loop has no thread there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns or raises. Not for the loop's own thread: it would wait for itself."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._started()).result()

    def close(self) -> None:
        """End this process's loop, if it has one. What still runs on it is not waited for."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None and running.pid == os.getpid():
            running.loop.call_soon_threadsafe(running.loop.stop)
            running.thread.join(CLOSE_SECONDS)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._running is None or self._running.pid != os.getpid():
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run_forever, args=(loop,), name="async nodes", daemon=True)
                self._running = _Running(loop, thread, os.getpid())
                thread.start()
            return self._running.loop


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
