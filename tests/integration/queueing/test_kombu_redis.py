"""A message is kept and forgotten on Redis as kombu itself does it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Queue

from agentfarm.queueing import kombu_redis
from agentfarm.queueing.broker import declare_all
from tests.unit.queueing.conftest import app_on

pytestmark = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)

INDEX, KEPT = "agentfarm:unacked_index", "agentfarm:unacked"


@pytest.fixture
def queue(broker_url: str) -> Iterator[Queue]:
    app = app_on(broker_url)
    declare_all(app)
    with app.connection_for_write() as connection:
        found = app.amqp.queues["io.v1"](connection.default_channel)
        found.purge()
        yield found


def kept(broker_url: str) -> tuple[dict[bytes, float], dict[bytes, Any]]:
    with redis.Redis.from_url(broker_url) as client:
        times: Any = dict(client.zrange(INDEX, 0, -1, withscores=True))
        messages: Any = client.hgetall(KEPT)
    return times, {tag: json.loads(value) for tag, value in messages.items()}


def delivered(queue: Queue, monkeypatch: pytest.MonkeyPatch, append: Callable[..., None]) -> Any:
    monkeypatch.setattr(type(queue.channel.qos), "append", append)
    with Connection.clone(queue.channel.connection.client) as connection:
        connection.Producer(routing_key="io.v1").publish({"one": 1})
    message = queue.get()
    assert message is not None
    return message


def test_it_keeps_what_kombu_keeps(queue: Queue, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for append in (kombu_redis._stock_append, kombu_redis._append):
        message = delivered(queue, monkeypatch, append)
        times, messages = kept(broker_url)
        (raw, exchange, key) = messages[message.delivery_tag.encode()]
        assert list(times) == list(messages) == [message.delivery_tag.encode()]
        seen.append((sorted(raw), raw["body"], exchange, key))
        message.ack()
        assert kept(broker_url) == ({}, {})

    assert seen[0] == seen[1]


def test_it_makes_do_with_a_server_that_does_not_know_its_scripts(
    queue: Queue, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.script_flush()
        message = delivered(queue, monkeypatch, kombu_redis._append)
        assert len(kept(broker_url)[1]) == 1

        client.script_flush()
        message.ack()

    assert kept(broker_url) == ({}, {})


def test_what_is_not_acknowledged_is_delivered_again(
    queue: Queue, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = delivered(queue, monkeypatch, kombu_redis._append)

    queue.channel.qos.restore_by_tag(message.delivery_tag)

    assert kept(broker_url) == ({}, {})
    again = queue.get()
    assert again.payload == {"one": 1}
    again.ack()
