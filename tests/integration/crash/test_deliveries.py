"""Messages come twice, in any order, to two workers at once: each node is executed once all the same."""

import random
import threading
from collections import Counter

import pytest

from agentfarm.flow import step
from tests.integration.crash.cases import CASES
from tests.integration.crash.mortal import Process
from tests.integration.crash.stories import Delivery, Farm, Story, broken_promises, stock


class Twice(Story):
    """Every message is delivered twice, the second time after others that were sent since."""

    def work(self, delivery: Delivery) -> None:
        inbox = self.farm.inbox
        if not delivery.is_again:
            inbox.insert(random.Random(self.name).randint(0, len(inbox)), Delivery(delivery.message, is_again=True))
        super().work(delivery)


class ToTwoAtOnce(Story):
    """Every message is delivered to two workers at the same moment."""

    def work(self, delivery: Delivery) -> None:
        together, failed = threading.Barrier(2), []

        def act(worker: Process) -> None:
            together.wait(10)
            try:
                step.execute_node(worker.farm, delivery.message)
            except Exception as error:  # for the test's own thread to raise
                failed.append(error)

        workers = [self.farm.survivor("worker"), self.farm.survivor("other worker")]
        os_threads = [threading.Thread(target=act, args=(worker,)) for worker in workers]
        for os_thread in os_threads:
            os_thread.start()
        for os_thread in os_threads:
            os_thread.join(60)
        assert failed == []


@pytest.mark.parametrize("delivered", [Twice, ToTwoAtOnce])
@pytest.mark.parametrize("name", CASES)
def test_a_message_that_comes_twice_is_worked_once(farm: Farm, name: str, delivered: type[Story]) -> None:
    story = delivered(farm, name).tell()

    assert story.statuses == story.case.ends
    assert story.history == stock(story.case)
    assert broken_promises(farm, story) == []
    assert set(story.executed.values()) == {1}
    assert all(Counter(name for name, _ in events)["end"] == 1 for events in story.events)
    assert story.sweeps == 0
