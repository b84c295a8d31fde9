"""What older builds have stored is read and continued by this one. The files: write_golden.py."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph.types import Command

from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.execution_keys import start_message
from agentfarm.persistence.serde import FaithfulSerializer, serde_of
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.tenancy import Tenant
from tests.contract.test_serde_values import TYPES, VALUES, same
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.test_engine_over_postgres import Databases, Farm
from tests.upgrade.golden_files import FOLDER, files, put
from tests.upgrade.graphs import GOLDEN, VISIT, Offer, Visit, asking_of_stock

FILES = [pytest.param(graph, file, id=f"{build}-{graph}") for build, graph, file in files()]


def test_there_are_files_for_each_graph() -> None:
    assert {graph for _, graph, _ in files()} == set(GOLDEN)


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
        ended = farm.run(golden.answer, thread["thread_id"])
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


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*/values.json")), ids=lambda file: file.parent.name)
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


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*/stock.json")), ids=lambda file: file.parent.name)
def test_a_thread_that_stock_langgraph_has_saved_goes_on_in_the_farm(
    file: Path, home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    stored, graph, thread_id = json.loads(file.read_text()), asking_of_stock(), uuid4()
    serde = serde_of(graph)
    checkpoint = serde.loads_typed(_bytes(*stored["checkpoint"]))
    PostgresThreads(Databases(home.app), lambda _: serde).create(acme, thread_id, {}, if_exists="raise")
    saver = TenantSaver(home.app, acme.id, serde)
    config: Any = {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": ""}}

    saved = saver.put(config, checkpoint, stored["metadata"], checkpoint["channel_versions"])
    for task_id, channel, *data in stored["writes"]:
        saver.put_writes(saved, [(channel, serde.loads_typed(_bytes(*data)))], task_id)
    farm = Farm(home, hands, acme, graph)
    ended = farm.run(Command(resume="yes"), thread_id)

    assert (ended.error, ended.status) == (None, "success")
    state = farm.graph.copy(update={"checkpointer": saver}).get_state(config)
    assert [(type(one), one.at, type(one.offer)) for one in state.values["visits"]] == [(Visit, VISIT.at, Offer)]
    assert state.values["seen"] == [{1, 2}, "yes", True, 2]


def _bytes(kind: str, data: str) -> tuple[str, bytes]:
    return kind, base64.b64decode(data)
