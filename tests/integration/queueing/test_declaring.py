"""A worker that starts makes its queues, also while the network is bad."""

import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
from kombu import Queue

from agentfarm.queueing.broker import declare_all
from tests.chaos.proxy import Network, Proxy
from tests.farm import wait_for
from tests.unit.queueing.conftest import app_on

#: Connects that are refused: the pauses between them are 0, 1, 2, 2, … s.
ASKED = 6

pytestmark = pytest.mark.parametrize("broker_url", ["rabbitmq", "redis"], indirect=True)


@pytest.fixture
def proxy(broker_url: str) -> Iterator[Proxy]:
    with Network() as network:
        yield network.proxy("worker-broker", lambda: urlsplit(broker_url).port or 0)


@pytest.fixture
def later(proxy: Proxy) -> Iterator[None]:
    """The broker is there for who has asked for it for longer than one connect may take."""
    proxy.refuse()

    def clear() -> None:
        wait_for(lambda: proxy.touched >= ASKED, what="somebody who is patient", seconds=60)
        proxy.clear()

    thread = threading.Thread(target=clear)
    thread.start()
    yield
    thread.join()


@pytest.fixture
def url(broker_url: str, proxy: Proxy) -> str:
    parts = urlsplit(broker_url)
    assert parts.hostname is not None
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")))


@pytest.mark.usefixtures("later")
def test_a_broker_that_is_not_there_yet_is_waited_for(url: str) -> None:
    app = app_on(url)
    asked_seconds = sum(min(pause, 2) for pause in range(ASKED - 1))
    assert asked_seconds > app.conf.broker_connection_timeout

    declare_all(app)


def test_a_connection_that_breaks_in_between_is_made_again(
    url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare, declared = Queue.declare, list[str]()

    def without_a_network_at_the_third(self: Queue, *args: object, **kwargs: object) -> object:
        declared.append(self.name)
        if len(declared) == 3:
            proxy.refuse()
        try:
            return declare(self, *args, **kwargs)
        finally:
            proxy.clear()

    monkeypatch.setattr(Queue, "declare", without_a_network_at_the_third)
    app = app_on(url)

    declare_all(app)

    assert {queue.name for queue in app.amqp.queues.values()} <= set(declared[3:])
