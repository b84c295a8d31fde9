"""Keeps a message away from other workers while its node runs, on Redis and on SQS.

RabbitMQ knows who holds a message by its connection. Redis does not: kombu notes in a sorted set when a message was
handed out, and gives it to another worker after the visibility timeout, whether or not its node still runs; a node
of 20 s ran four times with a timeout of 6 s. This step notes again, every third of the timeout, what this worker holds.
SQS does the same by itself, and is told by ChangeMessageVisibility: a request over the network, so from a thread.

The worker's main process does it. Where that is frozen for longer than the timeout, a message comes twice, and the
lease in Postgres lets only one of the two through.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator
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


# --------------------------------------------------------------------------- SQS

#: SQS takes so many in one request.
_BATCH = 10

#: Acknowledged meanwhile, or handed to another after all: nothing to keep.
_OVER = {"InvalidParameterValue", "MessageNotInflight", "ReceiptHandleIsInvalid"}


class ThreadedLeaseKeeper(bootsteps.StartStopStep):
    """The same for SQS: a thread of its own, so that a slow answer keeps no message waiting."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        self.stopping = threading.Event()
        super().__init__(parent, **kwargs)

    def start(self, parent: Any) -> None:
        # A new event: the thread of the connection before may still wait for an answer.
        self.stopping = threading.Event()
        channel = parent.task_consumer.channel
        threading.Thread(target=_keep, args=(channel, self.stopping), name="lease-keeper", daemon=True).start()

    def stop(self, parent: Any) -> None:
        self.stopping.set()

    def shutdown(self, parent: Any) -> None:
        self.stop(parent)


def _keep(channel: Any, stopping: threading.Event) -> None:
    while not stopping.wait(channel.visibility_timeout / 3):
        renew_sqs(channel)


def renew_sqs(channel: Any) -> None:
    """Ask for the whole timeout anew for all that is held. What cannot be asked now is asked the next time."""
    held_in: dict[str, list[str]] = defaultdict(list)
    for tag in held(channel.qos):
        message = channel.qos._delivered.get(tag)  # acknowledged meanwhile: None
        if message is not None:
            held_in[message.delivery_info["sqs_queue"]].append(tag)
    for url, tags in held_in.items():
        for some in _batches(tags):
            _renew_some(channel, url, some)


def _renew_some(channel: Any, url: str, tags: list[str]) -> None:
    entries = [
        {"Id": str(at), "ReceiptHandle": tag, "VisibilityTimeout": channel.visibility_timeout}
        for at, tag in enumerate(tags)
    ]
    try:
        answer = channel.sqs().change_message_visibility_batch(QueueUrl=url, Entries=entries)
    except channel.connection.connection_errors as error:
        logger.warning("leases of %d messages were not renewed: %s", len(tags), type(error).__name__)
        return
    refused = [each["Code"] for each in answer.get("Failed", ()) if each["Code"] not in _OVER]
    if refused:
        logger.warning("leases of %d messages were not renewed: %s", len(refused), ", ".join(sorted(set(refused))))


def _batches(tags: list[str]) -> Iterator[list[str]]:
    return (tags[at : at + _BATCH] for at in range(0, len(tags), _BATCH))
