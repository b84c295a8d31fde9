"""pytest plugin: where a test of langgraph-checkpoint-postgres makes its saver, it gets a tenant's.

A database that a test makes is a tenant here. The tests name threads and checkpoints as they like ("thread-1"); ours
are UUIDs, so such names are translated on the way in, and threads' back on the way out.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self
from uuid import NAMESPACE_OID, UUID, uuid5

import langgraph.checkpoint.postgres as sync_module
import langgraph.checkpoint.postgres.aio as async_module
import psycopg
import pytest
from langgraph.checkpoint.base import CheckpointTuple
from report_plugin import DID
from tenants_of_tests import FARM, database, pytest_plugin_registered, tenant_of

from agentfarm.persistence.bodies import open_body
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.serde import serde_of

__all__ = ["pytest_plugin_registered"]  # a hook


class _Ours(TenantSaver):
    """Made as the other saver is: of a connection, or a pool of them."""

    def __init__(self, conn: Any, pipe: Any = None, serde: Any = None) -> None:
        tenant_id = tenant_of(conn.conninfo if hasattr(conn, "conninfo") else conn.info.dsn)
        super().__init__(database(), tenant_id, serde or serde_of(None))

    def get_tuple(self, config: Any) -> CheckpointTuple | None:
        DID["calls"] += 1
        found = super().get_tuple(_named(config))
        return found and _as_given(found)

    def list(self, config: Any, *, before: Any = None, **options: Any) -> Iterator[CheckpointTuple]:
        DID["calls"] += 1
        for found in super().list(_named(config), before=_named(before), **options):
            yield _as_given(found)

    def put(self, config: Any, *given: Any) -> Any:
        DID["calls"] += 1
        return _back(super().put(_named(config), *given))

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        DID["calls"] += 1
        super().put_writes(_named(config), writes, _id(task_id), task_path)

    def get_delta_channel_history(self, *, config: Any, channels: Any) -> Any:
        DID["calls"] += 1
        return super().get_delta_channel_history(config=_named(config), channels=channels)

    async def alist(self, config: Any, *, before: Any = None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        async for found in super().alist(_named(config), before=_named(before), **options):
            yield _as_given(found)

    def delete_thread(self, thread_id: str) -> None:
        DID["calls"] += 1
        super().delete_thread(_id(thread_id))

    def prune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
        DID["calls"] += 1
        ids = [_id(thread_id) for thread_id in thread_ids] if isinstance(thread_ids, list) else thread_ids
        super().prune(ids, strategy=strategy)


class OursForPostgresSaver(_Ours):
    def setup(self) -> None:
        """The schema is there."""

    @classmethod
    @contextmanager
    def from_conn_string(cls, conninfo: str, **_: Any) -> Iterator[Self]:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            yield cls(connection)


class OursForAsyncPostgresSaver(_Ours):
    async def setup(self) -> None:
        """The schema is there."""

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conninfo: str, **_: Any) -> AsyncIterator[Self]:
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            yield cls(connection)


vars(sync_module)["PostgresSaver"] = OursForPostgresSaver
vars(async_module)["AsyncPostgresSaver"] = OursForAsyncPostgresSaver


# --------------------------------------------------------------------------- rows


def pytest_collection_modifyitems(items: "list[pytest.Item]") -> None:
    """Tests that look at rows are shown ours, as the other saver's."""
    for module in {item.getparent(pytest.Module).obj for item in items}:  # type: ignore[union-attr]  # each has one
        if hasattr(module, "_rows"):
            module._rows = _rows


async def _rows(saver: _Ours, thread_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """blobs: the channel versions that are stored, be it in a blob or, as small ones are here, in a checkpoint."""
    queries = {
        "checkpoints": "SELECT ns, checkpoint_id::text FROM farm.checkpoint WHERE thread_id = %s ORDER BY 1, 2",
        "writes": "SELECT ns, checkpoint_id::text, task_id::text, idx FROM farm.checkpoint_write WHERE thread_id = %s"
        " ORDER BY 1, 2, 3, 4",
        "bodies": "SELECT ns, body FROM farm.checkpoint WHERE thread_id = %s",
    }
    async with await psycopg.AsyncConnection.connect(FARM, autocommit=True) as connection:
        rows: dict[str, list[tuple[Any, ...]]] = {
            table: await (await connection.execute(query, (_id(thread_id),))).fetchall()
            for table, query in queries.items()
        }
    bodies = [(ns, open_body(body)) for ns, body in rows.pop("bodies")]
    stored = {
        (ns, key, opened["c"]["channel_versions"][key]) for ns, opened in bodies for key in (*opened["i"], *opened["r"])
    }
    return {**rows, "blobs": sorted(stored)}


# --------------------------------------------------------------------------- names

#: {id: the name it stands for}
NAMES: dict[str, str] = {}


def _id(name: str) -> str:
    try:
        return str(UUID(name))
    except ValueError:
        made = str(uuid5(NAMESPACE_OID, name))
        NAMES[made] = name
        return made


def _translated(config: Any, translate: Callable[[str], str]) -> Any:
    if config is None:
        return None
    given = dict(config.get("configurable", {}))
    for key in ("thread_id", "checkpoint_id"):
        if given.get(key):
            given[key] = translate(given[key])
    return {**config, "configurable": given}


def _named(config: Any) -> Any:
    return _translated(config, _id)


def _as_given(found: CheckpointTuple) -> CheckpointTuple:
    configs = {name: _back(getattr(found, name)) for name in ("config", "parent_config")}
    return found._replace(**configs)


def _back(config: Any) -> Any:
    return _translated(config, lambda value: NAMES.get(value, value))
