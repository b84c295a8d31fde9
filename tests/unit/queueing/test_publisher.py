import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery

from agentfarm.errors import BrokerUnavailable
from agentfarm.ids import new_id
from agentfarm.messages import ExecuteNode, parse_message, render_message
from agentfarm.queueing.broker import EXECUTE_NODE
from agentfarm.queueing.publisher import CeleryPublisher, constant_headers
from tests.unit.queueing.conftest import NOWHERE, app_on

MESSAGE = ExecuteNode(
    tenant_id=new_id(),
    home="main",
    run_id=new_id(),
    checkpoint_id=new_id(),
    execution_id=new_id(),
    graph_id="support",
    node="plan",
    queue="cpu",
)


class Recorder:
    """A producer that keeps what it is asked to publish."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, dict[str, Any]]] = []

    def publish(self, body: bytes, **options: Any) -> None:
        self.sent.append((body, options))


def published(app: Celery, message: ExecuteNode) -> tuple[Any, dict[str, Any]]:
    recorder = Recorder()
    CeleryPublisher(app, "io")._send_one(recorder, message)
    body, options = recorder.sent[0]
    return json.loads(body), options


def test_the_message_is_the_one_that_celery_would_make(app: Celery) -> None:
    body, options = published(app, MESSAGE)
    task_id = options["headers"]["id"]
    theirs = app.amqp.as_task_v2(
        task_id,
        EXECUTE_NODE,
        args=[render_message(MESSAGE)],
        shadow="support.plan",
        ignore_result=True,
        argsrepr="",
        kwargsrepr=options["headers"]["kwargsrepr"],
        origin=constant_headers()["origin"],
    )

    assert options["headers"] == theirs.headers
    assert body == json.loads(json.dumps(theirs.body))
    assert options["correlation_id"] == theirs.properties["correlation_id"] == task_id
    assert options["reply_to"] == theirs.properties["reply_to"]


def test_what_travels_is_ids_that_lead_back_to_the_message(app: Celery) -> None:
    (arguments, keywords, _), _ = published(app, MESSAGE)

    assert keywords == {}
    assert parse_message(arguments[0]) == replace(MESSAGE, graph_id="", node="", queue="")


def test_flower_sees_the_node_and_the_tenants_id(app: Celery) -> None:
    headers = published(app, MESSAGE)[1]["headers"]

    assert headers["shadow"] == "support.plan"
    assert headers["kwargsrepr"] == f"{{'tenant': '{MESSAGE.tenant_id.hex}'}}"
    assert headers["argsrepr"] == ""


def test_it_goes_to_the_queue_that_the_node_names(app: Celery) -> None:
    assert published(app, MESSAGE)[1]["routing_key"] == "cpu.v1"


@pytest.mark.parametrize("queue", ["", "a-queue-of-another-build"])
def test_without_a_queue_of_this_farm_it_goes_to_the_default(app: Celery, queue: str) -> None:
    assert published(app, replace(MESSAGE, queue=queue))[1]["routing_key"] == "io.v1"


def test_ids_of_tasks_are_all_different(app: Celery) -> None:
    ids = {published(app, MESSAGE)[1]["headers"]["id"] for _ in range(50)}

    assert len(ids) == 50
    assert all(uuid.UUID(each) for each in ids)


def test_a_broker_that_is_not_there_is_said_with_how_many_messages_wait(app: Celery) -> None:
    with pytest.raises(BrokerUnavailable, match=r"3 message") as caught:
        CeleryPublisher(app, "io").publish([MESSAGE] * 3)

    assert caught.value.facts == {"count": 3, "why": "OperationalError"}


def test_the_length_of_a_queue_that_cannot_be_asked_is_not_known(app: Celery) -> None:
    assert CeleryPublisher(app, "io").queue_length("io") is None


def test_after_a_failure_nobody_asks_the_broker_for_a_while(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr("agentfarm.clock.monotonic_seconds", lambda: seconds)
    publisher = CeleryPublisher(app, "io")
    asked: list[float] = []
    connect = publisher._connect
    monkeypatch.setattr(publisher, "_connect", lambda: asked.append(seconds) or connect())  # type: ignore[func-returns-value]

    for tenth in range(200):
        seconds = 1 + tenth / 10
        with pytest.raises(BrokerUnavailable):
            publisher.publish([MESSAGE])

    assert [round(at - 1, 1) for at in asked] == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5]


def test_nothing_to_publish_asks_nobody(app: Celery) -> None:
    CeleryPublisher(app, "io").publish([])


@pytest.mark.parametrize("build", ["", "1.5"])
@pytest.mark.parametrize(
    ("queue", "told"),
    [
        ("", "io.v1"),
        ("cpu", "cpu.v1"),
        ("@1.4", "io.v1.b-1_4"),
        ("cpu@1.4", "cpu.v1.b-1_4"),
        ("never_heard_of@1.4", "io.v1.b-1_4"),
        ("@1.5", "io.v1.b-1_5"),
    ],
)
def test_a_message_goes_to_the_build_that_its_row_names_whoever_publishes_it(build: str, queue: str, told: str) -> None:
    for kind in NOWHERE:
        _, options = published(app_on(NOWHERE[kind], build=build), replace(MESSAGE, queue=queue))

        assert options["routing_key"] == told
