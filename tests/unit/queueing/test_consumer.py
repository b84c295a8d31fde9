"""When Flower is told of tasks."""

from typing import Any

import pytest

from agentfarm.queueing.consumer import FLUSH_SECONDS, BatchingConsumer
from tests.unit.queueing.conftest import NOWHERE, app_on


class Hub:
    """Keeps what it is asked to call, and when."""

    def __init__(self) -> None:
        self.soon: list[Any] = []
        self.later: list[tuple[float, Any]] = []

    def call_soon(self, callback: Any) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Any) -> None:
        self.later.append((delay, callback))


class Dispatcher:
    flushes = 0
    buffer_limit = 24

    def flush(self) -> None:
        self.flushes += 1


def consumer() -> Any:
    made: Any = BatchingConsumer.__new__(BatchingConsumer)
    made._flush_is_due, made.hub = False, Hub()
    made.event_dispatcher = Dispatcher()
    return made


def test_many_events_are_sent_together_and_later() -> None:
    telling = consumer()

    for _ in range(5):
        telling.on_send_event_buffered()
    [schedule] = telling.hub.soon
    schedule()
    [(delay, flush)] = telling.hub.later
    flush()

    assert delay == FLUSH_SECONDS
    assert telling.event_dispatcher.flushes == 1


def test_no_thread_but_the_loops_sends() -> None:
    telling = consumer()

    assert telling.event_dispatcher.buffer_limit > 1_000_000

    telling.event_dispatcher = None  # the broker is away
    telling._flush_now()


@pytest.mark.parametrize(
    ("kind", "ours"), [("amqp", "BatchingConsumer"), ("redis", "BatchingConsumer"), ("sqs", "SilentConsumer")]
)
def test_each_broker_has_its_consumer(kind: str, ours: str) -> None:
    assert app_on(NOWHERE[kind]).conf.worker_consumer == f"agentfarm.queueing.consumer:{ours}"


def test_events_after_a_flush_are_sent_by_the_next() -> None:
    telling = consumer()
    telling.on_send_event_buffered()
    telling._flush_now()

    telling.on_send_event_buffered()

    assert len(telling.hub.soon) == 2
