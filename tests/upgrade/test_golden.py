"""What older builds have stored is read and continued by this one. The files: write_golden.py."""

import base64
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command

from agentfarm.engine.store_config import StoreConfig, StoreIndex
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.execution_keys import start_message
from agentfarm.persistence.serde import FaithfulSerializer, serde_of
from agentfarm.persistence.store import PostgresStores
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.tenancy import Tenant
from tests.contract.test_serde_values import TYPES, VALUES, same
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.test_engine_over_postgres import Databases, Farm
from tests.upgrade.golden_files import FOLDER, STOCK_TABLES, STORE_TABLES, files, put
from tests.upgrade.graphs import GOLDEN, ITEMS, VISIT, Offer, Visit, asking_of_stock, letters, stocks_serde

FILES = [pytest.param(graph, file, id=f"{build}-{graph}") for build, graph, file in files()]


def named(name: str) -> Any:
    return pytest.mark.parametrize("file", sorted(FOLDER.glob(f"*/{name}")), ids=lambda file: file.parent.name)


def test_there_are_files_for_each_graph_and_of_each_kind() -> None:
    assert {graph for _, graph, _ in files()} == set(GOLDEN)
    assert {file.name for file in FOLDER.glob("*/*.json") if not file.name.endswith(".rows.json")} == {
        *("values.json", "store.json", "stock.json", "stock-postgres.json")
    }


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_thread_that_an_older_build_has_stopped_goes_on_to_its_end(
    name: str, file: Path, home: Home, hands: Callable[..., Hand]
) -> None:
    golden, rows = GOLDEN[name], json.loads(file.read_text())
    tenant = Tenant(id=UUID(rows.pop("tenant")), slug="golden")
    with home.connect() as root:
        put(root, rows)
    farm = Farm(home, hands, tenant, golden.graph())
    (thread,), (run,) = rows["thread"], rows["run"]

    if golden.answer is not None:
        ended = farm.run(golden.answer, UUID(thread["thread_id"]))
    else:
        ended = _go_on(farm, UUID(run["run_id"]))

    assert (ended.error, ended.status) == (None, "success")
    saver = TenantSaver(home.app, tenant.id, farm.serde)
    state = farm.graph.copy(update={"checkpointer": saver}).get_state(
        {"configurable": {"thread_id": thread["thread_id"]}}
    )
    assert same(golden.ends(state.values), golden.expected)


def _go_on(farm: Farm, run_id: UUID) -> Any:
    """What is open in the outbox is published again, as the healer does."""
    start = start_message(farm.tenant.id, farm.tenant.home, run_id, "graph", "")
    queue, ended = list(farm.workers[0].executions.open_at_head(start)), None
    assert len(queue) == 2  # of three: one had finished
    while queue:
        more, last = farm.execute(queue.pop(0))
        queue += more
        ended = last or ended
    return ended


@named("values.json")
def test_every_value_that_was_stored_is_read_as_what_it_was(file: Path) -> None:
    serde, stored = FaithfulSerializer(types=TYPES), json.loads(file.read_text())

    changed = [
        (writer, name)
        for writer, values in stored.items()
        for name, (kind, data) in values.items()
        if not same(serde.loads_typed((kind, base64.b64decode(data))), VALUES[name])
    ]

    assert changed == []
    assert len(stored["ours"]) > 100
    assert len(stored["stock"]) > 30


@named("stock.json")
def test_a_thread_that_stock_langgraph_has_saved_goes_on_in_the_farm(
    file: Path, home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    stored, graph = json.loads(file.read_text()), asking_of_stock()
    serde = serde_of(graph)
    checkpoint = serde.loads_typed(_bytes(*stored["checkpoint"]))
    writes = [(task, channel, serde.loads_typed(_bytes(*data))) for task, channel, *data in stored["writes"]]

    assert_goes_on([CheckpointTuple({}, checkpoint, stored["metadata"], None, writes)], serde, home, hands, acme)


@named("stock-postgres.json")
@pytest.mark.parametrize("bytes_of", ["ours", "stock"])
def test_a_thread_in_the_tables_of_stocks_postgres_saver_goes_on_in_the_farm(
    bytes_of: str, file: Path, own_home: Home, home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    """Read by our serializer out of stock's rows; then in ours, as each of the two writes them."""
    graph = asking_of_stock()
    with PostgresSaver.from_conn_string(own_home.url("root")) as saver:
        saver.setup()
        with own_home.connect() as root:
            put(root, json.loads(file.read_text()), STOCK_TABLES)
        saver.serde = serde_of(graph)
        history = list(saver.list({"configurable": {"thread_id": str(UUID(int=7))}}))

    assert len(history) == 3
    serde = serde_of(graph) if bytes_of == "ours" else stocks_serde(graph)
    assert_goes_on(history[::-1], serde, home, hands, acme)


def assert_goes_on(
    history: list[CheckpointTuple], serde: JsonPlusSerializer, home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    """Checkpoints of asking_of_stock, oldest first, the last of which asks: into a thread of ours, and to its end."""
    graph, thread_id = asking_of_stock(), uuid4()
    PostgresThreads(Databases(home.app), lambda _: serde_of(graph)).create(acme, thread_id, {}, if_exists="raise")
    saver = TenantSaver(home.app, acme.id, serde)
    config: Any = {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": ""}}
    saved = config
    for one in history:
        saved = saver.put(saved, one.checkpoint, one.metadata, one.checkpoint["channel_versions"])
        for task_id, channel, value in one.pending_writes or ():
            saver.put_writes(saved, [(channel, value)], task_id)
    farm = Farm(home, hands, acme, graph)

    ended = farm.run(Command(resume="yes"), thread_id)

    assert (ended.error, ended.status) == (None, "success")
    ours = farm.graph.copy(update={"checkpointer": TenantSaver(home.app, acme.id, serde_of(graph))})
    states = list(ours.get_state_history(config))
    assert [(type(one), one.at, type(one.offer)) for one in states[0].values["visits"]] == [(Visit, VISIT.at, Offer)]
    assert states[0].values["seen"] == [{1, 2}, "yes", True, 2]
    assert [state.metadata["step"] for state in states] == list(range(3, 1 - len(history), -1))


@named("store.json")
def test_items_that_an_older_build_has_stored_are_found_read_and_changed(file: Path, home: Home) -> None:
    rows, tenant, namespace = json.loads(file.read_text()), Tenant(id=UUID(int=7), slug="golden"), ("users", "bo")
    with home.connect() as root:
        put(root, rows, STORE_TABLES)
    index = StoreIndex.of({"embed": letters, "dims": 4, "fields": ["text"]})
    stores = PostgresStores(Databases(home.app), StoreConfig(index), max_value_bytes=1 << 20)
    store = stores.of(tenant)
    expires = "SELECT expires_at FROM farm.store_item WHERE key = 'timed'"
    ((until,),) = home.query(expires)

    listed = {item.key: item for item in store.search(namespace)}
    alike = store.search(namespace, query="a a b")

    assert {key: item.value for key, item in listed.items()} == {key: ITEMS[key][0] for key in ("kept", "timed")}
    assert same(listed["kept"].value["n"], ITEMS["kept"][0]["n"])
    made = {row["key"]: datetime.fromisoformat(row["created_at"]) for row in map(json.loads, rows["store_item"])}
    assert listed["kept"].created_at == made["kept"]
    assert [(item.key, round(item.score or 0, 3)) for item in alike] == [("kept", 1.0), ("timed", 0.0)]
    assert home.query(expires) > [(until,)]  # who was read lives on
    assert stores.sweep(tenant, limit=9) == 1
    store.put(namespace, "kept", {"text": "ddd"})
    changed = store.search(namespace, query="d", limit=1)[0]
    assert (changed.key, changed.value, changed.created_at) == ("kept", {"text": "ddd"}, made["kept"])


def _bytes(kind: str, data: str) -> tuple[str, bytes]:
    return kind, base64.b64decode(data)
