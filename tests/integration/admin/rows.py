"""Rows as the flow writes them, made by hand: pages are tested without running a graph."""

import json
from typing import Any
from uuid import UUID

import psycopg

from agentfarm.ids import ZERO, new_id
from tenants.models import Tenant

#: In every column that holds a tenant's words. No page may show it.
SECRET = "what-the-tenant-said"


class Rows:
    def __init__(self, root: psycopg.Connection) -> None:
        self.root = root

    def thread(self, tenant: Tenant, thread_id: UUID | None = None, **columns: Any) -> UUID:
        thread_id = thread_id or new_id()
        self._insert(
            "thread",
            tenant_id=tenant.id,
            thread_id=thread_id,
            metadata=json.dumps({"said": SECRET}),
            **{"graph_id": "support", **columns},
        )
        return thread_id

    def run(self, tenant: Tenant, thread_id: UUID, status: str = "success", **columns: Any) -> UUID:
        run_id = new_id()
        self._insert(
            "run",
            tenant_id=tenant.id,
            run_id=run_id,
            thread_id=thread_id,
            assistant_id=new_id(),
            graph_id="support",
            status=status,
            spec=SECRET.encode(),
            metadata=json.dumps({"said": SECRET}),
            **columns,
        )
        return run_id

    def checkpoint(self, tenant: Tenant, thread_id: UUID, run_id: UUID, step: int) -> UUID:
        checkpoint_id = new_id()
        self._insert(
            "checkpoint",
            tenant_id=tenant.id,
            thread_id=thread_id,
            checkpoint_id=checkpoint_id,
            run_id=run_id,
            step=step,
            body=SECRET.encode() * 10,
            refs=[f"{SECRET}:1"],
        )
        return checkpoint_id

    def item(self, tenant: Tenant, namespace: str, key: str, **columns: Any) -> None:
        self._insert(
            "store_item",
            tenant_id=tenant.id,
            namespace=namespace,
            key=key,
            value=json.dumps({"said": SECRET}),
            **{"value_bytes": 1234, **columns},
        )

    def worker(self, name: str, pid: int) -> int:
        number = new_id().int & ((1 << 62) - 1)
        self._insert("worker", worker=number, name=name, host="host", pid=pid)
        return number

    def execution(
        self, tenant: Tenant, thread_id: UUID, run_id: UUID, node: str, checkpoint_id: UUID = ZERO, **columns: Any
    ) -> UUID:
        execution_id = new_id()
        self._insert(
            "node_execution",
            tenant_id=tenant.id,
            thread_id=thread_id,
            run_id=run_id,
            checkpoint_id=checkpoint_id,
            execution_id=execution_id,
            node=node,
            spec=SECRET.encode(),
            **{"queue": "io", "status": "done", "attempts": 1, **columns},
        )
        return execution_id

    def dead_letter(self, tenant: Tenant, thread_id: UUID, run_id: UUID, node: str = "poison") -> None:
        lost = {"worker": "io@three/33", "attempt": 1, "at": "2026-11-25T10:00:02Z", "how": "died", "alone": True}
        self._insert(
            "dead_letter",
            tenant_id=tenant.id,
            thread_id=thread_id,
            run_id=run_id,
            checkpoint_id=ZERO,
            execution_id=run_id,
            graph_id="support",
            node=node,
            attempts=1,
            lost_to=json.dumps([lost]),
        )

    def _insert(self, table: str, **columns: Any) -> None:
        names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
        self.root.execute(f"INSERT INTO farm.{table} ({names}) VALUES ({places})", list(columns.values()))
