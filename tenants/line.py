"""The line of a thread as an operator reads it: node execution by node execution, with the workers that were at it.

Reads the farm's tables as farm_admin, bounded, and always within one tenant. No state: a node's error is its type.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from tenants.models import Checkpoint, NodeExecution, Run, Worker

#: Most node executions that one page or command reads.
MAX_EXECUTIONS = 2000

#: Most checkpoints that one page reads.
MAX_CHECKPOINTS = 200


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that died, or fell silent, while it held the node execution; or that gave it back alive."""

    worker: str
    attempt: int
    at: str
    given_back: bool

    def __str__(self) -> str:
        return f"{'given back by' if self.given_back else 'lost to'} {self.worker} (attempt {self.attempt})"


@dataclass(frozen=True, slots=True)
class Execution:
    """One node execution, joined with the checkpoint it starts from and the worker that holds or held it last.

    step         the superstep, as LangGraph counts: -1 is the input; None where its checkpoint is gone
    worker_name  Celery's node name and the pid of the process; None where nobody began it
    attempts     how often a worker has taken it; tries: that had failed when its RetryPolicy asked for another, later
    seconds      from the last attempt's beginning to its end; None while it runs
    """

    execution_id: UUID
    run_id: UUID
    checkpoint_id: UUID
    node: str
    queue: str
    step: int | None
    status: str
    outcome: str | None
    attempts: int
    tries: int
    worker: int | None
    worker_name: str | None
    worker_pid: int | None
    lost_to: tuple[Lost, ...]
    available_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None

    @property
    def seconds(self) -> float | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def next_try(self) -> int | None:
        """The number of the try that it waits for, until `available_at`; None where it waits for none."""
        return self.tries + 1 if self.status == "ready" and self.outcome == "retry" else None

    def as_json(self) -> dict[str, Any]:
        """Ids as text, times in ISO 8601, `worker` as {id, name, pid}."""
        times = {name: getattr(self, name) for name in ("available_at", "started_at", "finished_at")}
        return {
            "execution_id": str(self.execution_id),
            "checkpoint_id": str(self.checkpoint_id),
            "node": self.node,
            "queue": self.queue,
            "step": self.step,
            "status": self.status,
            "outcome": self.outcome,
            "attempts": self.attempts,
            "tries": self.tries,
            "next_try": self.next_try,
            "worker": {"id": self.worker, "name": self.worker_name, "pid": self.worker_pid},
            "lost_to": [asdict(lost) for lost in self.lost_to],
            "seconds": self.seconds,
            "error": self.error,
            **{name: time.isoformat() if time else None for name, time in times.items()},
        }


@dataclass(frozen=True, slots=True)
class CheckpointSize:
    """A checkpoint without what is in it. bytes: of its own row; blobs: how many channel versions it refers to."""

    checkpoint_id: UUID
    parent_id: UUID | None
    run_id: UUID | None
    step: int
    created_at: datetime
    bytes: int
    blobs: int


def losses(lost_to: Iterable[dict[str, Any]] | None) -> tuple[Lost, ...]:
    """The entries of a column `lost_to`."""
    return tuple(_lost(one) for one in lost_to or ())


def executions_of_run(run: Run, *, limit: int = MAX_EXECUTIONS) -> list[Execution]:
    """In order of creation, at most `limit`. Served by the table's primary key."""
    rows = NodeExecution.objects.filter(tenant_id=run.tenant_id, run_id=run.run_id).order_by("created_at", "node")
    return _join(run, list(rows[:limit]))


def sizes_of_thread(tenant_id: UUID, thread_id: UUID, *, limit: int = MAX_CHECKPOINTS) -> list[CheckpointSize]:
    """The newest checkpoints of the thread itself (not of its subgraphs), newest first."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM farm.checkpoint_sizes(%s, %s, %s)", [tenant_id, thread_id, limit])
        return [CheckpointSize(*row) for row in cursor.fetchall()]


def _join(run: Run, rows: list[NodeExecution]) -> list[Execution]:
    workers = {
        worker.worker: worker
        for worker in Worker.objects.filter(worker__in={row.worker for row in rows if row.worker is not None})
    }
    steps = _steps(run, {row.checkpoint_id for row in rows})
    return [_execution(row, workers.get(row.worker or 0), steps) for row in rows]


def _steps(run: Run, checkpoint_ids: Iterable[UUID]) -> dict[UUID, int]:
    """The superstep that is executed from each checkpoint: the one after the checkpoint's own."""
    found = Checkpoint.objects.filter(
        tenant_id=run.tenant_id, thread_id=run.thread_id, ns="", checkpoint_id__in=list(checkpoint_ids)
    )
    return {checkpoint_id: step + 1 for checkpoint_id, step in found.values_list("checkpoint_id", "step")}


def _execution(row: NodeExecution, worker: Worker | None, steps: dict[UUID, int]) -> Execution:
    return Execution(
        execution_id=row.execution_id,
        run_id=row.run_id,
        checkpoint_id=row.checkpoint_id,
        node=row.node,
        queue=row.queue,
        step=steps.get(row.checkpoint_id),
        status=row.status,
        outcome=row.outcome,
        attempts=row.attempts,
        tries=row.tries,
        worker=row.worker,
        worker_name=worker.name if worker else None,
        worker_pid=worker.pid if worker else None,
        lost_to=losses(row.lost_to),
        available_at=row.available_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=row.error,
    )


def _lost(entry: dict[str, Any]) -> Lost:
    return Lost(
        worker=str(entry.get("worker")),
        attempt=int(entry.get("attempt") or 0),
        at=str(entry.get("at") or ""),
        given_back=entry.get("given_back") is True,
    )
