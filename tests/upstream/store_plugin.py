"""pytest plugin: where a test of langgraph-checkpoint-postgres makes its store, it gets a tenant's.

A database that a test makes is a tenant here. Tests that look into LangGraph's table, or move times in it, are shown
that tenant's items by a view of the same name.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self
from uuid import UUID

import langgraph.store.postgres as module
import psycopg
from langgraph.store.base import Op, Result
from psycopg.rows import dict_row
from report_plugin import DID
from tenants_of_tests import FARM, database, pytest_plugin_registered, tenant_of

from agentfarm.engine.store_config import StoreConfig, StoreIndex
from agentfarm.persistence.store import TenantStore

__all__ = ["pytest_plugin_registered"]  # a hook


class _Ours(TenantStore):
    """Configured as the other store is."""

    MIGRATIONS = ("SELECT 1",)

    def __init__(self, tenant_id: UUID, index: Any, ttl: Any) -> None:
        config = StoreConfig(StoreIndex.of(index) if index else None, {} if ttl is None else ttl)
        super().__init__(database(), tenant_id, config, max_value_bytes=1 << 20)
        self.index_config = index

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        DID["calls"] += 1
        return super().batch(ops)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        DID["calls"] += 1
        return await super().abatch(ops)

    @property
    def view(self) -> str:
        """Postgres lets such a view be written to."""
        return (
            "CREATE TEMPORARY VIEW store AS SELECT namespace AS prefix, key, value, created_at, updated_at, expires_at,"
            f" ttl_minutes FROM farm.store_item WHERE tenant_id = '{self.tenant_id}'"
        )


class OursForPostgresStore(_Ours):
    @classmethod
    @contextmanager
    def from_conn_string(cls, conninfo: str, *, index: Any = None, ttl: Any = None, **_: Any) -> Iterator[Self]:
        yield cls(tenant_of(conninfo), index, ttl)

    def setup(self) -> None:
        """The schema is there."""

    def start_ttl_sweeper(self) -> None:
        """The healer's, elsewhere: what is over is not shown."""

    def stop_ttl_sweeper(self) -> None:
        """None was started."""

    @contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[Any]]:
        with psycopg.connect(FARM, autocommit=True, row_factory=dict_row) as connection:
            connection.execute(self.view)  # type: ignore[arg-type]  # made here
            yield connection.cursor()


class OursForAsyncPostgresStore(_Ours):
    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls, conninfo: str, *, index: Any = None, ttl: Any = None, **_: Any
    ) -> AsyncIterator[Self]:
        yield cls(tenant_of(conninfo), index, ttl)

    async def setup(self) -> None:
        """The schema is there."""

    async def start_ttl_sweeper(self) -> None:
        """The healer's, elsewhere: what is over is not shown."""

    async def stop_ttl_sweeper(self) -> None:
        """None was started."""

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[psycopg.AsyncCursor[Any]]:
        connecting = psycopg.AsyncConnection.connect(FARM, autocommit=True, row_factory=dict_row)
        async with await connecting as connection:
            await connection.execute(self.view)  # type: ignore[arg-type]  # made here
            yield connection.cursor()


vars(module)["PostgresStore"] = OursForPostgresStore
vars(module)["AsyncPostgresStore"] = OursForAsyncPostgresStore
