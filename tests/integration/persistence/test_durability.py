"""Which commits of a run wait until they are on Postgres' disk."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from agentfarm.run_options import RunOptions
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.test_runs_whole import START_STATE, Worker, _fan_out, _line, make_worker

__all__ = ["make_worker"]

pytestmark = pytest.mark.parametrize("make_worker", ["postgres"], indirect=True)

PROBE = """
CREATE SCHEMA probe;
CREATE TABLE probe.seen (what text, waits text);
CREATE FUNCTION probe.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN INSERT INTO probe.seen VALUES (TG_ARGV[0], current_setting('synchronous_commit')); RETURN NULL; END $$;
CREATE TRIGGER probe_node AFTER UPDATE ON farm.node_execution FOR EACH ROW
  WHEN (NEW.status = 'done') EXECUTE FUNCTION probe.note('node');
CREATE TRIGGER probe_admission AFTER INSERT ON farm.run FOR EACH ROW EXECUTE FUNCTION probe.note('admission');
CREATE TRIGGER probe_end AFTER UPDATE ON farm.run FOR EACH ROW
  WHEN (OLD.status = 'running' AND NEW.status = 'success') EXECUTE FUNCTION probe.note('end');
"""


@pytest.fixture
def probe(home: Home) -> Iterator[Callable[[], Counter[tuple[str, str]]]]:
    """How often each was committed, and whether it waited."""
    with home.connect() as connection:
        connection.execute(PROBE)
        yield lambda: Counter(connection.execute("SELECT what, waits FROM probe.seen").fetchall())
        connection.execute("DROP SCHEMA probe CASCADE")


@pytest.mark.parametrize(("build", "nodes"), [(_line, 7), (_fan_out, 8)], ids=["line", "fan-out"])
@pytest.mark.parametrize("waits", [True, False])
def test_a_run_waits_for_the_disk_at_its_admission_and_its_end_and_between_unless_it_was_asked_not_to(
    make_worker: Callable[[Any], Worker],
    probe: Callable[[], Counter[tuple[str, str]]],
    build: Callable[[], Any],
    nodes: int,
    waits: bool,
) -> None:
    worker = make_worker(build())
    worker.options = RunOptions(waits_for_disk=waits)

    worker.run(uuid4(), START_STATE)

    seen = probe()
    assert seen["admission", "on"] == seen["end", "on"] == 1
    assert seen["admission", "off"] == seen["end", "off"] == 0
    # With the start; the last one ends the run.
    assert (seen["node", "on"], seen["node", "off"]) == ((nodes, 0) if waits else (1, nodes - 1))
