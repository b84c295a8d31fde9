"""Keeps a message away from other workers while its node runs, on Redis.

RabbitMQ knows who holds a message by its connection. Redis does not: kombu notes in a sorted set when a message was
handed out, and gives it to another worker after the visibility timeout, whether or not its node still runs; a node
of 20 s ran four times with a timeout of 6 s. This step notes again, every third of the timeout, what this worker holds.

The worker's main process does it. Where that is blocked for longer than the timeout, a message comes twice, and the
lease in Postgres lets only one of the two through.
"""

import logging
from typing import Any

from celery import bootsteps

from agentfarm import clock

logger = logging.getLogger(__name__)


class LeaseKeeper(bootsteps.StartStopStep):
    """A step of Celery's consumer: made anew, with a new channel, after each reconnect."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        self.entry: Any = None
        super().__init__(parent, **kwargs)

    def start(self, parent: Any) -> None:
        qos = parent.task_consumer.channel.qos
        self.entry = parent.timer.call_repeatedly(qos.visibility_timeout / 3, renew, (qos,))

    def stop(self, parent: Any) -> None:
        if self.entry is not None:
            self.entry.cancel()
            self.entry = None

    def shutdown(self, parent: Any) -> None:
        self.stop(parent)


def held(qos: Any) -> list[str]:
    """Delivery tags that this channel has and has not acknowledged.

    `_delivered` and `_dirty` are kombu's own names: acknowledged tags wait in `_dirty` until the next flush.
    """
    done = qos._dirty
    return [tag for tag in list(qos._delivered) if tag not in done]


def renew(qos: Any) -> None:
    """Note the time for all that is held. XX: what was acknowledged meanwhile is not brought back."""
    tags = held(qos)
    if not tags:
        return
    now = clock.now().timestamp()  # kombu's sweep compares with its own worker's clock
    try:
        with qos.channel.conn_or_acquire() as client:
            client.zadd(qos.unacked_index_key, dict.fromkeys(tags, now), xx=True)
    except qos.channel.connection_errors as error:
        # The consumer notices the same and connects anew; until then the timeout is the net.
        logger.warning("leases of messages were not renewed: %s", type(error).__name__)
