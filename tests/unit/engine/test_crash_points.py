"""A worker dies at every point of every message: the history comes out as if nothing had happened.

What a database does is done here by the coordinator: a commit is whole or it is not, and whoever dies after it may not
have published what follows. The message of a dead worker is delivered again, after all that was sent before.
"""

from collections import Counter, deque
from dataclasses import replace
from typing import Any

import pytest
from langgraph.types import Command

from agentfarm.engine.segment import run_segment
from agentfarm.engine.steps import RunSpec, SegmentRequest
from agentfarm.testing.coordinator import Coordinator, Message, OpenRun
from agentfarm.testing.graphs import KNOWN, Known

from .conftest import CONFIG, Bench

GRAPHS = ["line", "diamond", "fan_out", "questions", "nested", "squares", "untracked"]


class Died(BaseException):
    """The worker is gone: nothing after this point has happened."""


class MortalFarm:
    """Works off a run's messages, and dies when the `dies_at`-th point is passed (0: never)."""

    def __init__(self, bench: Bench, *, dies_at: int) -> None:
        self.bench, self.dies_at = bench, dies_at
        self.points: list[str] = []
        self.inbox: deque[Message] = deque()
        self.executed: Counter[str] = Counter()
        self.coordinator = Coordinator(self.publish)

    def at(self, point: str) -> None:
        self.points.append(point)
        if len(self.points) == self.dies_at:
            raise Died

    def publish(self, message: Message) -> None:
        self.at("before a message is published")
        self.inbox.append(message)

    def run(self, spec: RunSpec) -> OpenRun:
        try:
            self.coordinator.create(spec)
        except Died:  # the client's request is sent again, or the healer finds the run
            self.inbox.append(Message(spec.run_id))
        while self.inbox:
            message = self.inbox.popleft()
            try:
                self.work(message)
                self.at("before the message is acknowledged")
            except Died:
                self.inbox.append(replace(message, attempt=message.attempt + 1))
        return self.coordinator.runs[spec.run_id]

    def work(self, message: Message) -> None:
        self.at("received")
        request = self.coordinator.begin(message)
        while request is not None:
            self.at("claimed")
            result = self.execute(request)
            self.at("executed")
            request = self.coordinator.commit(request, result, self.bench.saver)
            self.at("committed")

    def execute(self, request: SegmentRequest) -> Any:
        if request.kind == "node" and request.call:
            self.executed[request.call.execution_id] += 1
        return run_segment(self.bench.loaded.graph, request, saver=self.bench.saver)


def drive(known: Known, *, dies_at: int, nested: bool) -> tuple[MortalFarm, list[Any]]:
    """The whole story of a thread with one death in it."""
    bench = Bench(known.graph, nested=nested)
    farm = MortalFarm(bench, dies_at=dies_at)
    inputs: list[Any] = [known.input, *(["answers"] if known.answers else [])]
    for number, given in enumerate(inputs):
        value = given
        if given == "answers" and known.answers:
            value = Command(resume={id_: known.answers[question] for question, id_ in bench.questions().items()})
        config = {**CONFIG, "metadata": {"run_id": str(number)}}
        spec = RunSpec(str(number), "1", "graph", value, config, {"stream_mode": []}, nested=nested)
        run = farm.run(spec)
        assert run.error is None
        assert run.status in ("success", "interrupted")
    return farm, bench.history()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_worker_may_die_anywhere_and_nobody_can_tell(name: str, nested: bool) -> None:
    known = KNOWN[name]
    undisturbed, history = drive(known, dies_at=0, nested=nested)
    assert history[0][0] == known.output
    again: Counter[str] = Counter()

    for dies_at in range(1, len(undisturbed.points) + 1):
        farm, disturbed_history = drive(known, dies_at=dies_at, nested=nested)
        point = farm.points[dies_at - 1]

        assert disturbed_history == history, f"point {dies_at}, {point}"
        if sum(farm.executed.values()) > sum(undisturbed.executed.values()):
            again[point] += 1

    # Only a worker that dies between its claim and its commit has its node executed again.
    assert set(again) <= {"claimed", "executed"}
    assert again
