"""A graph that is made for each request, on a real farm: for whom, how often, and on which worker."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import APIStatusError

from agentfarm.local.services import Services
from agentfarm.local.state import State
from agentfarm.local.valkey import Valkey
from tests.farm import FarmProcesses, wait_for
from tests.services import emptied, number_of

BOTH = ["sync_factory", "async_factory"]


@pytest.fixture(scope="module")
def broker_url(servers: Services, worker_id: str) -> str:
    """Valkey alone: what a factory makes does not depend on the broker."""
    return emptied(Valkey(State(servers.folder)).url(2 * number_of(worker_id) + 1))


def tenant_id(farm: FarmProcesses, slug: str) -> str:
    return str(farm.query("SELECT id FROM tenants_tenant WHERE slug = %s", slug)[0][0])


def journal(path: Path) -> Counter[tuple[str, str]]:
    """How often it was {opened, closed, left by an error}, by the reason why it was made."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return Counter((why, word) for why, word, _ in lines)


@pytest.mark.parametrize("graph_id", BOTH)
def test_each_tenant_and_each_config_gets_a_graph_of_its_own(
    client: SyncLangGraphClient, other_client: SyncLangGraphClient, farm: FarmProcesses, graph_id: str
) -> None:
    answers = {
        slug: asking.runs.wait(None, graph_id, input={}, config={"configurable": {"word": f"of {slug}"}})
        for slug, asking in (("demo", client), ("other", other_client))
    }

    # The item is of a class that the factory made, and made anew for the second node.
    assert {slug: answer["log"] for slug, answer in answers.items()} == {
        slug: [f"first for {tenant_id(farm, slug)}", f"second got an Item: of {slug}"] for slug in ("demo", "other")
    }


@pytest.mark.parametrize("graph_id", BOTH)
def test_it_is_made_for_each_segment_and_each_look_and_closed_as_often(
    client: SyncLangGraphClient, tmp_path: Path, graph_id: str
) -> None:
    config = {"configurable": {"journal": str(tmp_path / "journal")}}
    thread_id = client.threads.create()["thread_id"]

    run_id = client.runs.create(thread_id, graph_id, input={}, config=config)["run_id"]
    client.runs.join(thread_id, run_id)

    told = journal(tmp_path / "journal")
    executed, admitted = "threads.create_run", "assistants.read"
    assert (told[executed, "open"], told[executed, "closed"]) == (3, 3)  # the start, first and second
    assert (told[admitted, "open"], told[admitted, "closed"]) == (1, 1)
    assert set(told) <= {(why, word) for why in (executed, admitted, "threads.read") for word in ("open", "closed")}
    assert told["threads.read", "open"] == told["threads.read", "closed"]


@pytest.mark.parametrize("graph_id", BOTH)
def test_a_failing_node_leaves_the_context_manager_by_its_error(
    client: SyncLangGraphClient, tmp_path: Path, graph_id: str
) -> None:
    config = {"configurable": {"journal": str(tmp_path / "journal")}}
    thread_id = client.threads.create()["thread_id"]

    run_id = client.runs.create(thread_id, graph_id, input={"fails": True}, config=config)["run_id"]
    client.runs.join(thread_id, run_id)

    assert client.runs.get(thread_id, run_id)["status"] == "error"
    told = journal(tmp_path / "journal")
    assert told["threads.create_run", "open"] == 3
    assert (told["threads.create_run", "closed"], told["threads.create_run", "ValueError"]) == (2, 1)


def test_a_node_whose_worker_is_killed_gets_its_graph_made_again_by_another(
    client: SyncLangGraphClient, farm: FarmProcesses, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    config = {"configurable": {"journal": str(path), "word": "kept"}}
    thread_id = client.threads.create()["thread_id"]
    run_id = client.runs.create(thread_id, "sync_factory", input={"hangs_in": str(tmp_path)}, config=config)["run_id"]
    holder = farm.process_of(farm.holder_of(run_id, "second"))
    wait_for((tmp_path / "second").exists, what="the second node, hanging")

    holder.kill()
    client.runs.join(thread_id, run_id)

    answer = client.threads.get_state(thread_id)["values"]
    assert answer["log"][1] == "second got an Item: kept"
    executed = [line.split() for line in path.read_text().splitlines() if line.startswith("threads.create_run open")]
    assert len(executed) == 4
    assert executed[3][2] != executed[2][2] == str(holder.pid)
    farm.start_worker(f"{holder.name}-again")


@pytest.mark.parametrize("graph_id", BOTH)
def test_a_thread_is_read_and_changed_with_the_graph_of_its_newest_run(
    client: SyncLangGraphClient, graph_id: str
) -> None:
    thread_id = client.threads.create()["thread_id"]
    config = {"configurable": {"extra_node": "third", "word": "read"}}
    client.runs.wait(thread_id, graph_id, input={}, config=config, interrupt_before=["third"])

    state = client.threads.get_state(thread_id)
    client.threads.update_state(thread_id, {"log": ["by hand"]}, as_node="third")
    after, *before = client.threads.get_history(thread_id, limit=10)

    assert state["next"] == ["third"]
    assert state["values"]["item"] == {"word": "read"}
    assert after["values"]["log"][2:] == ["by hand"]
    assert after["next"] == []
    assert len(before) == 4
    assert client.threads.get(thread_id)["values"]["item"] == {"word": "read"}


def test_its_drawing_and_its_schemas_are_answered(client: SyncLangGraphClient) -> None:
    assistant = client.assistants.search(graph_id="async_factory")[0]["assistant_id"]

    drawing = client.assistants.get_graph(assistant)
    schemas = client.assistants.get_schemas(assistant)

    assert [node["id"] for node in drawing["nodes"]] == ["__start__", "first", "second", "__end__"]
    assert set(schemas["input_schema"]["properties"]) == {"hangs_in", "fails", "item", "log"}  # type: ignore[index, arg-type]
    assert client.assistants.get_subgraphs(assistant) == {}


def test_a_run_that_a_factory_refuses_to_look_at_is_not_admitted(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]

    with pytest.raises(APIStatusError) as caught:
        client.runs.create(thread_id, "choosy_factory", input={})

    assert caught.value.status_code == 503
    assert "'choosy_factory' could not be loaded: KeyError when its factory was called" in str(caught.value)
    assert client.runs.list(thread_id) == []


def test_what_a_factory_raises_in_a_worker_ends_the_run_as_a_node_s_error_would(client: SyncLangGraphClient) -> None:
    thread_id = client.threads.create()["thread_id"]
    config = {"configurable": {"word": "bad"}}

    answer: Any = client.runs.wait(thread_id, "choosy_factory", input={}, config=config, raise_error=False)
    good: Any = client.runs.wait(thread_id, "choosy_factory", input={}, config={"configurable": {"word": "good"}})

    assert answer["__error__"] == {"error": "LookupError", "message": "no tools for bad"}
    assert [run["status"] for run in client.runs.list(thread_id)] == ["success", "error"]
    assert good["log"][1] == "second got an Item: good"
