"""Whether others wait: asked of the broker now and then, of this process always."""

import pytest

from agentfarm.queueing.backlog import ASK_SECONDS, QueueBacklog


class Broker:
    def __init__(self) -> None:
        self.lengths: dict[str, int | None] = {}
        self.asked: list[str] = []

    def __call__(self, queue: str) -> int | None:
        self.asked.append(queue)
        return self.lengths.get(queue, 0)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """[what it says]."""
    made = [50.0]
    monkeypatch.setattr("agentfarm.clock.monotonic_seconds", lambda: made[0])
    return made


def test_the_broker_is_asked_once_in_a_while_and_for_each_queue(broker: Broker, clock: list[float]) -> None:
    backlog = QueueBacklog(broker, lambda: 0)
    broker.lengths = {"gpu": 3}

    assert [backlog.has_work(queue) for queue in ("io", "gpu", "io", "gpu")] == [False, True, False, True]
    assert broker.asked == ["io", "gpu"]

    broker.lengths = {"io": 1}
    clock[0] += ASK_SECONDS * 0.9
    assert not backlog.has_work("io")
    clock[0] += ASK_SECONDS * 0.2
    assert backlog.has_work("io")
    assert broker.asked == ["io", "gpu", "io"]


def test_what_this_process_has_taken_and_not_begun_waits(broker: Broker) -> None:
    unbegun = [1]
    backlog = QueueBacklog(broker, lambda: unbegun[0])

    assert backlog.has_work("io")
    assert broker.asked == []
    unbegun[0] = 0
    assert not backlog.has_work("io")


def test_a_broker_that_does_not_answer_has_no_work_for_anybody(broker: Broker) -> None:
    broker.lengths = {"io": None}

    assert not QueueBacklog(broker, lambda: 0).has_work("io")


def test_one_thread_waits_for_the_broker_and_the_others_do_not(clock: list[float]) -> None:
    inside: list[bool] = []

    def asks(queue: str) -> int:
        inside.append(backlog.has_work(queue))  # as another thread would ask meanwhile
        return 1

    backlog = QueueBacklog(asks, lambda: 0)

    assert backlog.has_work("io")
    assert inside == [False]
