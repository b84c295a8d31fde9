"""What a worker process keeps of what never changes: bounded by bytes, the least recently used goes first.

Bytes, or values that nobody may change: never objects that a node could reach. Keys begin with the tenant.
"""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """max_bytes  of all values together, as `put` was told"""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> V | None:
        with self._lock:
            if (found := self._kept.get(key)) is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: bytes, value: V, size: int) -> None:
        """A value that alone is larger than the whole cache is not kept."""
        with self._lock:
            self._drop(key)
            if size > self._max_bytes:
                return
            self._kept[key] = (value, size)
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._kept)))

    def drop(self, key: bytes) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        if (gone := self._kept.pop(key, None)) is not None:
            self._bytes -= gone[1]

    def __len__(self) -> int:
        return len(self._kept)
