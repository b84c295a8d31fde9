"""What the farm knows of the runs that broke a promise: where a storm ran, nothing but its report may be left."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.chaos.graphs import read_ledger
from tests.chaos.invariants import Broken, Facts

#: Runs, and lines of logs a run: what a report has room for.
MOST_RUNS: Final = 3
MOST_LINES: Final = 40
MOST_CHARACTERS: Final = 400

_RUN: Final = (
    "SELECT run_id, graph_id, tier, status, build, created_at, started_at, finished_at, announced_at"
    " FROM farm.run WHERE run_id = %s::uuid"
)
_EXECUTIONS: Final = (
    "SELECT checkpoint_id, execution_id, node, status, outcome, fence, attempts, worker, created_at, started_at,"
    " finished_at, lost_to FROM farm.node_execution WHERE run_id = %s::uuid ORDER BY created_at, node"
)
_CHECKPOINTS: Final = (
    "SELECT ns, checkpoint_id, parent_id, step FROM farm.checkpoint WHERE run_id = %s::uuid ORDER BY ns, step"
)
_THREAD: Final = (
    "SELECT h.head, h.step, h.epoch, h.redis_run, h.entry FROM farm.thread_head h"
    " JOIN farm.run r USING (tenant_id, thread_id) WHERE r.run_id = %s::uuid"
)


def render(facts: Facts, broken: Sequence[Broken]) -> list[str]:
    """Markdown; nothing where nothing was broken."""
    runs = sorted({one.run_id for one in broken if one.run_id})[:MOST_RUNS]
    return [line for run_id in runs for line in _of_run(facts, run_id)]


def _of_run(facts: Facts, run_id: str) -> Iterator[str]:
    yield from ("", f"## Run {run_id}", "", "```")
    for table, sql in (("run", _RUN), ("thread", _THREAD), ("executions", _EXECUTIONS), ("checkpoints", _CHECKPOINTS)):
        for row in facts.rows(sql, run_id):
            yield f"{table}: {_short(row)}"
    for entry in read_ledger(facts.ledger):
        if entry.run_id == run_id:
            yield f"begun: {entry.execution_id} {entry.node} pid {entry.pid} at {entry.began:.3f}"
    found = [f"{log.name}: {line}" for log in facts.logs for line in _naming(log, run_id)]
    yield from found[-MOST_LINES:]
    yield "```"


def _naming(log: Path, run_id: str) -> Iterator[str]:
    for line in log.read_text(errors="replace").splitlines():
        if run_id in line:
            yield line[:MOST_CHARACTERS]


def _short(row: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in row.items() if value is not None}, default=str)[:MOST_CHARACTERS]
