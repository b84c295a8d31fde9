"""What siblings cost that are taken one after the other: one call each, and hardly a message."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from agentfarm.flow import ahead
from agentfarm.flow.wave import Waves
from tests.contract.cost import graphs
from tests.contract.cost.farm import CountedFarm
from tests.contract.cost.prices import Price, priced


class AllShort(Waves):
    """Every node is known to be short, and none is watched: what a wave costs is not to depend on the machine."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        for node in ("a", "item", "e"):
            self.durations.note("fan_out", node, 0.0)
        self.durations.note = lambda *_: None  # type: ignore[method-assign]


@pytest.fixture
def one_worker(farm: CountedFarm, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountedFarm]:
    """No other is sent for, however long it takes."""
    monkeypatch.setattr(ahead, "WAVE_SECONDS", float("inf"))
    before = farm.farm
    farm.farm = replace(before, waves=AllShort(0))
    yield farm
    farm.farm = before


#: The start, the node that fans out, each sibling; what they wrote is loaded, and the step advanced.
WAVES: Mapping[str, Price] = {
    "postgres": Price(
        1 + 1 + 1 + graphs.WIDTH + 2, {"claim": 1, "commit": 3, "settle": graphs.WIDTH, "load_step": 1}, messages=1
    ),
    "redis": Price(1, {"claim": 1}, {"open": 1, "finish": 3, "settle": graphs.WIDTH, "step": 1}, messages=1),
}


def test_a_wave_costs_one_call_a_sibling_and_no_message(one_worker: CountedFarm) -> None:
    given = {"log": [], "ballast": graphs.ballast(1000)}
    one_worker.run("fan_out", given)  # connections, prepared statements

    told = one_worker.run("fan_out", given)

    [(first, whole), *after] = told.messages
    assert first == "fan_out.start"
    assert priced(whole, like=WAVES[one_worker.tier]) == WAVES[one_worker.tier], whole
    assert [name for name, _ in after] == ["fan_out.e"]
