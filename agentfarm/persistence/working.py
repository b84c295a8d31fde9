"""What this process executes right now, so that a second delivery does not take the lease from the first."""

import threading
from collections import deque


class Working:
    """Executions by key; one counts once for each claim of it."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._ended: deque[bytes] = deque()
        self._lock = threading.Lock()

    def begin(self, key: bytes) -> bool:
        """Whether nobody here was at it."""
        with self._lock:
            while self._ended:
                self._end(self._ended.popleft())
            before = self._counts.get(key, 0)
            self._counts[key] = before + 1
            return before == 0

    def has(self, key: bytes) -> bool:
        """Whether somebody here is at it."""
        with self._lock:
            while self._ended:
                self._end(self._ended.popleft())
            return key in self._counts

    def end(self, key: bytes) -> None:
        with self._lock:
            self._end(key)

    def end_later(self, key: bytes) -> None:
        """For the garbage collector: no lock."""
        self._ended.append(key)

    def _end(self, key: bytes) -> None:
        if self._counts.get(key, 0) > 1:
            self._counts[key] -= 1
        else:
            self._counts.pop(key, None)
