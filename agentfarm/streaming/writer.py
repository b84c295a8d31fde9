"""Take a process's events from any thread and bring them to Redis, in order, from one thread.

Handing an event over neither blocks nor raises: a node must not wait for a stream. All that waits is sent at once, so a
single token leaves at once and a thousand leave in one round trip. While Redis does not answer, events wait (up to a
bound) and are tried again; an attempt whose answer was lost is recognised by its token and not added twice.
"""

import logging
import os
import threading
import weakref
from collections import deque
from typing import Final

from redis import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from agentfarm.errors import StreamUnavailable
from agentfarm.records import Event
from agentfarm.streaming.stream import APPEND, Batch

logger = logging.getLogger(__name__)

#: Events sent in one round trip at most, so that one busy run cannot hold up the others of this process for long.
MAX_BATCH: Final = 500

#: … and bytes of them, or one event that is larger: Redis does nothing else while it takes a batch.
MAX_BATCH_BYTES: Final = 1 << 20

#: Bytes that may wait for Redis to come back; what exceeds it is dropped. The truth of a run is in Postgres:
#: a stream with a gap is better than a worker out of memory.
MAX_WAITING_BYTES: Final = 64 << 20

#: What a waiting event takes beyond its data: its key, containers, objects' heads (280 bytes, and 380 with the name of
#: a subgraph's; tracemalloc, Python 3.11).
EVENT_BYTES: Final = 400

#: Seconds between two attempts while Redis does not answer: doubled from the first to the last.
FIRST_PAUSE, LAST_PAUSE = 0.05, 2.0


class EventWriter:
    """The one writer of this process. Safe to use from any thread, and after a fork."""

    def __init__(self, client: Redis, *, keep: int) -> None:
        self._client = client
        self._keep = keep
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        """As new: at birth, and in the child of a fork, which has the lock's state but not the thread."""
        self._lock = threading.Lock()
        self._has_work = threading.Condition(self._lock)
        self._has_progress = threading.Condition(self._lock)
        self._waiting: deque[tuple[str, Event]] = deque()
        self._waiting_bytes = 0
        self._taken = self._done = 0  # events handed over, and events sent or given up
        self._dropped = 0
        self._failures = 0
        self._is_closing = False
        self._os_thread: threading.Thread | None = None

    def put(self, key: str, event: Event) -> None:
        """Hand over. Never blocks, never raises."""
        with self._lock:
            if self._waiting_bytes > MAX_WAITING_BYTES:
                self._dropped += 1
                return
            self._waiting.append((key, event))
            self._waiting_bytes += len(event.data) + EVENT_BYTES
            self._taken += 1
            if self._os_thread is None:
                self._os_thread = threading.Thread(target=self._run, name="event-writer", daemon=True)
                self._os_thread.start()
            self._has_work.notify()

    def flush(self, *, seconds: float) -> None:
        """Wait until all that was handed over before is in Redis. Raises StreamUnavailable at the first failure."""
        with self._lock:
            target, failures = self._taken, self._failures
            self._has_progress.wait_for(lambda: self._done >= target or self._failures > failures, timeout=seconds)
            if self._done < target:
                raise StreamUnavailable

    def close(self, *, seconds: float = 5.0) -> None:
        """Send what waits, as far as `seconds` allow, and end the thread."""
        with self._lock:
            os_thread, self._is_closing = self._os_thread, True
            self._has_work.notify()
        if os_thread is not None:
            os_thread.join(seconds)
        with self._lock:
            self._is_closing = False
            if os_thread is not None and not os_thread.is_alive():
                self._os_thread = None  # an event that comes later starts it again

    # ----------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while batches := self._take():
            left, pause = batches, FIRST_PAUSE
            while (left := self._send(left)) and not self._give_up(pause):
                pause = min(pause * 2, LAST_PAUSE)
            self._settle(sum(len(batch.events) for batch in batches))

    def _take(self) -> list[Batch]:
        """What waits, by stream; sleeps until there is something. Empty: the writer was closed and all is sent."""
        with self._lock:
            self._has_work.wait_for(lambda: self._waiting or self._is_closing)
            taken = self._take_batch()
            dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.error("events were dropped while the stream store did not answer", extra={"events": dropped})
        batches: dict[str, Batch] = {}
        for key, event in taken:
            batches.setdefault(key, Batch(key)).events.append(event)
        return list(batches.values())

    def _take_batch(self) -> list[tuple[str, Event]]:
        """The first of those that wait, as many as go together. At least one, where there is one."""
        taken: list[tuple[str, Event]] = []
        taken_bytes = 0
        while self._waiting and len(taken) < MAX_BATCH:
            event_bytes = len(self._waiting[0][1].data)
            if taken and taken_bytes + event_bytes > MAX_BATCH_BYTES:
                break
            taken.append(self._waiting.popleft())
            taken_bytes += event_bytes
        self._waiting_bytes -= taken_bytes + len(taken) * EVENT_BYTES
        return taken

    def _send(self, batches: list[Batch]) -> list[Batch]:
        """Those to try again, marked as tried; all others are in Redis, or can never be."""
        try:
            failed = send(self._client, batches, keep=self._keep)
        except RedisError as error:
            failed = batches
            logger.warning("the stream store did not answer", extra={"error": type(error).__name__})
        for batch in failed:
            batch.again = True
        return failed

    def _give_up(self, pause: float) -> bool:
        """After a failed attempt: tell who waits, then pause. True when the process is to end."""
        with self._lock:
            self._failures += 1
            self._has_progress.notify_all()
            return self._has_work.wait_for(lambda: self._is_closing, timeout=pause)

    def _settle(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._has_progress.notify_all()


def send(client: Redis, batches: list[Batch], *, keep: int) -> list[Batch]:
    """One round trip (two when Redis does not know the script yet).

    returns  the batches to try again, since Redis is full or is no primary now
    raises   RedisError when Redis did not answer: none, some or all may have been added
    """
    answers = _evaluate(client, batches, keep=keep)
    if any(isinstance(answer, NoScriptError) for answer in answers):
        client.script_load(APPEND.text)
        unknown = [batch for batch, answer in zip(batches, answers, strict=True) if isinstance(answer, NoScriptError)]
        again = iter(_evaluate(client, unknown, keep=keep))
        answers = [next(again) if isinstance(answer, NoScriptError) else answer for answer in answers]
    failed = []
    for batch, answer in zip(batches, answers, strict=True):
        if isinstance(answer, OutOfMemoryError | ReadOnlyError | NoScriptError):
            failed.append(batch)
        elif isinstance(answer, ResponseError):
            logger.error("the stream store refused events", extra={"error": type(answer).__name__})
    return failed


def _evaluate(client: Redis, batches: list[Batch], *, keep: int) -> list[object]:
    pipeline = client.pipeline(transaction=False)
    for batch in batches:
        pipeline.evalsha(APPEND.sha, 1, batch.key, *batch.arguments(keep=keep))
    answers: list[object] = pipeline.execute(raise_on_error=False)
    return answers


_writers: "weakref.WeakSet[EventWriter]" = weakref.WeakSet()


def _forget_parents_state() -> None:
    for writer in list(_writers):
        writer._reset()  # our own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_state)
