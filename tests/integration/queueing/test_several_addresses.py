"""CELERY_BROKER_URL may name several nodes of one broker, by ';': whichever is there is used."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from celery import Celery

from agentfarm.ids import new_id
from agentfarm.messages import ExecuteNode
from agentfarm.queueing.broker import declare_all
from agentfarm.queueing.publisher import CeleryPublisher
from tests.unit.queueing.conftest import app_on

SCHEMES = {"redis": "redis://:x@127.0.0.1:{port}/1", "amqp": "amqp://farm:x@127.0.0.1:{port}/test"}


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port on which nobody listens, and nobody else will meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(params=["the first", "the last"])
def app(broker_url: str, nobody: int, request: pytest.FixtureRequest) -> Celery:
    """Of two nodes, one of which is lost."""
    lost = SCHEMES[broker_url.partition(":")[0]].format(port=nobody)
    return app_on(f"{lost};{broker_url}" if request.param == "the first" else f"{broker_url};{lost}")


def test_a_message_reaches_the_node_that_is_there_and_is_taken_from_it(app: Celery) -> None:
    declare_all(app)
    message = ExecuteNode(new_id(), "main", new_id(), new_id(), new_id(), graph_id="support", node="plan", queue="io")

    with closing(CeleryPublisher(app, "io")) as publisher:
        publisher.publish([message])
        waiting = publisher.queue_length("io")
    with app.connection_for_read() as connection, closing(connection.SimpleQueue(app.amqp.queues["io"])) as queue:
        taken = queue.get(timeout=5)
        taken.ack()

    assert waiting == 1
    assert taken.payload[0][0]["execution"] == message.execution_id.hex
