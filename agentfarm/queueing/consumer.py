"""Celery's consumer, but for when it tells Flower of tasks: a few times a second, and from its own thread alone.

Stock sends what it has after each message that it handles. With one small message a node execution that was an eighth
of a worker's CPU (profile of a full queue on Valkey), and as many publishes to the broker as messages.

Stock also sends from the thread that adds an event when 24 of them wait. An AMQP connection belongs to the loop that
reads it: a pool's thread that waited for its confirm, which the loop had read, held the dispatcher's lock, the loop
waited for the lock, no connection of the worker beat any more, and RabbitMQ closed them all.
"""

import sys
from typing import Any

from celery.worker.consumer import Consumer

#: Flower's pages are no younger than this.
FLUSH_SECONDS = 0.2


class SilentConsumer(Consumer):
    """For SQS, which has no exchanges: what a worker says there of itself would fill a queue that nobody reads.

    As `--without-heartbeat --without-gossip --without-mingle` and no `-E`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        silent = {"without_heartbeat": True, "without_gossip": True, "without_mingle": True, "task_events": False}
        super().__init__(*args, **{**kwargs, **silent})


class BatchingConsumer(Consumer):
    """For the setting `worker_consumer`."""

    hub: Any  # Celery's, which its stubs do not know

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._dispatcher: Any = None
        super().__init__(*args, **kwargs)
        self._flush_is_due = False

    @property
    def event_dispatcher(self) -> Any:
        """A new one with each connection; None while the broker is away."""
        return self._dispatcher

    @event_dispatcher.setter
    def event_dispatcher(self, dispatcher: Any) -> None:
        if dispatcher is not None and self.hub:
            dispatcher.buffer_limit = sys.maxsize  # else who adds the last one sends
        self._dispatcher = dispatcher

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # the stubs say that it answers a callable
        """Celery calls it for each event, also from the pool's threads."""
        if self.hub and not self._flush_is_due:
            self._flush_is_due = True
            self.hub.call_soon(self._flush_later)  # the hub's timers are for its own thread

    def _flush_later(self) -> None:
        self.hub.call_later(FLUSH_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flush_is_due = False
        if self.event_dispatcher:
            self.event_dispatcher.flush()
