"""What a worker's threads tell Flower arrives, and costs the worker no connection."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from agentfarm.queueing.broker import declare_all
from agentfarm.queueing.publisher import CeleryPublisher
from tests.farm import wait_for
from tests.integration.queueing.test_brokers import a_message
from tests.integration.queueing.workers import slow_worker
from tests.unit.queueing.conftest import app_on

MESSAGES, EVENTS = 400, 50


@pytest.mark.parametrize("broker_url", ["rabbitmq", "redis"], indirect=True)
def test_threads_that_tell_much_at_once_keep_nobody_waiting(broker_url: str, tmp_path: Path) -> None:
    app = app_on(broker_url)
    declare_all(app)
    with (
        listening(app) as told,
        closing(CeleryPublisher(app, "io")) as publisher,
        slow_worker(broker_url, tmp_path, seconds=0, slots=8, SLOW_EVENTS=str(EVENTS)) as worker,
    ):
        publisher.publish([a_message() for _ in range(MESSAGES)])
        worker.await_done(MESSAGES)
        wait_for(lambda: len(told) == MESSAGES * EVENTS, what=f"all of it; log: {worker.log}", seconds=30)

        log = worker.log.read_text()
    assert worker.count("done") == MESSAGES
    assert "Connection to broker lost" not in log


@contextmanager
def listening(app: Celery) -> Iterator[set[tuple[str, int]]]:
    """What is told meanwhile, as Flower hears it."""
    told: set[tuple[str, int]] = set()
    listens = threading.Event()

    def hear(event: dict[str, Any]) -> None:
        told.add((event["uuid"], event["number"]))

    class Listener(app.events.Receiver):  # type: ignore[name-defined, misc]  # a class that Celery makes for each app
        def on_consume_ready(self, *args: Any, **kwargs: Any) -> None:
            listens.set()

    with app.connection_for_read() as connection:
        listener = Listener(connection, handlers={"task-told": hear})
        thread = threading.Thread(target=listener.capture)
        thread.start()
        try:
            assert listens.wait(30)
            yield told
        finally:
            listener.should_stop = True
            thread.join(30)
