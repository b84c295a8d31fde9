"""What the database says of runs and node executions: ids, times and names, by the operator's role.

Clock times are Postgres' own, so that they compare whichever worker wrote them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg

#: A worker that was killed leaves its row until the healer has seen to it: its pid may be another's by then.
LIVING = (
    "select 1 from farm.worker where pid = %s and ended_at is null and beat_at > clock_timestamp() - interval '10 s'"
)


@dataclass(frozen=True, slots=True)
class Execution:
    run_id: UUID
    node: str
    status: str
    attempts: int
    worker: int | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Span:
    """One node execution that is done, in seconds since 1970."""

    node: str
    started: float
    finished: float


class Watcher:
    """One connection, autocommit: it holds no snapshot and no lock while it waits."""

    def __init__(self, url: str, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self.connection.close()

    def open_runs(self, run_ids: Sequence[UUID]) -> set[UUID]:
        """Those that are not over."""
        query = (
            "select run_id from farm.run where tenant_id = %s and run_id = any(%s) and status in ('pending', 'running')"
        )
        return {run_id for (run_id,) in self.connection.execute(query, [self.tenant_id, list(run_ids)])}

    def failed_runs(self, run_ids: Sequence[UUID]) -> dict[UUID, str]:
        query = "select run_id, status from farm.run where tenant_id = %s and run_id = any(%s) and status <> 'success'"
        return dict(self.connection.execute(query, [self.tenant_id, list(run_ids)]).fetchall())

    def executions(self, run_ids: Sequence[UUID]) -> list[Execution]:
        """By run, then in the order in which they started."""
        query = (
            "select run_id, node, status, attempts, worker, started_at, finished_at from farm.node_execution "
            "where tenant_id = %s and run_id = any(%s) order by run_id, started_at"
        )
        return [Execution(*row) for row in self.connection.execute(query, [self.tenant_id, list(run_ids)])]

    def spans(self, run_ids: Sequence[UUID]) -> dict[UUID, list[Span]]:
        """{run: its graph's nodes that are done, in order}. LangGraph's own pseudo nodes (__start__) are left out."""
        spans: dict[UUID, list[Span]] = {run_id: [] for run_id in run_ids}
        for each in self.executions(run_ids):
            if each.started_at and each.finished_at and not each.node.startswith("__"):
                spans[each.run_id].append(Span(each.node, each.started_at.timestamp(), each.finished_at.timestamp()))
        return spans

    def transactions(self) -> int:
        """So many have written something: a difference of two is what was committed meanwhile, by anybody."""
        row = self.connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
        return int(row[0]) if row else 0

    def log_bytes(self) -> int:
        """How far the server has come in its write-ahead log: a difference of two is what was written meanwhile, by
        anybody."""
        row = self.connection.execute("select (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
        return int(row[0]) if row else 0

    def pid_of(self, worker: int) -> int | None:
        """The process that holds what this worker holds; None when it is gone."""
        row = self.connection.execute("select pid from farm.worker where worker = %s", [worker]).fetchone()
        return row[0] if row else None

    def knows(self, pid: int) -> bool:
        """Whether a process holds leases under this pid: it is up and beats."""
        return self.connection.execute(LIVING, [pid]).fetchone() is not None
