"""The Redis that moves runs loses its memory, finds an older one again, takes nothing, or falls silent, anywhere in a
worker's work: each run ends as it would have ended, on one line of checkpoints, and its end is told once."""

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agentfarm.errors import RedisTierUnavailable
from agentfarm.persistence.redis_tier.servers import _SCRIPTS
from tests.in_redis import keys_of_runs
from tests.integration.crash.mortal import Fate, MortalServer, Outside, Process
from tests.integration.crash.stories import Farm, Story, broken_promises, gaps
from tests.integration.crash.test_crash_points import CHOSEN, undisturbed

pytestmark = pytest.mark.parametrize("farm", ["redis"], indirect=True, scope="module")

#: Points between a memory and the moment at which it is all that Redis has.
AGO = 8

#: Nodes that may be executed again: those whose commits Postgres had not got, every second one here, and those in
#: progress where Redis cannot tell of them. A full one still gives what it has.
MOST_AGAIN = {"is emptied": 3, "finds an older memory": 3, "falls silent": 3, "takes nothing more": 0}

WRITES = {"open", "claim", "finish", "settle", "put"}


class Shaken(Fate):
    """A process that lives, and at one of whose points something happens to Redis.

    refuses    what Redis does not take any more
    is_silent  … it answers nothing, whatever it is asked
    """

    def __init__(self, at: int, shake: Callable[["Shaken"], None]) -> None:
        super().__init__()
        self.shakes_at, self.shake = at, shake
        self.refuses: frozenset[str] = frozenset()
        self.is_silent = False
        self.refused: list[str] = []
        self._once = threading.Lock()
        self.memories: list[Mapping[bytes, bytes]] = []
        self.remember: Callable[[], Mapping[bytes, bytes]] = dict

    def lives_past(self, point: str) -> bool:
        with self._once:  # LangGraph saves from several threads
            self.memories.append(self.remember())
            if len(self.points) + 1 == self.shakes_at:
                self.shake(self)
            return super().lives_past(point)


class RefusingServer(MortalServer):
    """changed: what it is called, where it is not the process that it was"""

    changed = ""

    def identity(self) -> str:
        self._refuse("identity")
        return self.changed or super().identity()

    def run(self, name: str, key: str, *args: Any) -> Any:
        self._refuse(name)
        return super().run(name, key, *args)

    def run_many(self, name: str, calls: Any) -> Any:
        self._refuse(name)
        return super().run_many(name, calls)

    def _refuse(self, name: str) -> None:
        if isinstance(self.fate, Shaken) and (self.fate.is_silent or name in self.fate.refuses):
            self.fate.refused.append(name)
            raise RedisTierUnavailable(why="OOM")


class ShakenFarm:
    """What Redis has of runs, over all threads of the test."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm

    def remember(self) -> Mapping[bytes, bytes]:
        redis = self.farm.streams
        return {key: redis.dump(key) for key in keys_of_runs(redis)}  # type: ignore[misc]  # of a sync client

    def forget(self, fate: Shaken) -> None:
        for key in self.farm.streams.keys("t:*:hot:*"):  # type: ignore[union-attr]  # likewise
            self.farm.streams.unlink(key)

    def find_again(self, fate: Shaken) -> None:
        """An older memory is another server's: one that was started on what was on its disk, or a replica."""
        self.forget(fate)
        RefusingServer.changed = "another"
        for key, value in fate.memories[-min(AGO, len(fate.memories))].items():
            self.farm.streams.restore(key, 0, value)

    def refuse(self, fate: Shaken) -> None:
        fate.refuses = frozenset(WRITES)

    def fall_silent(self, fate: Shaken) -> None:
        fate.is_silent = True


FAULTS: Mapping[str, Callable[[ShakenFarm], Callable[[Shaken], None]]] = {
    "is emptied": lambda farm: farm.forget,
    "finds an older memory": lambda farm: farm.find_again,
    "takes nothing more": lambda farm: farm.refuse,
    "falls silent": lambda farm: farm.fall_silent,
}


def shaken(farm: Farm, name: str, fault: str, at: int) -> tuple[Story, Shaken]:
    around = ShakenFarm(farm)
    fate = Shaken(at, FAULTS[fault](around))
    fate.remember = around.remember
    story = Story(farm, name)
    outside = Outside(farm.settings, farm.graphs, farm.log, farm.caches, farm.send, lambda: len(farm.inbox))
    process = Process(outside, "worker", is_worker=True, fate=fate)
    story.mortals["worker"] = process
    return story, fate


@pytest.fixture
def redis_farm(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> Farm:
    monkeypatch.setattr("tests.integration.crash.mortal.MortalServer", RefusingServer)
    return farm


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["line", "diamond", "twice", "waiting", "two questions", "tasks", "asking subgraph"])
def test_a_redis_that_fails_anywhere_costs_some_nodes_again_and_nothing_else(
    redis_farm: Farm, name: str, fault: str
) -> None:
    before = undisturbed(redis_farm, name)
    points = len(undisturbed_points(redis_farm, name))
    chosen = range(1, points + 1)
    few = (
        chosen if CHOSEN == "all" else sorted(random.Random(name + fault).sample(chosen, min(int(CHOSEN) // 2, points)))
    )
    refused: list[str] = []
    for at in few:
        RefusingServer.changed = ""
        story, fate = shaken(redis_farm, name, fault, at)
        story.tell()

        refused += fate.refused
        where = f"{fault} at {at}: {fate.points[at - 2 : at]}"
        assert len(fate.points) >= at - 1, f"never happened: {where}"
        assert story.statuses == before.statuses, where
        assert story.history == before.history, where
        assert broken_promises(redis_farm, story) == [], where
        if not before.tasks:  # one whose result was lost says it again
            assert gaps(story.events, before.events) == [], where
        assert [[name for name, _ in events].count("end") for events in story.events] == [1] * len(story.events), where
        again = story.executed.total() - before.executed.total()
        assert 0 <= again <= MOST_AGAIN[fault], f"{again} nodes executed again; {where}"
        RefusingServer.changed = ""
        if fault in ("is emptied", "takes nothing more"):  # else what is left is forgotten when its time is over
            assert keys_of_runs(redis_farm.streams, f"t:{story.tenant.id.hex}:hot:*") == [], where

    assert bool(refused) == (fault in ("takes nothing more", "falls silent"))


@pytest.mark.parametrize("script", _SCRIPTS)
def test_a_silent_redis_answers_no_script(redis_farm: Farm, redis_url: str, script: str) -> None:
    fate = Shaken(0, lambda fate: None)
    server = RefusingServer(redis_url, fate)

    ShakenFarm(redis_farm).fall_silent(fate)

    with pytest.raises(RedisTierUnavailable):
        server.run_many(script, [])
    server.close()


def undisturbed_points(farm: Farm, name: str) -> list[str]:
    story, fate = shaken(farm, name, "is emptied", 0)
    story.tell()
    return fate.points
