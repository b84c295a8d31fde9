"""Whether work waits for a worker: what one that could go on by itself has to know, and cheaply.

Asked between two nodes, thousands of times a second, so the broker is asked at most every ASK_SECONDS by the whole
process.
"""

import threading
from collections.abc import Callable
from typing import Final

from agentfarm import clock

#: How old the answer may be. Whoever came since waits at most so much longer.
ASK_SECONDS: Final = 0.1


class QueueBacklog:
    """flow/ports.Backlog, for any number of threads.

    queue_length  of the publisher: asks the broker
    unbegun       messages that this process has taken from the broker and not begun
    """

    def __init__(self, queue_length: Callable[[str], int | None], unbegun: Callable[[], int]) -> None:
        self._queue_length = queue_length
        self._unbegun = unbegun
        self._known: dict[str, tuple[float, bool]] = {}  # by queue: when it was asked for, and the answer
        self._asking = threading.Lock()
        self._is_ending = False

    @property
    def is_ending(self) -> bool:
        return self._is_ending

    def end(self) -> None:
        """Nobody here goes on by himself any more. May be called by a signal's handler."""
        self._is_ending = True

    def has_work(self, queue: str) -> bool:
        """Whether a message of this queue waits, or one that this process has taken from any.

        What it can miss: messages that came since the broker was asked; those that other processes have taken and not
        begun; node executions in the outbox. It says so too often where idle workers are about to take what waits.
        A broker that does not answer has no work for anybody now.
        """
        if self._unbegun() > 0:
            return True
        asked_at, has = self._known.get(queue, (float("-inf"), False))
        if clock.monotonic_seconds() - asked_at < ASK_SECONDS or not self._asking.acquire(blocking=False):
            return has  # one thread asks; the others go by what was known
        try:
            has = bool(self._queue_length(queue))
            self._known[queue] = (clock.monotonic_seconds(), has)
        finally:
            self._asking.release()
        return has
