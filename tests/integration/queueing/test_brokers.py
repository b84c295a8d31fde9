"""Publisher, queues and the keeper of leases on a real Valkey, a real RabbitMQ, and SQS as moto has it."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from kombu import Queue

from agentfarm.errors import BrokerUnavailable
from agentfarm.ids import new_id
from agentfarm.local.rabbitmq import RabbitMQ
from agentfarm.messages import ExecuteNode, parse_message
from agentfarm.queueing.broker import DEAD_LETTERS, declare_all
from agentfarm.queueing.lease_keeper import renew, renew_sqs
from agentfarm.queueing.publisher import CeleryPublisher
from tests.farm import wait_for
from tests.services import ALL_BROKERS
from tests.sqs import Moto
from tests.unit.queueing.conftest import app_on


def a_message(queue: str = "io") -> ExecuteNode:
    return ExecuteNode(
        tenant_id=new_id(),
        home="main",
        run_id=new_id(),
        checkpoint_id=new_id(),
        execution_id=new_id(),
        graph_id="support",
        node="plan",
        queue=queue,
    )


@pytest.fixture
def app(broker_url: str, request: pytest.FixtureRequest) -> Celery:
    if broker_url.startswith("sqs:"):
        on_sqs: Celery = request.getfixturevalue("on_sqs")
        return on_sqs
    return emptied(broker_url)


@pytest.fixture
def on_sqs(sqs: Moto) -> Celery:
    """Emptied as only moto can be: SQS lets a queue be purged once a minute."""
    sqs.empty()
    app = app_on(sqs.url, "gpu")
    declare_all(app)
    return app


def emptied(broker_url: str) -> Celery:
    app = app_on(broker_url, "gpu")
    declare_all(app)
    with app.connection_for_write() as connection:
        for queue in app.amqp.queues.values():
            queue(connection.default_channel).purge()
    return app


@pytest.fixture
def publisher(app: Celery) -> Iterator[CeleryPublisher]:
    with closing(CeleryPublisher(app, "io")) as made:
        yield made


def take(app: Celery, queue: str, count: int) -> list[Any]:
    """What a worker would get, in order; acknowledged."""
    taken = []
    with app.connection_for_read() as connection, closing(connection.SimpleQueue(app.amqp.queues[queue])) as simple:
        for _ in range(count):
            message = simple.get(timeout=5)
            taken.append(message)
            message.ack()
    return taken


@ALL_BROKERS
def test_what_is_published_arrives_and_in_order_where_the_broker_knows_one(
    app: Celery, publisher: CeleryPublisher
) -> None:
    messages = [a_message() for _ in range(20)]

    publisher.publish(messages[:1])
    publisher.publish(messages[1:])

    taken = take(app, "io", 20)
    told = [parse_message(each.payload[0][0]).execution_id for each in taken]
    wanted = [message.execution_id for message in messages]
    assert told == wanted or (sorted(told) == sorted(wanted) and app.connection().transport.driver_type == "sqs")
    assert taken[0].headers["task"] == "agentfarm.execute_node"


@ALL_BROKERS
def test_each_message_is_in_the_queue_that_its_node_names(app: Celery, publisher: CeleryPublisher) -> None:
    publisher.publish([a_message("gpu"), a_message("io"), a_message("gpu")])

    assert {queue: publisher.queue_length(queue) for queue in ("io", "gpu", "cpu")} == {"io": 1, "gpu": 2, "cpu": 0}


@ALL_BROKERS
def test_threads_publish_side_by_side_and_nothing_is_lost(app: Celery, publisher: CeleryPublisher) -> None:
    threads = [threading.Thread(target=publisher.publish, args=([a_message() for _ in range(5)],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert publisher.queue_length("io") == 40


@ALL_BROKERS
def test_a_connection_that_broke_is_made_anew_without_a_word(app: Celery, publisher: CeleryPublisher) -> None:
    publisher.publish([a_message()])
    _break(publisher)

    publisher.publish([a_message(), a_message()])

    assert publisher.queue_length("io") == 3


def _break(publisher: CeleryPublisher) -> None:
    """Close the sockets below kombu, as a broker that restarts does."""
    for line in publisher._idle:
        channel = line.producer.channel
        if publisher._is_amqp:
            os.close(channel.connection.transport.sock.detach())
        elif publisher._is_sqs:
            manager = channel.sqs()._endpoint.http_session._manager
            for key in manager.pools.keys():  # noqa: SIM118  # a container of urllib3's that cannot be iterated
                for connection in manager.pools[key].pool.queue:
                    if connection is not None and connection.sock is not None:
                        os.close(connection.sock.detach())
        else:
            for connection in channel.pool._available_connections:
                os.close(connection._sock.detach())


@ALL_BROKERS
def test_a_forked_child_leaves_its_parents_connections_alone(app: Celery, publisher: CeleryPublisher) -> None:
    publisher.publish([a_message()])

    child = os.fork()
    if child == 0:  # no test machinery in the child: its exit code is its answer
        code = 1
        try:
            publisher.publish([a_message()])
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    publisher.publish([a_message()])

    assert os.waitstatus_to_exitcode(status) == 0
    assert publisher.queue_length("io") == 3


@ALL_BROKERS
def test_a_queue_that_a_new_broker_lacks_is_declared_by_who_publishes(app: Celery, publisher: CeleryPublisher) -> None:
    with app.connection_for_write() as connection:
        app.amqp.queues["gpu"](connection.default_channel).delete()

    publisher.publish([a_message("gpu")])

    assert publisher.queue_length("gpu") == 1


@ALL_BROKERS
def test_declaring_twice_changes_nothing(app: Celery, publisher: CeleryPublisher) -> None:
    publisher.publish([a_message()])

    declare_all(app)

    assert publisher.queue_length("io") == 1


@pytest.mark.rabbitmq
def test_on_rabbitmq_a_refused_message_is_a_dead_letter(rabbitmq: RabbitMQ) -> None:
    app, message = emptied(rabbitmq.make_virtual_host("refused")), a_message()
    with closing(CeleryPublisher(app, "io")) as publisher:
        publisher.publish([message])

    with app.connection_for_read() as connection:
        with closing(connection.SimpleQueue(app.amqp.queues["io"])) as simple:
            simple.get(timeout=5).reject()
        with closing(connection.SimpleQueue(Queue(DEAD_LETTERS, no_declare=True))) as dead:
            letter = dead.get(timeout=5)
            letter.ack()

    assert parse_message(letter.payload[0][0]).execution_id == message.execution_id
    rabbitmq.drop_virtual_host("refused")


def test_on_redis_what_is_held_is_kept_and_what_is_acknowledged_is_not(redis_url: str) -> None:
    app = emptied(redis_url)
    with closing(CeleryPublisher(app, "io")) as publisher:
        publisher.publish([a_message(), a_message()])

    with app.connection_for_read() as connection:
        channel = connection.channel()
        held, done = (channel.basic_get("io.v1") for _ in range(2))
        client = channel._create_client()
        client.zadd(channel.unacked_index_key, {held.delivery_tag: 1.0, done.delivery_tag: 1.0})  # long ago
        channel.basic_ack(done.delivery_tag)

        renew(channel.qos)

        scores = dict(client.zrange(channel.unacked_index_key, 0, -1, withscores=True))
        assert list(scores) == [held.delivery_tag.encode()]
        assert scores[held.delivery_tag.encode()] > 1_000_000_000
        channel.basic_ack(held.delivery_tag)


def test_a_redis_that_refuses_the_message_is_told_as_unavailable(redis_url: str) -> None:
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.acl_setuser("refused", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"],
                           commands=["+@all", "-lpush"])  # fmt: skip
        parts = urlsplit(redis_url)
        app = app_on(parts._replace(netloc=f"refused:secret@{parts.hostname}:{parts.port}").geturl())
        with closing(CeleryPublisher(app, "io")) as publisher:
            for count in (1, 2):
                with pytest.raises(BrokerUnavailable, match=f"{count} message"):
                    publisher.publish([a_message() for _ in range(count)])
        client.acl_deluser("refused")


def refuse_on_rabbitmq(app: Celery) -> None:
    """Somebody has declared the queue otherwise, and bound it to nothing."""
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        app.amqp.queues["gpu"](channel).delete()
        channel.queue_declare("gpu.v1", durable=True, auto_delete=False, arguments={"x-queue-type": "classic"})


def accept_on_rabbitmq(app: Celery) -> None:
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete("gpu.v1")


def refuse_on_redis(app: Celery) -> None:
    with app.connection_for_write() as connection:
        connection.default_channel.client.set("gpu.v1", "no list")


def accept_on_redis(app: Celery) -> None:
    with app.connection_for_write() as connection:
        connection.default_channel.client.delete("gpu.v1")


def limit_on_sqs(app: Celery, most_bytes: int) -> None:
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        wanted = {"MaximumMessageSize": str(most_bytes)}
        channel.sqs().set_queue_attributes(QueueUrl=channel._new_queue("gpu.v1"), Attributes=wanted)


REFUSALS = {
    "amqp": (refuse_on_rabbitmq, accept_on_rabbitmq),
    "redis": (refuse_on_redis, accept_on_redis),
    "sqs": (partial(limit_on_sqs, most_bytes=1024), partial(limit_on_sqs, most_bytes=262_144)),
}


@pytest.mark.parametrize("known", ["a line is there", "no line is there"])
@ALL_BROKERS
def test_a_queue_that_refuses_its_messages_keeps_no_other_from_getting_theirs(
    app: Celery, publisher: CeleryPublisher, known: str
) -> None:
    refuse, accept = REFUSALS[app.connection().transport.driver_type]
    messages = [a_message(queue) for queue in ("gpu", "io", "gpu", "cpu", "io")]
    if known == "a line is there":
        publisher.publish([a_message("cpu")])
    refuse(app)

    try:
        for _ in range(2):  # it is no reason to leave the broker alone for a while
            with pytest.raises(BrokerUnavailable, match="2 message"):
                publisher.publish(messages)
    finally:
        accept(app)

    assert publisher.queue_length("io") == 4
    told = [parse_message(each.payload[0][0]).execution_id for each in take(app, "io", 4)]
    wanted = [messages[n].execution_id for n in (1, 4, 1, 4)]
    assert told == wanted or (sorted(told) == sorted(wanted) and app.connection().transport.driver_type == "sqs")
    publisher.publish(messages[:1])
    assert publisher.queue_length("gpu") == 1


def attributes(channel: Any, queue: str, *names: str) -> dict[str, str]:
    found = channel.sqs().get_queue_attributes(QueueUrl=channel._new_queue(queue), AttributeNames=list(names))
    answer: dict[str, str] = found["Attributes"]
    return answer


def test_on_sqs_what_is_held_is_kept_and_what_is_acknowledged_is_not(on_sqs: Celery) -> None:
    with closing(CeleryPublisher(on_sqs, "io")) as publisher:
        publisher.publish([a_message() for _ in range(13)])  # more than one request takes

    with on_sqs.connection_for_read() as connection:
        channel = connection.channel()
        held = [channel.basic_get("io.v1") for _ in range(12)]
        done = channel.basic_get("io.v1")
        for message in (*held, done):
            channel.sqs().change_message_visibility(
                QueueUrl=channel._new_queue("io.v1"), ReceiptHandle=message.delivery_tag, VisibilityTimeout=1
            )
        channel.basic_ack(done.delivery_tag)

        renew_sqs(channel)

        waited = time.monotonic() + 1.5  # past the second that they had left
        wait_for(lambda: time.monotonic() > waited, what="the end of what they had")
        assert attributes(channel, "io.v1", "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible") == {
            "ApproximateNumberOfMessages": "0",
            "ApproximateNumberOfMessagesNotVisible": "12",
        }


def test_on_sqs_a_keeper_that_nobody_answers_warns_and_goes_on(
    on_sqs: Celery, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(CeleryPublisher(on_sqs, "io")) as publisher:
        publisher.publish([a_message()])

    with on_sqs.connection_for_read() as connection:
        channel = connection.channel()
        held = channel.basic_get("io.v1")
        held.delivery_info["sqs_queue"] += "-that-is-gone"
        renew_sqs(channel)

        assert "leases of 1 messages were not renewed: QueueDoesNotExist" in caplog.text


def test_on_sqs_what_was_handed_out_too_often_is_a_dead_letter(on_sqs: Celery) -> None:
    message = a_message()
    with closing(CeleryPublisher(on_sqs, "io")) as publisher:
        publisher.publish([message])

    with on_sqs.connection_for_read() as connection:
        channel = connection.channel()
        for _ in range(20):
            again = channel.basic_get("io.v1")
            channel.sqs().change_message_visibility(
                QueueUrl=channel._new_queue("io.v1"), ReceiptHandle=again.delivery_tag, VisibilityTimeout=0
            )
        channel.connection.client.transport_options["wait_time_seconds"] = 0
        channel.__dict__.pop("wait_time_seconds", None)

        assert channel.basic_get("io.v1") is None
        assert parse_message(json.loads(channel.basic_get("dead").body)[0][0]).execution_id == message.execution_id


def test_on_sqs_a_queue_that_was_there_gets_what_a_new_one_gets(on_sqs: Celery) -> None:
    with on_sqs.connection_for_write() as connection:
        channel = connection.default_channel
        wanted = attributes(channel, "io.v1", "VisibilityTimeout", "RedrivePolicy")
        channel.sqs().set_queue_attributes(
            QueueUrl=channel._new_queue("io.v1"), Attributes={"VisibilityTimeout": "1800", "RedrivePolicy": ""}
        )
        assert attributes(channel, "io.v1", "VisibilityTimeout", "RedrivePolicy") != wanted

        declare_all(on_sqs)

        assert attributes(channel, "io.v1", "VisibilityTimeout", "RedrivePolicy") == wanted


def test_on_sqs_a_message_names_its_tenant_as_its_group(on_sqs: Celery) -> None:
    message = a_message()
    with closing(CeleryPublisher(on_sqs, "io")) as publisher:
        publisher.publish([message])

    with on_sqs.connection_for_read() as connection:
        channel = connection.channel()
        answer = channel.sqs().receive_message(
            QueueUrl=channel._new_queue("io.v1"), MessageSystemAttributeNames=["MessageGroupId"]
        )

    assert answer["Messages"][0]["Attributes"]["MessageGroupId"] == message.tenant_id.hex


def test_on_sqs_a_message_that_somebody_had_before_says_so(on_sqs: Celery) -> None:
    with closing(CeleryPublisher(on_sqs, "io")) as publisher:
        publisher.publish([a_message()])

    with on_sqs.connection_for_read() as connection:
        channel = connection.channel()
        first = channel.basic_get("io.v1")
        channel.sqs().change_message_visibility(
            QueueUrl=channel._new_queue("io.v1"), ReceiptHandle=first.delivery_tag, VisibilityTimeout=0
        )
        again = channel.basic_get("io.v1")

    assert "redelivered" not in first.delivery_info
    assert again.delivery_info["redelivered"] is True
