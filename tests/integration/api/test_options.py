"""How a run is executed: what the official SDK sends beside the config, and what a tenant has chosen."""

from collections.abc import Iterator

import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from tests.farm import FarmProcesses, wait_for


@pytest.fixture
def client(farm: FarmProcesses) -> Iterator[SyncLangGraphClient]:
    """As tenant other."""
    with get_sync_client(url=farm.url, api_key=farm.keys["other"]) as made:
        yield made


@pytest.fixture
def an_eager_tenant(farm: FarmProcesses) -> Iterator[None]:
    farm.query("UPDATE tenants_tenant SET run_ahead = true WHERE slug = 'other' RETURNING 1")
    yield
    farm.query("UPDATE tenants_tenant SET run_ahead = false WHERE slug = 'other' RETURNING 1")


def nodes_ahead(client: SyncLangGraphClient, **config: object) -> tuple[int, dict[str, object]]:
    """How many nodes a run may go ahead, and its config otherwise, as the server tells them."""
    thread = client.threads.create()["thread_id"]
    made = client.runs.create(thread, "line", input={"log": []}, config=config)  # type: ignore[arg-type]
    client.runs.join(thread, made["run_id"])
    told = client.runs.get(thread, made["run_id"])["kwargs"]["config"]  # type: ignore[typeddict-item]
    return told.pop("agentfarm")["run_ahead_nodes"], told


def test_the_sdk_says_how_a_run_is_executed_beside_the_rest_of_its_config(client: SyncLangGraphClient) -> None:
    ahead, config = nodes_ahead(client, tags=["a"], agentfarm={"run_ahead": {"nodes": 4}})

    assert ahead == 4
    assert config["tags"] == ["a"]
    assert "agentfarm" not in str(config)
    assert nodes_ahead(client)[0] == 0


@pytest.mark.usefixtures("an_eager_tenant")
def test_a_run_that_does_not_say_is_executed_as_its_tenant_has_chosen(client: SyncLangGraphClient) -> None:
    wait_for(lambda: nodes_ahead(client)[0] == 10, what="what the tenant has chosen, within a second")

    assert nodes_ahead(client, agentfarm={"run_ahead": False})[0] == 0
