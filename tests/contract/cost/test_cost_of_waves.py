"""What siblings cost that are taken one after the other: one call each, and hardly a message."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from agentfarm.flow.wave import Waves
from tests.contract.cost import graphs
from tests.contract.cost.farm import CountedFarm


class AllShort(Waves):
    """Every node is known to be short, and none is watched: what a wave costs is not to depend on the machine."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        for node in ("a", "item", "e"):
            self.durations.note("fan_out", node, 0.0)
        self.durations.note = lambda *_: None  # type: ignore[method-assign]


@pytest.fixture
def one_worker(farm: CountedFarm) -> Iterator[CountedFarm]:
    """No other is sent for."""
    if farm.tier != "postgres":
        pytest.skip("its siblings are each sent for")
    before = farm.farm
    farm.farm = replace(before, waves=AllShort(0))
    yield farm
    farm.farm = before


def test_a_wave_costs_one_call_a_sibling_and_no_message(one_worker: CountedFarm) -> None:
    given = {"log": [], "ballast": graphs.ballast(1000)}
    one_worker.run("fan_out", given)  # connections, prepared statements

    told = one_worker.run("fan_out", given)

    # The start, the node that fans out, each sibling; what they wrote is loaded, and the step advanced.
    [(first, whole), *after] = told.messages
    assert first == "fan_out.start"
    assert whole.postgres.round_trips == 1 + 1 + 1 + graphs.WIDTH + 2
    assert whole.broker.said["LPUSH"] == 1
    assert [name for name, _ in after] == ["fan_out.e"]
