"""Each check finds what it is there to find, in a database where nothing else is wrong."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from tests.chaos import dossier
from tests.chaos.invariants import Broken, Facts, check_after_the_end, check_database
from tests.chaos.load import Ask, Book
from tests.services import OwnDatabase

ACME, GLOBEX = UUID(int=1), UUID(int=2)
THREAD, RUN = UUID(int=3), UUID(int=4)
FIRST, SECOND, THIRD = (UUID(int=n) for n in (10, 11, 12))
EXECUTION = UUID(int=20)

SOUND = f"""
INSERT INTO farm.thread_head (tenant_id, thread_id, head, step) VALUES ('{ACME}', '{THREAD}', '{SECOND}', 0);
INSERT INTO farm.run (tenant_id, run_id, thread_id, assistant_id, graph_id, status, spec, metadata,
                      started_at, finished_at, announced_at)
  VALUES ('{ACME}', '{RUN}', '{THREAD}', '{RUN}', 'chain', 'success', 'acme-word', '{{"ask": "u0.1"}}',
          now(), now(), now());
INSERT INTO farm.checkpoint (tenant_id, thread_id, checkpoint_id, parent_id, step, body)
  VALUES ('{ACME}', '{THREAD}', '{FIRST}', NULL, -1, ''), ('{ACME}', '{THREAD}', '{SECOND}', '{FIRST}', 0, 'acme-word');
INSERT INTO farm.node_execution (tenant_id, thread_id, run_id, checkpoint_id, execution_id, node, status,
                                 fence, attempts, spec)
  VALUES ('{ACME}', '{THREAD}', '{RUN}', '{FIRST}', '{EXECUTION}', 'a', 'done', 1, 1, '');
INSERT INTO farm.checkpoint_write (tenant_id, thread_id, checkpoint_id, execution_id, task_id, idx, run_id, fence, body)
  VALUES ('{ACME}', '{THREAD}', '{FIRST}', '{EXECUTION}', '{EXECUTION}', 0, '{RUN}', 1, '');
"""

#: What is done to the sound database, and what is then said of it.
BREACHES = {
    "a run that nobody works on": ("UPDATE farm.run SET status = 'running', finished_at = NULL", "P1: is running"),
    "an acknowledged run that is gone": ("DELETE FROM farm.run", "P1: acknowledged, and not in the database"),
    "another end than was told": ("UPDATE farm.run SET status = 'interrupted'", "P1: is interrupted, and its client"),
    "a run that nobody asked for": ("""UPDATE farm.run SET metadata = '{"ask": "?"}'""", "P1: was asked for by nobody"),
    "a run that was asked for once and made twice": (
        (
            "INSERT INTO farm.run (tenant_id, run_id, thread_id, assistant_id, graph_id, status, spec, metadata)"
            " SELECT tenant_id, gen_random_uuid(), thread_id, assistant_id, graph_id, status, spec, metadata"
            " FROM farm.run"
        ),
        "P1: u0.1 was asked for once, and 2 runs were made of it",
    ),
    "a lease that is left": ("UPDATE farm.node_execution SET status = 'leased'", "leases: node a is still leased"),
    "an end that was not told": ("UPDATE farm.run SET announced_at = NULL", "streams: its end was never told"),
    "a superstep that stands still": (
        f"INSERT INTO farm.superstep SELECT '{ACME}', '{RUN}', '{FIRST}', 2",
        "leases: a superstep of 2 was never advanced",
    ),
    "writes of an older claim": ("UPDATE farm.node_execution SET fence = 2", "P2: the writes of node a are of claim 1"),
    "a node begun more often than claimed": (
        "UPDATE farm.node_execution SET attempts = 0",
        "P2: node a was begun 1 times and claimed 0 times",
    ),
    "a node of a run in Redis begun more often than claimed": (
        "UPDATE farm.node_execution SET attempts = 0; UPDATE farm.run SET tier = 'redis'",
        "P2: node a was begun 1 times and claimed 0 times",
    ),
    "an execution of a run in Redis that is not in the database": (
        "UPDATE farm.node_execution SET execution_id = gen_random_uuid(); UPDATE farm.run SET tier = 'redis'",
        f"P2: execution {EXECUTION} was begun, and is not in the database",
    ),
    "writes of an older claim, of a run that Redis moved once": (
        "UPDATE farm.node_execution SET fence = 2; UPDATE farm.run SET tier = 'redis'",
        "P2: the writes of node a are of claim 1",
    ),
    "an execution that the ledger knows alone": (
        "UPDATE farm.node_execution SET execution_id = gen_random_uuid()",
        "P2: node a is done, and was never begun",
    ),
    "a fork": (
        (
            "INSERT INTO farm.checkpoint (tenant_id, thread_id, checkpoint_id, parent_id, step, body)"
            f" VALUES ('{ACME}', '{THREAD}', '{THIRD}', '{FIRST}', 0, '')"
        ),
        "has 2 children",
    ),
    "a lost parent": (f"UPDATE farm.checkpoint SET parent_id = '{THIRD}' WHERE step = 0", "has lost its parent"),
    "a skipped step": ("UPDATE farm.checkpoint SET step = 1 WHERE step = 0", "does not follow step -1"),
    "a head left behind": (f"UPDATE farm.thread_head SET head = '{FIRST}'", "its head is not its last checkpoint"),
    "words of another": (f"UPDATE farm.checkpoint SET tenant_id = '{GLOBEX}'", "P5: 1 rows of checkpoint hold words"),
    "a buried node": ("UPDATE farm.node_execution SET status = 'dead'", "P7: node a was buried"),
    "a failed run": ("UPDATE farm.run SET status = 'error'", "P7: ended with"),
}


@pytest.fixture
def facts(database: OwnDatabase, tmp_path: Path) -> Iterator[Facts]:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / str(RUN)).write_text(f"{EXECUTION} a 1 0.0\n")
    ask = Ask("u0.1", "acme", "chain", str(THREAD), {})
    book = Book(asks={ask.name: ask}, acknowledged={str(RUN): ask}, statuses={str(RUN): {"success"}})
    words = {"acme": "acme-word", "globex": "globex-word"}
    tenants = {"acme": ACME, "globex": GLOBEX}
    _do(database, SOUND)
    yield Facts(database.root_url, book, tenants, words, tmp_path / "ledger", [])
    _do(database, "TRUNCATE farm.thread_head, farm.run, farm.checkpoint, farm.node_execution, farm.checkpoint_write")
    _do(database, "TRUNCATE farm.superstep")


def _do(database: OwnDatabase, statement: str) -> None:
    with psycopg.connect(database.root_url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]  # literal SQL of the test


def test_nothing_is_said_of_a_sound_database(facts: Facts) -> None:
    assert check_database(facts) == []
    assert (facts.counts.runs, facts.counts.executions, facts.counts.begun_again) == (1, 1, 0)


@pytest.mark.parametrize(("breach", "said"), BREACHES.values(), ids=BREACHES)
def test_a_broken_promise_is_found(facts: Facts, database: OwnDatabase, breach: str, said: str) -> None:
    _do(database, breach)

    assert any(said in str(broken) for broken in check_database(facts))


BEGUN_UNCOUNTED = "UPDATE farm.node_execution SET attempts = 0"
IN_REDIS = "UPDATE farm.run SET tier = 'redis'"


def test_what_a_living_worker_had_when_its_run_was_recalled_is_a_claim_too(facts: Facts, database: OwnDatabase) -> None:
    given_back = """'[{"worker": "Redis", "given_back": true}]'"""
    _do(database, f"{IN_REDIS}; {BEGUN_UNCOUNTED}, lost_to = {given_back}")

    assert check_database(facts) == []


def test_what_redis_has_committed_has_writes_of_its_epoch(facts: Facts, database: OwnDatabase) -> None:
    """Which is of the same millisecond as the run, at the least."""
    _do(database, "UPDATE farm.checkpoint_write SET fence = 1700000000000")
    _do(database, "UPDATE farm.run SET tier = 'redis', created_at = to_timestamp(1700000000.0004)")

    assert check_database(facts) == []


@pytest.mark.parametrize(
    ("disturbed", "tier", "is_told"),
    [
        ("dark", "postgres", True),
        ("cut", "postgres", True),
        ("crashed", "postgres", False),
        ("dark", "redis", False),
        ("cut", "redis", False),
        ("crashed", "redis", False),
    ],
)
def test_a_claim_may_be_forgotten_by_whoever_was_disturbed_while_its_run_was_under_way(
    facts: Facts, database: OwnDatabase, disturbed: str, tier: str, is_told: bool
) -> None:
    _do(database, f"{BEGUN_UNCOUNTED}; UPDATE farm.run SET tier = '{tier}'")
    now, before, long = datetime.now(UTC), timedelta(seconds=60), timedelta(seconds=10)

    setattr(facts, disturbed, [(now - before, now - before + long)])
    assert [broken.promise for broken in check_database(facts)] == ["P2"], "it began after that"

    setattr(facts, disturbed, [(now - long, now + long)])
    assert [broken.promise for broken in check_database(facts)] == ["P2"] * is_told


def test_what_is_known_of_a_run_that_broke_something_is_told_without_its_words(facts: Facts, tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_text(f"run_id={RUN} was recalled\nanother line\n")
    facts.logs = [log]

    told = "\n".join(dossier.render(facts, [Broken("P2", "what", str(RUN)), Broken("farm", "of no run")]))

    for known in (
        '"graph_id": "chain"',
        f'"head": "{SECOND}"',
        '"node": "a"',
        f"begun: {EXECUTION} a",
        "one.log: run_id=",
    ):
        assert known in told
    assert "acme-word" not in told
    assert "another line" not in told


def test_words_of_a_tenant_in_a_log_are_found(facts: Facts, tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_text("a prompt: globex-word\n")
    facts.logs = [log]

    assert [broken.promise for broken in check_database(facts)] == ["P5"]


def test_a_lock_that_outlives_the_farm_is_found(facts: Facts, database: OwnDatabase) -> None:
    with psycopg.connect(database.root_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(7)")

        assert [broken.promise for broken in check_after_the_end(facts)] == ["leases"]
