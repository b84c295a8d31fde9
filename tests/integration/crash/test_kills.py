"""The same by the kernel's hand: a worker process is killed -9 between two of its effects, and nobody can tell."""

import pytest

from tests.integration.crash.killed import KilledWorker
from tests.integration.crash.stories import Delivery, Farm, Fault, Story, broken_promises, gaps, stock

#: Where it is killed: (point, how often it has come by then). The first claim is the run's start; a first node follows
#: in the same message.
PLACES = {
    "before the start": ("before claim", 1),
    "with the start in hand": ("after claim", 1),
    "while a node runs": ("before an event", 5),
    "before a commit": ("before COMMITS", 2),
    "after a commit, before what is next is sent": ("before a message", 1),
    "after it is sent": ("after a message", 1),
    "before the end is told": ("before the end of a stream", 1),
}

CASES = {"line": "commit", "fan_out": "settle", "two questions": "commit"}


class Killed(Story):
    """One worker process works all messages until it is killed; then a broker delivers again, and others go on."""

    def __init__(self, farm: Farm, name: str, place: tuple[str, int], redis_url: str) -> None:
        super().__init__(farm, name)
        self.worker = KilledWorker(farm.settings, redis_url, place)

    def work(self, delivery: Delivery) -> None:
        if self.worker.is_dead:
            super().work(delivery)
        elif not self.worker.work(
            delivery.message, redelivered=delivery.is_again, send=self.farm.send, root=self.farm.root
        ):
            self.farm.inbox.appendleft(Delivery(delivery.message, is_again=True))


@pytest.fixture(scope="module")
def undisturbed(farm: Farm) -> dict[str, Story]:
    return {name: Story(farm, name, Fault()).tell() for name in CASES}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CASES)
def test_a_worker_that_is_killed_leaves_no_trace(
    farm: Farm, undisturbed: dict[str, Story], redis_url: str, name: str, place: str
) -> None:
    before, (point, times) = undisturbed[name], PLACES[place]
    commits = "finish" if farm.tier == "redis" and CASES[name] == "commit" else CASES[name]
    story = Killed(farm, name, (point.replace("COMMITS", commits), times), redis_url)
    try:
        story.tell()
        assert story.worker.is_dead, f"it never came to {place}"
    finally:
        story.worker.stop()

    assert story.statuses == before.statuses == story.case.ends
    assert story.history == before.history == stock(story.case)
    assert broken_promises(farm, story) == []
    assert gaps(story.events, before.events) == []
    assert story.nodes() == before.nodes()
