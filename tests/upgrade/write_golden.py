"""Writes the golden files of this build: `python -m tests.upgrade.write_golden 0.1`, once a release. With `-k` and the
names of tests below it writes those that a later change adds.

For each graph of graphs.py the rows of a thread that stopped in the middle, as PostgreSQL holds them, and those of the
store; for each kind of value that is kept its bytes, of our serializer and of stock's; and what stock's own savers have
of a graph that asks: the one in memory, and PostgresSaver's rows.
Committed, and never written again: test_golden.py reads all of them with every later build.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver

from agentfarm.engine.store_config import StoreConfig, StoreIndex
from agentfarm.persistence.database import Databases
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.persistence.store import PostgresStores
from agentfarm.tenancy import Tenant
from tests.contract.test_serde_values import REFUSED, STOCK_STRICT, TYPES, VALUES, fate
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.test_engine_over_postgres import Farm
from tests.upgrade.golden_files import FOLDER, take, take_stocks, take_store
from tests.upgrade.graphs import GOLDEN, ITEMS, Golden, asking_of_stock, letters, stocks_serde

BUILD = "AGENTFARM_GOLDEN_BUILD"


@pytest.mark.parametrize("name", GOLDEN)
def test_write_a_thread(name: str, home: Home, hands: Callable[..., Hand], acme: Tenant) -> None:
    golden = GOLDEN[name]
    farm = Stopping(home, hands, acme, golden)

    farm.go(golden.input)

    with home.connect() as root:
        _write(f"{name}.rows.json", {"tenant": str(acme.id), **take(root, acme.id)})


class Stopping(Farm):
    """Executes so many messages and no more."""

    def __init__(self, home: Home, hands: Callable[..., Hand], tenant: Tenant, golden: Golden) -> None:
        super().__init__(home, hands, tenant, golden.graph())
        self.most = golden.messages

    def go(self, given: Any) -> None:
        try:
            self.run(given, uuid4())
        except _Enough:
            return

    def execute(self, message: Any) -> Any:
        if self.most is not None and self.messages == self.most:
            raise _Enough
        return super().execute(message)


class _Enough(Exception):
    pass


def test_write_values() -> None:
    ours = FaithfulSerializer(types=TYPES)
    kept = sorted(VALUES.keys() - REFUSED)
    values = {name: _text(*ours.dump(VALUES[name])) for name in kept}
    stock = {
        name: _text(*STOCK_STRICT.dumps_typed(VALUES[name]))
        for name in kept
        if fate(name, STOCK_STRICT, STOCK_STRICT) == "kept"
    }
    _write("values.json", {"ours": values, "stock": stock})


def test_write_stock() -> None:
    graph = asking_of_stock()
    serde = stocks_serde(graph)
    saver = InMemorySaver(serde=serde)
    config: Any = {"configurable": {"thread_id": str(uuid4())}}
    graph.copy(update={"checkpointer": saver}).invoke({"messages": [HumanMessage("hello", id="h1")]}, config)

    found = saver.get_tuple(config)

    assert found is not None
    assert found.pending_writes
    written = [[task, channel, *_text(*serde.dumps_typed(value))] for task, channel, value in found.pending_writes]
    checkpoint = _text(*serde.dumps_typed(found.checkpoint))
    _write("stock.json", {"checkpoint": checkpoint, "metadata": found.metadata, "writes": written})


def test_write_postgres(own_home: Home) -> None:
    graph = asking_of_stock()
    config: Any = {"configurable": {"thread_id": str(UUID(int=7))}}
    with PostgresSaver.from_conn_string(own_home.url("root")) as saver:
        saver.serde = stocks_serde(graph)
        saver.setup()

        graph.copy(update={"checkpointer": saver}).invoke({"messages": [HumanMessage("hello", id="h1")]}, config)

    with own_home.connect() as root:
        _write("stock-postgres.json", take_stocks(root))


def test_write_store(home: Home) -> None:
    tenant = Tenant(id=UUID(int=7), slug="golden")
    index = StoreIndex.of({"embed": letters, "dims": 4, "fields": ["text"]})
    store = PostgresStores(Databases(home.app), StoreConfig(index), max_value_bytes=1 << 20).of(tenant)

    for key, (value, ttl) in ITEMS.items():
        store.put(("users", "bo"), key, value, ttl=ttl)

    with home.connect() as root:
        _write("store.json", take_store(root, tenant.id))


def _text(kind: str, data: bytes) -> list[str]:
    return [kind, base64.b64encode(data).decode()]


def _write(name: str, content: Any) -> None:
    folder = FOLDER / os.environ[BUILD]
    folder.mkdir(parents=True, exist_ok=True)
    file: Path = folder / name
    if file.exists():
        raise FileExistsError(f"{file} is there already, and golden files are not written twice")
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    # A process of its own: pytest wants to see what it rewrites before anybody has imported it.
    writing = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, *sys.argv[2:]]
    sys.exit(subprocess.run(writing, env={**os.environ, BUILD: sys.argv[1]}, check=False).returncode)
