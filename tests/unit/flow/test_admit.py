"""A request, read against its graph before anything is written."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send
from typing_extensions import TypedDict

from agentfarm import ids
from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.graphs import GraphRegistry
from agentfarm.engine.graphs_config import GraphEntry
from agentfarm.errors import BadRequest, GraphLoadFailed, GraphNotFound, InvalidId, InvalidInput
from agentfarm.flow.admit import build_run
from agentfarm.flow.farm import Farm
from agentfarm.records import NewRun, RunRequest
from agentfarm.run_options import RunAhead, RunChoices, RunOptions
from agentfarm.tenancy import Tenant


class State(TypedDict, total=False):
    text: str


@pytest.fixture
def farm(farm: Farm) -> Farm:
    builder = StateGraph(State)
    builder.add_node("say", lambda state: {"text": "said"})
    builder.add_edge(START, "say")
    return replace(farm, graphs=GraphRegistry({"g": describe_graph("g", builder.compile())}))


def build(farm: Farm, tenant: Tenant, **fields: Any) -> NewRun:
    return build_run(farm, tenant, RunRequest(**{"assistant_id": "g", **fields}), thread_id=ids.new_id())


def test_a_graph_goes_by_its_name_and_by_its_assistants_id(farm: Farm, tenant: Tenant) -> None:
    by_id = build(farm, tenant, assistant_id=str(ids.assistant_id("g")))

    assert by_id.graph_id == build(farm, tenant).graph_id == "g"


def test_a_graph_that_could_not_be_loaded_is_not_called_unknown(farm: Farm, tenant: Tenant) -> None:
    broken = GraphRegistry({}, {"broken": "Graph 'broken' could not be loaded: SyntaxError in agent.py."})

    for asked in ("broken", str(ids.assistant_id("broken"))):
        with pytest.raises(GraphLoadFailed, match="SyntaxError"):
            build(replace(farm, graphs=broken), tenant, assistant_id=asked)


@dataclass
class Asker:
    user: str
    locale: str = "en"


@pytest.mark.parametrize(
    ("configurable", "context"),
    [
        ({"user": "b", "style": "z"}, {"user": "b"}),
        ({"style": "z"}, None),  # as in LangGraph: a node finds no context, and the config whole
        ({}, None),
    ],
    ids=str,
)
def test_a_config_alone_gives_a_dataclass_the_fields_that_it_has(
    farm: Farm, tenant: Tenant, configurable: dict[str, Any], context: dict[str, Any] | None
) -> None:
    builder = StateGraph(State, context_schema=Asker)
    builder.add_node("say", lambda state: {}).add_edge(START, "say")
    with_context = replace(farm, graphs=GraphRegistry({"g": describe_graph("g", builder.compile())}))

    new = build(with_context, tenant, config={"configurable": configurable})

    assert new.spec.kwargs.get("context") == context
    assert configurable.items() <= new.spec.config["configurable"].items()


def test_a_graphs_entry_chooses_for_a_run_that_does_not(farm: Farm, tenant: Tenant) -> None:
    entries = {"g": GraphEntry("./g.py:graph", choices=RunChoices(persistence="redis"))}
    graphs = GraphRegistry({"g": farm.graphs.get("g")}, entries=entries)
    chosen = replace(farm, graphs=graphs)

    silent = build(chosen, tenant)
    said = build(chosen, tenant, choices=RunChoices(persistence="postgres"))

    assert silent.spec.options.persistence == "redis"
    assert said.spec.options.persistence == "postgres"


@pytest.mark.parametrize("place", ["context", "configurable"])
def test_a_client_sets_nothing_that_is_the_servers(farm: Farm, tenant: Tenant, place: str) -> None:
    given = {
        "mine": 1,
        "__pregel_task_id": "x",
        "checkpoint_ns": "elsewhere",
        "checkpoint_id": "no id",
        "thread_id": "another",
        "langgraph_auth_user": {"is_admin": True},
        "langgraph_auth_user_id": "somebody",
    }
    fields = {"context": given} if place == "context" else {"config": {"configurable": given}}

    new = build(farm, tenant, **fields)

    configurable = new.spec.config["configurable"]
    assert configurable["mine"] == 1
    assert configurable["thread_id"] == new.spec.thread_id
    assert configurable["langgraph_auth_user_id"] == str(tenant.id)
    assert not {"__pregel_task_id", "checkpoint_ns", "checkpoint_id", "langgraph_auth_user"} & configurable.keys()


def test_a_command_becomes_langgraphs(farm: Farm, tenant: Tenant) -> None:
    command = {"resume": {"i": 1}, "goto": [{"node": "say", "input": {"text": "x"}}], "update": [["text", "y"]]}

    new = build(farm, tenant, command=command)

    expected = Command(resume={"i": 1}, goto=[Send("say", {"text": "x"})], update=[("text", "y")])
    assert new.spec.input == expected
    assert new.is_resume


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"assistant_id": "unknown"}, GraphNotFound),
        ({"input": {}, "command": {"resume": 1}}, BadRequest),
        ({"command": {}}, InvalidInput),
        ({"command": {"evil": 1}}, InvalidInput),
        ({"command": {"goto": {"node": 1}}}, InvalidInput),
        ({"stream_mode": ["everything"]}, InvalidInput),
        ({"interrupt_before": ["nowhere"]}, InvalidInput),
        ({"checkpoint_id": "../.."}, InvalidId),
        ({"context": {"a": 1}, "config": {"configurable": {"a": 1}}}, BadRequest),
        ({"stateless": True, "command": {"resume": 1}}, BadRequest),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_by_name(
    farm: Farm, tenant: Tenant, fields: dict[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        build(farm, tenant, **fields)


@pytest.mark.parametrize("update", [[5], [[]], [["text", "y", "z"]], [[1, "y"]], ["ab"]], ids=str)
def test_a_list_that_is_not_of_channels_and_values_is_the_update_itself(
    farm: Farm, tenant: Tenant, update: list[Any]
) -> None:
    new = build(farm, tenant, command={"update": update})

    assert new.spec.input.update == update


def test_a_run_that_nobody_streams_keeps_no_events(farm: Farm, tenant: Tenant) -> None:
    assert build(farm, tenant).spec.modes == ()
    assert build(farm, tenant, streamed=True).spec.modes == ("values",)
    assert build(farm, tenant, stream_mode=["messages-tuple"]).spec.kwargs["stream_mode"] == ["messages", "updates"]


def test_how_a_run_is_executed_is_decided_when_it_is_asked_for(farm: Farm, tenant: Tenant) -> None:
    farm = replace(farm, run_ahead=RunAhead(nodes=10, seconds=1.0))
    eager = replace(tenant, choices=RunChoices(run_ahead=True))

    assert build(farm, tenant).spec.options == RunOptions()
    assert build(farm, eager).spec.options == RunOptions(10, 1.0)
    assert build(farm, eager, choices=RunChoices(run_ahead=False)).spec.options == RunOptions()
    assert build(farm, tenant, choices=RunChoices(persistence="redis")).spec.options.persistence == "redis"
