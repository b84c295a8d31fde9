"""Runs as these tests ask for them, and what the database says of them."""

from typing import Any
from uuid import UUID

from agentfarm.engine.steps import RunSpec
from agentfarm.ids import ZERO, new_id
from agentfarm.messages import ExecuteNode
from agentfarm.records import NewRun, Strategy
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home

ASSISTANT = UUID("5a2f0000-0000-4000-8000-000000000001")


def new_run(
    thread_id: UUID, strategy: Strategy = "enqueue", *, input: Any = None, run_id: UUID | None = None, **more: Any
) -> NewRun:
    run_id = run_id or new_id()
    configurable = {"thread_id": str(thread_id), "run_id": str(run_id), "checkpoint_id": "where it began"}
    spec = RunSpec(
        run_id=str(run_id),
        thread_id=str(thread_id),
        graph_id="agent",
        input=input,
        config={"configurable": configurable, "metadata": {"run_id": str(run_id), "kept": 1}},
        kwargs={"stream_mode": ["values"], "durability": "async"},
        modes=("values",),
    )
    return NewRun(run_id, thread_id, ASSISTANT, "agent", spec, strategy, **more)


def own_writes(home: Home, run_id: UUID) -> None:
    """As if this run had saved the writes that no run has: by its own hand, not over another's."""
    with home.connect() as connection:
        connection.execute("SET session_replication_role = replica")  # without the trigger keep_replaced
        connection.execute("UPDATE farm.checkpoint_write SET run_id = %s WHERE run_id IS NULL", (run_id,))


def start_of(tenant: Tenant, run_id: UUID) -> ExecuteNode:
    return ExecuteNode(tenant.id, "main", run_id, ZERO, run_id, graph_id="agent")


def thread_row(home: Home, tenant: Tenant, thread_id: UUID) -> tuple[object, ...]:
    statement = (
        "SELECT status, graph_id, assistant_id, metadata FROM farm.thread WHERE tenant_id = %s AND thread_id = %s"
    )
    return home.query(statement, tenant.id, thread_id)[0]


def statuses(home: Home, tenant: Tenant) -> dict[object, object]:
    return dict(home.query("SELECT run_id, status FROM farm.run WHERE tenant_id = %s", tenant.id))  # type: ignore[arg-type]  # pairs


def executions(home: Home, tenant: Tenant) -> list[tuple[object, ...]]:
    statement = (
        "SELECT run_id, execution_id, status, fence FROM farm.node_execution WHERE tenant_id = %s ORDER BY created_at"
    )
    return home.query(statement, tenant.id)


def end(home: Home, tenant: Tenant, run_id: UUID, status: str, error: str | None = None) -> None:
    """As a worker's last commit."""
    thread_id = home.query("SELECT thread_id FROM farm.run WHERE tenant_id = %s AND run_id = %s", tenant.id, run_id)[0][
        0
    ]
    home.query(
        "SELECT farm.lock_thread(%s, %s), farm.end_run(%s, %s, %s, %s, %s::jsonb, NULL, true)",
        *(tenant.id, thread_id, tenant.id, thread_id, run_id, status, error),
    )


def rows_of(home: Home, tenant: Tenant) -> dict[str, list[str]]:
    """The tenant's rows, but for times, and for what tells one line of entries from Redis from another."""
    told = {}
    for table in (
        "thread_head",
        "run",
        "checkpoint",
        "checkpoint_blob",
        "checkpoint_write",
        "node_execution",
        "superstep",
    ):
        left_out = "'{spec,epoch,entry,entry_id}'::text[]"
        statement = f"SELECT to_jsonb(t) - {left_out} #>> '{{}}' FROM farm.{table} t WHERE tenant_id = %s ORDER BY 1"
        told[table] = [str(row[0]) for row in home.query(statement, tenant.id)]
    told["thread"] = [
        str(row) for row in home.query("SELECT thread_id, status FROM farm.thread WHERE tenant_id = %s", tenant.id)
    ]
    return told


def is_waiting(home: Home) -> bool:
    return bool(home.query("SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'", home.name))
