"""A worker dies between any two of its effects, on the product's flow and a real Postgres: nobody can tell afterwards.

Each point is a story of its own, with one death in it; another process goes on. Then the history is stock LangGraph's,
P1 to P3 hold in the database, the stream lacks nothing, and a node was executed twice only where its worker died
between its claim and its commit. Here a sample of the points; `make crash` tries each in every way.
"""

import os
import random
from collections.abc import Sequence

import pytest

from tests.integration.crash.cases import CASES
from tests.integration.crash.stories import SAVED, Farm, Fault, Role, Story, broken_promises, gaps, stock

#: Points of a case that are tried; AGENTFARM_CRASH=20: so many, =all: each, and in every way in which a death can be.
CHOSEN = os.environ.get("AGENTFARM_CRASH", "8")

#: No node is in the hands of a worker that dies here, so that none is executed twice.
NO_NODE_IS_HELD = {
    "before claim", "after commit", "after settle", "before load_step", "after load_step",
    "after finish", "before step", "after step",
    "before a message", "after a message", "before the end of a stream", "after the end of a stream",
    "before mark_announced", "after mark_announced", "before the acknowledgement",
}  # fmt: skip

#: What every worker does in every run: a hook that is lost makes the suite blind, and fails it.
EFFECTS = {"claim", "an event", "a flush", "the end of a stream", "mark_announced", "the acknowledgement"}
OF_A_TIER = {"postgres": {"commit"}, "redis": {"open", "finish", "peek", "apply_entries", "trim"}}


def kinds(points: Sequence[str]) -> set[str]:
    return {point.partition(" ")[2] for point in points}


def undisturbed(farm: Farm, name: str, role: Role = "worker") -> Story:
    story = Story(farm, name, Fault(role)).tell()
    assert story.statuses == story.case.ends
    assert story.history == stock(story.case)
    assert broken_promises(farm, story) == []
    assert story.sweeps == 0, "a run that nobody disturbs needs no healer"
    return story


def faults(name: str, points: int, role: Role = "worker") -> Sequence[Fault]:
    """Which deaths to try: each of a sample in one way, or all in all."""
    ways = [(redelivers, is_lazy) for redelivers in (True, False) for is_lazy in (True, False)]
    if CHOSEN == "all":
        return [Fault(role, at, *way) for at in range(1, points + 1) for way in ways]
    chosen = random.Random(name)
    at = sorted(chosen.sample(range(1, points + 1), min(int(CHOSEN), points)))
    return [Fault(role, one, *chosen.choice(ways)) for one in at]


def disturb(farm: Farm, name: str, before: Story, *dying: Fault) -> Story:
    """A story with deaths in it, and all that must hold after it."""
    story = Story(farm, name, *dying).tell()

    where = "; ".join(f"{fault}: {story.points[fault.role][-1:]}" for fault in dying)
    assert all(len(story.points[fault.role]) == fault.dies_at for fault in dying if fault.dies_at), f"missed: {where}"
    assert story.statuses == before.statuses, where
    assert story.history == before.history, where
    assert broken_promises(farm, story) == [], where
    # What a node saves at once is not done again, and what it has not said of it by then is not said again: the one gap
    # that a stream may have.
    assert gaps(story.events, before.events, may_lack=story.saves_at_once("worker")) == [], where
    assert story.nodes().total() == before.nodes().total(), where
    return story


@pytest.mark.parametrize("name", CASES)
def test_a_worker_may_die_anywhere_and_nobody_can_tell(farm: Farm, name: str) -> None:
    before = undisturbed(farm, name)
    points = before.points["worker"]
    is_whole = before.case.options.get("durability") == "exit"
    assert kinds(points) >= EFFECTS | OF_A_TIER["postgres" if is_whole else farm.tier]
    assert len(points) >= before.case.points, "hooks are lost: the suite no longer sees all effects"
    if before.tasks and farm.tier == "postgres":
        assert points.count(SAVED) == before.tasks.total(), "a @task's result is saved when it returns"
    print(f"{name}: {len(points)} points")

    for fault in faults(name, len(points)):
        story = disturb(farm, name, before, fault)

        point = story.points["worker"][-1]
        again = story.executed.total() - before.executed.total()
        spared = before.case.counts_attempts and point not in NO_NODE_IS_HELD
        assert again == 0 or (again == 1 and point not in NO_NODE_IS_HELD) or (again == -1 and spared), (
            f"{fault}: {point}"
        )
        if before.tasks:  # those of other cases are not counted
            assert story.tasks.total() <= before.tasks.total() + story.unsaved_tasks, f"{fault}: {point}"


@pytest.mark.parametrize("name", ["line", "diamond", "waiting", "two questions"])
def test_who_admits_may_die_anywhere_and_a_client_that_asks_again_has_one_run(farm: Farm, name: str) -> None:
    before = undisturbed(farm, name, "web")
    points = before.points["web"]
    assert kinds(points) >= {"admit_alone", "a message", "the answer"}
    print(f"{name}: {len(points)} points of an admission")

    for fault in faults(name, len(points), "web"):
        story = disturb(farm, name, before, fault)

        assert story.executed.total() == before.executed.total(), f"{fault}: {story.points}"


#: A worker's death after which the healer has each of its works to do: (case, point, how often it has come by then).
HEALED = {
    "a lease": ("line", "after claim", 2),
    "a message": ("line", "before a message", 1),
    "a superstep": ("diamond", "after settle", 3),
    "an end": ("line", "after commit", 4),
    "a run that waits": ("waiting", "after commit", 4),
}
HEALED_IN_REDIS = {
    **HEALED,
    "an end": ("line", "after finish", 4),
    "a run that waits": ("waiting", "after apply_entries", 2),
}


@pytest.mark.parametrize("what", HEALED)
def test_the_healer_may_die_anywhere_and_the_next_sweep_finds_the_rest(farm: Farm, what: str) -> None:
    name, point, times = (HEALED if farm.tier == "postgres" else HEALED_IN_REDIS)[what]
    before = undisturbed(farm, name)
    dies_at = [at for at, passed in enumerate(before.points["worker"], 1) if passed == point][times - 1]
    worker = Fault("worker", dies_at, redelivers=False)
    points = disturb(farm, name, before, worker, Fault("healer")).points["healer"]
    assert kinds(points) >= {"ops_sweep", "ops_lost", "ops_stalled", "ops_unannounced"}
    print(f"{what}: {len(points)} points of a healer")

    for fault in faults(what, len(points), "healer"):
        disturb(farm, name, before, worker, fault)
