"""Celery's consumer, but for when it tells Flower of tasks: a few times a second, not at every turn of its loop.

Stock sends what it has after each message that it handles. With one small message a node execution that was an eighth
of a worker's CPU (profile of a full queue on Valkey), and as many publishes to the broker as messages.

On Redis alone. There may be more events than the dispatcher keeps, and then it sends them from the thread that adds one
more. redis-py may be used from any thread, but an AMQP connection belongs to the loop that reads it: on RabbitMQ a
thread that waited for its confirm kept the loop from beating, and under load the broker closed the connection.
"""

from typing import Any

from celery.worker.consumer import Consumer

#: Flower's pages are no younger than this. Celery sends earlier when it has 24 events.
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
    event_dispatcher: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flush_is_due = False

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # the stubs say that it answers a callable
        """Celery calls it for each event, also from the pool's threads."""
        if self.hub and not self._flush_is_due:
            self._flush_is_due = True
            self.hub.call_soon(self._flush_later)  # the hub's timers are for its own thread

    def _flush_later(self) -> None:
        self.hub.call_later(FLUSH_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flush_is_due = False
        if self.event_dispatcher:  # None while the broker is away
            self.event_dispatcher.flush()
