"""What run and demo look up in the database, as the operator's role farm_admin sees it: who executes what. No state."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

WORKERS = "SELECT count(*) FROM farm.worker WHERE ended_at IS NULL AND beat_at > clock_timestamp() - interval '5 s'"

TENANT = "SELECT 1 FROM tenants_tenant WHERE slug = %s AND is_active"

HOLDER = """
SELECT w.pid, w.name FROM farm.node_execution e JOIN farm.worker w USING (worker)
 WHERE e.run_id = %s AND e.node = %s AND e.status = 'leased' AND w.ended_at IS NULL
"""

LINE = """
SELECT e.node, e.status, e.attempts, w.name, e.started_at, e.finished_at, coalesce(e.lost_to, '[]')
  FROM farm.node_execution e LEFT JOIN farm.worker w USING (worker)
 WHERE e.run_id = %s ORDER BY e.checkpoint_id, e.started_at
"""


@dataclass(frozen=True, slots=True)
class Holder:
    pid: int
    worker: str


@dataclass(frozen=True, slots=True)
class Execution:
    """One node execution. lost_to: names of workers that died over it."""

    node: str
    status: str
    attempts: int
    worker: str
    started_at: datetime | None
    finished_at: datetime | None
    lost_to: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


class Look:
    """One connection, each question a transaction of its own. Times are Postgres' own."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def living_workers(self) -> int:
        """Processes that may hold nodes: each worker with threads, each child of one with processes."""
        return int(self._rows(WORKERS)[0][0])

    def has_tenant(self, slug: str) -> bool:
        return bool(self._rows(TENANT, slug))

    def find_holder(self, run_id: str, node: str) -> Holder | None:
        rows = self._rows(HOLDER, run_id, node)
        return Holder(*rows[0]) if rows else None

    def now(self) -> datetime:
        answer: datetime = self._rows("SELECT clock_timestamp()")[0][0]
        return answer

    def line_of(self, run_id: str) -> list[Execution]:
        """The run's node executions in their order, without LangGraph's own pseudo nodes."""
        rows = self._rows(LINE, run_id)
        return [
            Execution(
                node, status, attempts, worker or "", started, finished, tuple(lost["worker"] for lost in lost_to)
            )
            for node, status, attempts, worker, started, finished, lost_to in rows
            if not node.startswith("__")
        ]

    def _rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, parameters).fetchall()


@contextmanager
def looking(url: str) -> Iterator[Look]:
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        yield Look(connection)
