"""A broker that is there and does not answer holds nobody up: not who publishes, nor who asks how long a queue is."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from agentfarm.errors import BrokerUnavailable
from agentfarm.local.rabbitmq import RabbitMQ
from agentfarm.local.services import Broker, Services
from agentfarm.local.state import State
from agentfarm.local.valkey import Valkey
from agentfarm.queueing import publisher as module
from agentfarm.queueing.broker import declare_all
from agentfarm.queueing.publisher import CeleryPublisher
from tests.farm import wait_for
from tests.integration.queueing.test_brokers import a_message
from tests.unit.queueing.conftest import app_on

SECONDS = 1.0  # one answer

#: What makes RabbitMQ block who publishes, and what ends it: no memory is left, or not enough of the disk.
ALARMS = {
    "memory": (
        "vm_memory_monitor:set_vm_memory_high_watermark(0).",
        "vm_memory_monitor:set_vm_memory_high_watermark(0.6).",
    ),
    "disk": (
        "rabbit_disk_monitor:set_disk_free_limit(1000000000000000).",
        "rabbit_disk_monitor:set_disk_free_limit(1000000).",
    ),
}


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest) -> Broker:
    kind: Broker = request.param
    return kind


@contextmanager
def silent(broker: Broker, mortals: Services, how: str) -> Iterator[None]:
    state = State(mortals.folder)
    if how in ALARMS:
        raised, over = ALARMS[how]
        evaluate(RabbitMQ(state), raised)
        try:
            yield
        finally:
            evaluate(RabbitMQ(state), over)
        return
    pid = Valkey(state).pid if broker == "redis" else RabbitMQ(state).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def evaluate(node: RabbitMQ, expression: str) -> None:
    command = [
        "rabbitmqctl",
        "-n",
        str(node.facts["node"]),
        "--erlang-cookie",  # the command becomes another user, who does not see the node's
        str(node.facts["cookie"]),
        "eval",
        expression,
    ]
    done = subprocess.run(command, env=node._environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize(
    ("broker", "how"),
    [
        ("redis", "frozen"),
        pytest.param("rabbitmq", "frozen", marks=pytest.mark.rabbitmq),
        pytest.param("rabbitmq", "memory", marks=pytest.mark.rabbitmq),
        pytest.param("rabbitmq", "disk", marks=pytest.mark.rabbitmq),
    ],
    indirect=["broker"],
    scope="module",
)
def test_a_broker_that_does_not_answer_is_unavailable_in_time(
    broker: Broker, mortals: Services, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", SECONDS)
    app = app_on(mortals.environment()["CELERY_BROKER_URL"])
    declare_all(app)
    with closing(CeleryPublisher(app, "io")) as publisher:
        publisher.publish([a_message()])
        before = publisher.queue_length("io")

        with silent(broker, mortals, how):
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                publisher.publish([a_message()])
            refused = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                publisher.publish([a_message(), a_message()])
            again = time.monotonic()
            wait_for(lambda: not publisher._is_paused(), what="the end of the pause")
            began_to_ask = time.monotonic()
            publisher.queue_length("io")
            asked = time.monotonic()

        def publishes() -> bool:
            try:
                publisher.publish([a_message()])
            except BrokerUnavailable:
                return False
            return True

        wait_for(publishes, what="a broker that takes messages again", seconds=30)
        times = (refused - began, again - refused, asked - began_to_ask, time.monotonic() - asked)
        print(f"{broker} {how}: " + ", ".join(f"{seconds:.2f} s" for seconds in times))  # told, not judged
        assert refused - began < 3 * SECONDS
        assert again - refused < 0.2  # nobody waits for the same silence
        assert asked - began_to_ask < 3 * SECONDS
        assert (publisher.queue_length("io") or 0) > (before or 0)
