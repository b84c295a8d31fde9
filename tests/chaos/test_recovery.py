"""A bar that nothing can miss is no bar: each of them, met and missed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from tests.chaos.faults import Fired
from tests.chaos.invariants import Facts
from tests.chaos.load import Book
from tests.chaos.plan import Planned
from tests.chaos.recovery import BARS, recoveries, too_late
from tests.services import OwnDatabase

TENANT, THREAD, RUN, HEAD, EXECUTION = (UUID(int=n) for n in range(1, 6))
MONOTONIC = 1000.0
NOW = datetime.now(UTC)
AT = NOW - timedelta(seconds=500)


@pytest.fixture
def facts(database: OwnDatabase, tmp_path: Path) -> Iterator[Facts]:
    (tmp_path / "ledger").mkdir()
    yield Facts(database.root_url, Book(), {}, {}, tmp_path / "ledger", [])
    _do(database, "TRUNCATE farm.run, farm.node_execution")


def _do(database: OwnDatabase, statement: str) -> None:
    with psycopg.connect(database.root_url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]  # literal SQL of the test


def _seen(
    database: OwnDatabase, *, claimed: float, committed: float | None, over: float | None, tier: str = "postgres"
) -> None:
    """A run that had begun before the fault; seconds after it."""

    def when(seconds: float | None) -> str:
        return "NULL" if seconds is None else f"'{(AT + timedelta(seconds=seconds)).isoformat()}'"

    status = "running" if over is None else "success"
    _do(
        database,
        "INSERT INTO farm.run"
        " (tenant_id, run_id, thread_id, assistant_id, graph_id, status, tier, spec, created_at, finished_at)"
        f" VALUES ('{TENANT}', '{RUN}', '{THREAD}', '{RUN}', 'chain', '{status}', '{tier}', '',"
        f" {when(-1)}, {when(over)});"
        "INSERT INTO farm.node_execution"
        " (tenant_id, thread_id, run_id, checkpoint_id, execution_id, node, status, spec, started_at, finished_at)"
        f" VALUES ('{TENANT}', '{THREAD}', '{RUN}', '{HEAD}', '{EXECUTION}', 'a',"
        f" '{'leased' if committed is None else 'done'}', '', {when(claimed)}, {when(committed)})",
    )


def _fired(kind: str, *, lasted: float = 0.0) -> Fired:
    one = Fired(Planned(0.0, kind, "one", 0.0, 0), at=AT, held=[(RUN, HEAD, EXECUTION)], evidence="it did")
    one.over = AT + timedelta(seconds=lasted)
    return one


def _told(facts: Facts, fired: Fired, *, slack: float = 1.0) -> list[str]:
    return [str(broken) for broken in too_late(recoveries(facts, [fired], lambda: (NOW, MONOTONIC)), slack=slack)]


@pytest.mark.parametrize("kind", BARS)
def test_a_run_that_never_goes_on_misses_the_bar_of_every_fault(kind: str, facts: Facts, database: OwnDatabase) -> None:
    _seen(database, claimed=-0.5, committed=None, over=None)

    told = _told(facts, _fired(kind))

    assert len(told) == len(BARS[kind])
    assert all("never" in one for one in told)


@pytest.mark.parametrize("kind", BARS)
def test_what_goes_on_in_time_meets_it(kind: str, facts: Facts, database: OwnDatabase) -> None:
    _seen(database, claimed=0.6, committed=0.8, over=1.0)

    assert _told(facts, _fired(kind)) == []


def test_the_first_execution_after_the_fault_counts_and_not_the_last_claim(facts: Facts, database: OwnDatabase) -> None:
    """The row has the last claim alone; a second fault may have taken the node again."""
    _seen(database, claimed=40.0, committed=41.0, over=42.0)
    assert "after 40.0 s" in _told(facts, _fired("kill worker"))[0]

    two_seconds_later = MONOTONIC - 500 + 2
    (facts.ledger / str(RUN)).write_text(f"{EXECUTION} a 1 {two_seconds_later}\n")

    assert _told(facts, _fired("kill worker")) == []


def test_a_node_that_redis_has_forgotten_goes_on_where_its_run_does(facts: Facts, database: OwnDatabase) -> None:
    _seen(database, claimed=2.0, committed=2.5, over=40.0, tier="redis")
    fired = _fired("kill worker")
    fired.held = [(RUN, UUID(int=99), UUID(int=98))]

    (recovered,) = recoveries(facts, [fired], lambda: (NOW, MONOTONIC))

    assert recovered.seconds == pytest.approx(2.0)
    assert recovered.came


def test_what_redis_commits_is_no_commit_of_a_postgres_that_comes_back(facts: Facts, database: OwnDatabase) -> None:
    """It would go on while Postgres is away for ever."""
    _seen(database, claimed=-0.5, committed=0.5, over=None, tier="redis")
    another = f"run_id = '{UUID(int=6)}', thread_id = '{UUID(int=7)}'"
    _do(database, f"UPDATE farm.run SET {another}; UPDATE farm.node_execution SET {another}")
    _seen(database, claimed=-0.5, committed=None, over=None)

    told = _told(facts, _fired("kill postgres"))

    assert any("the next commit after Postgres takes connections: never" in one for one in told)


def test_a_slow_machine_is_given_more(facts: Facts, database: OwnDatabase) -> None:
    _seen(database, claimed=25.0, committed=26.0, over=27.0)

    assert len(_told(facts, _fired("kill child"))) == 1
    assert _told(facts, _fired("kill child"), slack=2.0) == []


def test_a_farm_where_nothing_else_happens_is_held_to_more(facts: Facts, database: OwnDatabase) -> None:
    _seen(database, claimed=6.0, committed=7.0, over=8.0)
    recovered = recoveries(facts, [_fired("kill child")], lambda: (NOW, MONOTONIC))

    assert too_late(recovered, slack=1.0) == []
    assert len(too_late(recovered, slack=1.0, alone=True)) == 1


def test_the_brokers_clock_runs_from_when_it_is_back(facts: Facts, database: OwnDatabase) -> None:
    _seen(database, claimed=0.1, committed=80.0, over=80.0)

    assert len(_told(facts, _fired("kill broker", lasted=10.0))) == 1
    assert _told(facts, _fired("kill broker", lasted=30.0)) == []
