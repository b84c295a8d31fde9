"""A worker may die at any instant, again and again: what a scenario comes to stays what it is by stock LangGraph,
whether Postgres moves its runs or Redis.

Workers are killed (SIGKILL) while they hold nodes of scenarios that were not hit before. A sample of the corpus for
each, by seed: DIFFERENTIAL_SEED (today's date), DIFFERENTIAL_SAMPLE (how many; "all" in `make differential`, where each
scenario has to be hit).
"""

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from agentfarm.persistence.database import Database
from tests.contract.differential import report, stock
from tests.contract.differential.accepted import ACCEPTED
from tests.contract.differential.compare import (
    _goes_on_inside,
    _out_of_order,
    differences_after_kills,
    normalised,
)
from tests.contract.differential.driving import Outcome, drive_all
from tests.contract.differential.killing import Killer
from tests.contract.differential.scenario import Record, Scenario
from tests.contract.differential.served import SCENARIOS
from tests.farm import FarmProcesses

#: They wait for healing more than for a core.
AT_ONCE = 10

#: Of one scenario, driven once. What its dead workers held is found within a second of their death; on a machine that
#: has ten times as much to do as it has cores, those that are to go on take minutes.
SECONDS = 300.0

SEED = os.environ.get("DIFFERENTIAL_SEED") or f"{datetime.now(UTC):%Y-%m-%d}"
SAMPLE = os.environ.get("DIFFERENTIAL_SAMPLE") or "8"

#: Seconds after which no scenario is driven again for want of a hit.
PATIENCE = 1200.0 if SAMPLE == "all" else 60.0

#: Of the scenarios, how many must be hit.
ENOUGH = 1.0 if SAMPLE == "all" else 0.5

#: By who moves the runs: what they ask for.
TIERS: Mapping[str, Mapping[str, Any]] = {"postgres": {}, "redis": {"persistence": "redis"}}


def _chosen(tier: str) -> list[str]:
    comparable = [name for name in SCENARIOS if name not in ACCEPTED]
    if SAMPLE == "all":
        return comparable
    return sorted(random.Random(f"{SEED} {tier}").sample(comparable, int(SAMPLE)))


CHOSEN = [(tier, name) for tier in TIERS for name in _chosen(tier)]


@pytest.fixture(scope="module")
def after_kills(
    request: pytest.FixtureRequest, farm: FarmProcesses, store: Database
) -> Mapping[tuple[str, str], Outcome]:
    """Of all scenarios that were asked for (-k)."""
    asked = [
        tuple(item.callspec.params[of] for of in ("tier", "name")) for item in request.session.items if _compares(item)
    ]
    found: dict[tuple[str, str], Outcome] = {}
    killer = Killer(farm, SEED)
    with killer.at_work():
        for tier in TIERS:
            outcomes = _drive(killer, farm, store, tier, [name for one, name in asked if one == tier])
            found |= {(tier, name): outcome for name, outcome in outcomes.items()}
    return found


def _drive(killer: Killer, farm: FarmProcesses, store: Database, tier: str, names: list[str]) -> Mapping[str, Outcome]:
    """Each until it was hit, or all had patience for long enough."""
    began = time.monotonic()

    def again(scenario: Scenario, record: Record) -> bool:
        if record.lost or time.monotonic() - began > PATIENCE:
            return False
        killer.unhit.add(scenario.name)
        return True

    killer.unhit = set(names)
    scenarios = [SCENARIOS[name].asking(TIERS[tier]) for name in names]
    found = asyncio.run(drive_all(scenarios, farm, store, at_once=AT_ONCE, seconds=SECONDS, again=again))
    took = time.monotonic() - began
    print(f"seed {SEED}, {tier}: {len(names)} scenarios in {took:.0f} s; killed so far {killer.kills}")
    return found


def _compares(item: Any) -> bool:
    return bool(getattr(item, "originalname", "") == test_a_scenario_comes_to_the_same_after_kills.__name__)


@pytest.mark.timeout(3600 if SAMPLE == "all" else 900)  # the first one waits for all of them
@pytest.mark.parametrize(("tier", "name"), CHOSEN)
def test_a_scenario_comes_to_the_same_after_kills(
    tier: str, name: str, after_kills: Mapping[tuple[str, str], Outcome]
) -> None:
    found = after_kills[tier, name]
    if isinstance(found, Exception):
        raise found

    report.note_kills(tier, SCENARIOS[name], found.lost)
    scenario = SCENARIOS[name]
    assert not differences_after_kills(stock.drive(scenario), found, parallel=scenario.parallel), f"seed {SEED}"


@pytest.mark.parametrize("tier", TIERS)
def test_the_sample_was_hit(tier: str, after_kills: Mapping[tuple[str, str], Outcome]) -> None:
    outcomes = {name: found for (one, name), found in after_kills.items() if one == tier}
    if not outcomes:
        pytest.skip(f"no scenario that {tier} moves was asked for, so that none could be hit")
    missed = [name for name, found in outcomes.items() if not (isinstance(found, Record) and found.lost)]

    assert len(missed) <= len(outcomes) * (1 - ENOUGH), missed


def test_where_no_scenario_was_asked_for_none_is_said_to_be_hit() -> None:
    with pytest.raises(pytest.skip.Exception, match="no scenario that redis moves was asked for"):
        test_the_sample_was_hit("redis", {})


@pytest.mark.parametrize(
    ("event", "is_known"),
    [
        (["values|sub 2:<id>", {"log": []}], True),  # of its first checkpoint, before it takes its input
        (["values|sub 2:<id>", {"log": ["in", "in 2", "in 1"]}], True),
        (["values|sub 2:<id>", {"log": ["in"]}], False),  # no state of this subgraph
        (["values", {"log": []}], False),  # the graph's own are told once each, whatever dies
        (["updates|sub 2:<id>", {"log": []}], False),
    ],
)
def test_a_subgraph_goes_on_from_a_state_that_stock_has_too(event: list[Any], *, is_known: bool) -> None:
    stored = normalised(stock.drive(SCENARIOS["child_3_deep"]))["stored"]

    assert _goes_on_inside(json.dumps(event), stored) == is_known


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        (["a", "b", "c"], []),
        (["a", "b", "a", "b", "c"], []),  # the lost attempt had told two
        (["a", "c"], ["b"]),
        (["b", "a", "c"], ["b"]),  # it came too early, and never behind the one before it
        (["c"], ["a", "b"]),
    ],
)
def test_what_is_missing_behind_the_one_before_it_is_found(told: list[str], missing: list[str]) -> None:
    assert _out_of_order(["a", "b", "c"], told) == missing
