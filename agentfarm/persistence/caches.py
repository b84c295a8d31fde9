"""What a worker process keeps of what never changes: bounded by bytes and by the time that it lies unused, the least
recently used goes first.

Bytes, or values that nobody may change: never objects that a node could reach. Keys begin with the tenant.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """max_bytes    of all values together, as `put` was told
    idle_seconds  what was not used for so long goes when the next is put; None: nothing goes by its age
    now           monotonic seconds
    """

    def __init__(
        self, max_bytes: int, *, idle_seconds: float | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._now = now
        self._bytes = 0
        self._kept: OrderedDict[bytes, tuple[V, int, float]] = OrderedDict()  # (value, bytes, last used)
        self._lock = threading.Lock()

    def get(self, key: bytes) -> V | None:
        with self._lock:
            if (found := self._kept.pop(key, None)) is None:
                return None
            self._kept[key] = (found[0], found[1], self._now())
            return found[0]

    def put(self, key: bytes, value: V, size: int) -> None:
        """A value that alone is larger than the whole cache is not kept."""
        with self._lock:
            self._drop(key)
            if size > self._max_bytes:
                return
            now = self._now()
            self._kept[key] = (value, size, now)
            self._bytes += size
            while self._bytes > self._max_bytes or self._is_idle(now):
                self._drop(next(iter(self._kept)))

    def drop(self, key: bytes) -> None:
        with self._lock:
            self._drop(key)

    def _is_idle(self, now: float) -> bool:
        """Whether the first to go has lain unused for too long."""
        return self._idle_seconds is not None and next(iter(self._kept.values()))[2] < now - self._idle_seconds

    def _drop(self, key: bytes) -> None:
        if (gone := self._kept.pop(key, None)) is not None:
            self._bytes -= gone[1]

    def __len__(self) -> int:
        return len(self._kept)
