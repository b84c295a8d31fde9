"""LangGraph's store over a tenant's items: what graphs and clients remember across threads.

Bound to the tenant at birth: there is no call, and no namespace, that names another. A write is durable when it returns
and no part of the commit of a node that makes it, as with LangGraph's own stores: a node that is executed again writes
again, so it should put under the same key.
"""

import asyncio
from collections.abc import Iterable, Sequence
from uuid import UUID

from langgraph.store.base import BaseStore, Op, Result
from sqlalchemy import text

from agentfarm.engine.store_config import StoreConfig
from agentfarm.persistence import store_index
from agentfarm.persistence.database import Database, Databases
from agentfarm.persistence.store_batch import Batch
from agentfarm.tenancy import Tenant

_SWEEP = text("SELECT farm.store_sweep(:limit)")


class PostgresStores:
    """Fits flow's port `Stores`.

    max_value_bytes  of the JSON of one item
    """

    def __init__(self, databases: Databases, config: StoreConfig, *, max_value_bytes: int) -> None:
        self.databases = databases
        self.config = config
        self.max_value_bytes = max_value_bytes

    def of(self, tenant: Tenant) -> "TenantStore":
        return TenantStore(self.databases.of(tenant), tenant.id, self.config, max_value_bytes=self.max_value_bytes)

    def sweep(self, tenant: Tenant, *, limit: int) -> int:
        """Remove items that are over, so many at most. Returns how many there were."""
        with self.databases.transaction(tenant) as connection:
            return int(connection.execute(_SWEEP, {"limit": limit}).scalar_one())


class TenantStore(BaseStore):
    """One tenant's items.

    Beside what `BaseStore` says: an item whose time is over is seen by nobody. A batch reads first and writes then,
    each in one transaction, so that its gets see what was there before; of two puts of one key the last counts.
    raises  InvalidNamespaceError; InvalidInput and TooLarge, before anything is written; StoreUnavailable
    """

    __slots__ = ("config", "database", "max_value_bytes", "tenant_id", "ttl_config")

    supports_ttl = True

    def __init__(self, database: Database, tenant_id: UUID, config: StoreConfig, *, max_value_bytes: int) -> None:
        self.database = database
        self.tenant_id = tenant_id
        self.config = config
        self.max_value_bytes = max_value_bytes
        self.ttl_config = config.ttl

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        batch = self._plan(ops)
        vectors: Sequence[Sequence[float]] = ()
        if batch.needs_vectors and self.config.index is not None:
            vectors = store_index.embed(self.config.index.embeddings, batch.documents, batch.queries)
        return self._carry_out(batch, vectors)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        batch = self._plan(ops)
        vectors: Sequence[Sequence[float]] = ()
        if batch.needs_vectors and self.config.index is not None:
            vectors = await store_index.aembed(self.config.index.embeddings, batch.documents, batch.queries)
        return await asyncio.to_thread(self._carry_out, batch, vectors)

    def _plan(self, ops: Iterable[Op]) -> Batch:
        return Batch(ops, self.config.index, max_value_bytes=self.max_value_bytes)

    def _carry_out(self, batch: Batch, vectors: Sequence[Sequence[float]]) -> list[Result]:
        """Two transactions: who reads waits for nobody, and then holds nothing while it waits to write."""
        batch.take_vectors(vectors)
        if batch.reads:
            with self.database.transaction(self.tenant_id) as connection:
                batch.read(connection)
        if batch.writes:
            with self.database.transaction(self.tenant_id) as connection:
                batch.write(connection)
        return batch.results
