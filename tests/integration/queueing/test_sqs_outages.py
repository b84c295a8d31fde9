"""A worker on an SQS that dies, forgets and is silent: it says so, lives, and hears of what comes afterwards."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.asynchronous.http import Request
from kombu.asynchronous.hub import Hub

from agentfarm.queueing import kombu_sqs
from agentfarm.queueing.broker import declare_all
from agentfarm.queueing.publisher import CeleryPublisher
from tests.farm import wait_for
from tests.integration.queueing.test_brokers import a_message
from tests.integration.queueing.workers import slow_worker
from tests.sqs import Moto
from tests.unit.queueing.conftest import app_on


@pytest.fixture
def own_sqs(tmp_path: Path) -> Iterator[Moto]:
    """One that a test may kill."""
    server = Moto(tmp_path)
    server.start()
    yield server
    server.kill()


def test_a_worker_outlives_a_server_that_is_killed_and_comes_back_without_its_queues(
    own_sqs: Moto, tmp_path: Path
) -> None:
    app = app_on(own_sqs.url)
    declare_all(app)
    with closing(CeleryPublisher(app, "io")) as publisher, slow_worker(own_sqs.url, tmp_path, seconds=0) as worker:
        publisher.publish([a_message()])
        worker.await_done()

        own_sqs.kill()
        wait_for(lambda: "asking again" in worker.log.read_text(), what="the worker that notices", seconds=30)
        own_sqs.start()
        publisher.publish([a_message()])
        worker.await_done(2, seconds=30)

        assert worker.popen.poll() is None


def test_a_worker_outlives_the_loss_of_its_queue(own_sqs: Moto, tmp_path: Path) -> None:
    app = app_on(own_sqs.url)
    declare_all(app)
    with closing(CeleryPublisher(app, "io")) as publisher, slow_worker(own_sqs.url, tmp_path, seconds=0) as worker:
        publisher.publish([a_message()])
        worker.await_done()

        own_sqs.empty()
        publisher.publish([a_message()])
        worker.await_done(2, seconds=30)

        assert worker.popen.poll() is None
        # What it read, made again with its dead letters; and no queue of what workers say of themselves.
        assert queue_names_of(app) == {"agentfarm-dead", "agentfarm-io-v1"}


def test_a_queue_that_another_has_just_made_otherwise_is_taken_as_it_is(own_sqs: Moto) -> None:
    app = app_on(own_sqs.url)
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        made = channel.sqs().create_queue(QueueName="agentfarm-io-v1", Attributes={"VisibilityTimeout": "77"})

        found = channel._create_queue("agentfarm-io-v1", {"VisibilityTimeout": "78"})

    assert found["QueueUrl"] == made["QueueUrl"]


def queue_names_of(app: Celery) -> set[str]:
    with app.connection_for_read() as connection:
        urls = connection.default_channel.sqs().list_queues()["QueueUrls"]
    return {url.rsplit("/", 1)[1] for url in urls}


@pytest.mark.filterwarnings("ignore:(IOCTLFUNCTION|socket_all) is deprecated:DeprecationWarning")  # kombu's
def test_a_question_that_nobody_answers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu_sqs, "RECEIVE_SECONDS", 0.5)
    answers: list[Any] = []
    hub = Hub()
    with socket.create_server(("127.0.0.1", 0)) as silent, closing(hub), closing(kombu_sqs.PunctualCurl(hub)) as curl:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        curl.add_request(Request(url, method="POST", body="", on_ready=answers.append))
        loop = hub.create_loop()
        wait_for(lambda: next(loop) or answers, what="the end of the question", seconds=10)

    assert [(answer.code, answer.error.errno) for answer in answers] == [(599, 28)]
