"""The end of a run, as its stream tells it."""

from dataclasses import replace

import orjson

from agentfarm.flow.farm import Farm
from agentfarm.flow.settle import announce, last_events
from agentfarm.records import Ended
from tests.unit.flow.world import World


def test_the_stream_is_closed_before_the_run_counts_as_announced(farm: Farm, world: World, ended: Ended) -> None:
    announce(farm, [ended])

    assert [call[0] for call in world.calls] == ["close_run", "mark_announced"]


def test_a_run_whose_stream_cannot_be_closed_stays_unannounced(farm: Farm, world: World, ended: Ended) -> None:
    world.streams_are_up = False

    announce(farm, [ended])

    assert world.did("mark_announced") == []


def test_a_failed_run_says_why_and_then_ends(ended: Ended) -> None:
    error = {"error": "ValueError", "message": "boom", "node": "n", "attempts": 6}
    failed = replace(ended, status="error", error=error)

    told, end = last_events(failed)

    assert (told.name, orjson.loads(told.data)) == ("error", {"error": "ValueError", "message": "boom"})
    assert (end.name, orjson.loads(end.data)) == ("end", {"status": "error"})
