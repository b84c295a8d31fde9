"""The corpus as a table: each feature of LangGraph, its scenarios, and how many of them came to the same.

Printed at the end of a test run in one process, as `make differential` makes it.
"""

from collections import defaultdict

from tests.contract.differential.accepted import ACCEPTED
from tests.contract.differential.scenario import Scenario

_told: dict[str, tuple[Scenario, list[str]]] = {}
_hits: dict[str, dict[str, int]] = defaultdict(dict)


def note(scenario: Scenario, differences: list[str]) -> None:
    """What came of a scenario that nothing disturbed."""
    _told[scenario.name] = (scenario, differences)


def note_kills(tier: str, scenario: Scenario, hits: int) -> None:
    """How often a worker died while it executed a node of it. tier: who moved its runs"""
    _hits[tier][scenario.name] = hits


def lines() -> list[str]:
    """Nothing where nothing was compared."""
    found = []
    if _told:
        found += _table()
    for tier, of_tier in _hits.items():
        hit = [hits for hits in of_tier.values() if hits]
        found.append(
            f"after kills, {tier}: {len(of_tier)} scenarios, {len(hit)} of them hit, {sum(hit)} node executions lost"
        )
    return found


def _table() -> list[str]:
    by_feature: dict[str, list[bool]] = defaultdict(list)
    for scenario, differences in _told.values():
        for feature in scenario.features:
            by_feature[feature].append(not differences)
    width = max(map(len, by_feature))
    rows = [f"{'feature':{width}}  scenarios  equal"]
    rows += [f"{name:{width}}  {len(equal):9}  {sum(equal):5}" for name, equal in sorted(by_feature.items())]
    differing = {name: differences for name, (_, differences) in _told.items() if differences}
    rows.append(f"{len(_told)} scenarios, {len(by_feature)} features, {len(_told) - len(differing)} equal")
    for name, differences in differing.items():
        why = f"accepted: {ACCEPTED[name].why}" if name in ACCEPTED else differences[0]
        rows.append(f"differs: {name}: {why}")
    return rows
