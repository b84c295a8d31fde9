"""How soon what a fault hit goes on again, and the bar that each kind of fault is held to.

A farm in which nothing else happens, with default settings, has the bars `alone`. In a storm faults overlap: while a
worker's nodes wait to be taken over, beat may be starting again, Postgres away or the broker unreachable, and all of it
shares the machine's cores with the load. So a storm has bars of its own, which still lie below what any other net would
need: a broker gives a dead worker's message to another after half a minute, and never one that it lost.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tests.chaos.faults import Fired, Key
from tests.chaos.graphs import read_ledger
from tests.chaos.invariants import Broken, Facts


@dataclass(frozen=True, slots=True)
class Bar:
    """what  must have come within so many seconds."""

    what: str
    alone: float
    storm: float


TAKEN_OVER: Final = Bar("what it held is executed again, or committed", alone=3.0, storm=20.0)
LEASE_OVER: Final = Bar("what it held is executed again, or committed", alone=20.0, storm=30.0)
COMMITTING: Final = Bar("the next commit after Postgres takes connections", alone=5.0, storm=15.0)
ALL_DONE: Final = Bar("every run that was under way is over", alone=60.0, storm=60.0)

#: By kind of fault. A worker whose connection to Postgres is cut, or swallowed, is a worker that may be lost.
BARS: Final[Mapping[str, Sequence[Bar]]] = {
    **dict.fromkeys(("kill child", "kill worker", "kill parent", "wrong clock"), (TAKEN_OVER,)),
    **dict.fromkeys(("freeze worker", "lose host", "split host"), (LEASE_OVER,)),
    **dict.fromkeys(("cut postgres", "black hole postgres", "one way postgres"), (LEASE_OVER,)),
    **dict.fromkeys(("kill postgres", "fill postgres"), (COMMITTING, ALL_DONE)),
    **dict.fromkeys(("kill broker", "flush broker"), (ALL_DONE,)),
    "lose message": (TAKEN_OVER, ALL_DONE),
}


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a fault cost.

    bar      None for a fault that hits nobody's work; its time is told and not judged
    seconds  until it was so; None: there was nothing to wait for
    came     False: it never was so, and the run is not over either
    run_id   of the one that took longest, or that never came; None where no run is meant
    """

    fired: Fired
    bar: Bar | None
    seconds: float | None
    came: bool = True
    run_id: UUID | None = None


@dataclass
class _Past:
    """What is known of every run and node at the end.

    commits  in Postgres: a run that Redis moves goes on while Postgres is away, and its rows say when it did
    """

    runs: Mapping[UUID, Mapping[str, Any]]
    nodes: Mapping[Key, Mapping[str, Any]]
    begun: Mapping[Key, Sequence[datetime]]
    commits: Sequence[datetime]


def recoveries(facts: Facts, fired: Sequence[Fired], now: Callable[[], tuple[datetime, float]]) -> list[Recovery]:
    """Of each fault that fired, in order: one for each of its bars.

    now  the wall clock and the monotonic clock at the same moment, since the ledger has the latter
    """
    past = _past(facts, now)
    found = []
    for one in fired:
        if one.at is None:
            continue
        found += [_measure(past, one, bar, one.at) for bar in BARS.get(one.planned.kind, (None,))]
    return found


def too_late(recovered: Sequence[Recovery], *, slack: float, alone: bool = False) -> list[Broken]:
    """slack: so many times the bar is allowed, on a machine that has much else to do."""
    found = []
    for one in recovered:
        if one.bar is None:
            continue
        bar = (one.bar.alone if alone else one.bar.storm) * slack
        if not one.came or (one.seconds or 0.0) > bar:
            told = f"{one.fired.planned}: {one.bar.what}: {_told(one)}, the bar is {bar:g} s"
            found.append(Broken("recovery", told, str(one.run_id) if one.run_id else None))
    return found


def _told(one: Recovery) -> str:
    return f"after {one.seconds:.1f} s" if one.came else "never"


def _past(facts: Facts, now: Callable[[], tuple[datetime, float]]) -> _Past:
    runs = {row["run_id"]: row for row in facts.rows("SELECT run_id, tier, created_at, finished_at FROM farm.run")}
    sql = "SELECT run_id, checkpoint_id, execution_id, started_at, finished_at, attempts FROM farm.node_execution"
    nodes = {(row["run_id"], row["checkpoint_id"], row["execution_id"]): row for row in facts.rows(sql)}
    places = defaultdict(list)
    for key in nodes:
        places[str(key[0]), str(key[2])].append(key)
    wall, monotonic = now()
    begun: dict[Key, list[datetime]] = defaultdict(list)
    for entry in read_ledger(facts.ledger):
        for key in places[entry.run_id, entry.execution_id]:
            begun[key].append(wall - timedelta(seconds=monotonic - entry.began))
    in_postgres = {run_id for run_id, run in runs.items() if run["tier"] == "postgres"}
    commits = sorted(
        row["finished_at"] for row in nodes.values() if row["finished_at"] and row["run_id"] in in_postgres
    )
    return _Past(runs, nodes, begun, commits)


def _measure(past: _Past, one: Fired, bar: Bar | None, at: datetime) -> Recovery:
    if bar in (TAKEN_OVER, LEASE_OVER):
        return _slowest(one, bar, at, [(key[0], _went_on(past, key, at)) for key in one.held])
    if bar is ALL_DONE:
        back = one.over or at
        hit = [run for run in past.runs.values() if run["created_at"] < back and (run["finished_at"] or back) >= at]
        return _slowest(one, bar, back, [(run["run_id"], run["finished_at"]) for run in hit])
    since = one.over or at if bar is COMMITTING else at
    under_way = any(
        run["created_at"] < since and (run["finished_at"] is None or run["finished_at"] > since)
        for run in past.runs.values()
        if run["tier"] == "postgres"
    )
    after = next((when for when in past.commits if when > since), None)
    return Recovery(one, bar, _seconds(since, after) if under_way else None, after is not None or not under_way)


def _slowest(one: Fired, bar: Bar | None, since: datetime, went: Sequence[tuple[UUID, datetime | None]]) -> Recovery:
    """went: of each run that was hit, when it went on or ended; None: never"""
    if not went:
        return Recovery(one, bar, None)
    run_id, _ = max(went, key=lambda pair: (pair[1] is None, pair[1] or since))
    last = max((when for _, when in went if when), default=None)
    return Recovery(one, bar, _seconds(since, last), all(when for _, when in went), run_id)


def _went_on(past: _Past, key: Key, at: datetime) -> datetime | None:
    """When a node was first begun or committed after that, or its run ended.

    What Redis commits is in Postgres late, and says when it was. A node that is not there at all was lost with what led
    to it, in the memory of Redis or in what Postgres had not flushed: then its run goes on where any other node of it
    does.
    """
    run = past.runs.get(key[0])
    keys = [key] if key in past.nodes else [other for other in past.nodes if other[0] == key[0]]
    known = [run["finished_at"] if run else None]
    for one in keys:
        row = past.nodes[one]
        known += [*past.begun.get(one, ()), row["finished_at"], row["started_at"]]
    return min((when for when in known if when and when > at), default=None)


def _seconds(since: datetime, until: datetime | None) -> float | None:
    return None if until is None else max(0.0, (until - since).total_seconds())
