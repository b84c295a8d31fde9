"""The events of a run are those that stock `astream_events` tells of the same graph, though no segment sees all."""

import asyncio
import contextlib
import json
import operator
import re
import uuid
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from agentfarm.engine.events import EventRenderer
from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.jsonable import to_json
from agentfarm.engine.steps import RunSpec
from agentfarm.testing.one_process import aexecute_run

#: UUIDs, and ids of interrupts.
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}")

Events = list[dict[str, Any]]


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    n: int


def model() -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage("one two three")]))


@tool
def search(query: str) -> str:
    """Look something up."""
    return f"found {query}"


@tool
def broken(query: str) -> str:
    """Fail."""
    raise ValueError("no such thing")


def say(state: State) -> State:
    return {"log": ["said"]}


async def asay(state: State) -> State:
    return {"log": ["said"]}


def speak(state: State) -> State:
    return {"log": [model().invoke("hi").content]}


async def aspeak(state: State) -> State:
    return {"log": [(await model().ainvoke("hi")).content]}


def look_up(state: State) -> State:
    return {"log": [search.invoke({"query": "it"})]}


def fail_in_a_tool(state: State) -> State:
    return {"log": [broken.invoke({"query": "it"})]}


def fail(state: State) -> State:
    raise ValueError("this node fails")


def write(state: State) -> State:
    get_stream_writer()({"at": "custom"})
    dispatch_custom_event("progress", {"percent": 50})
    return {"n": 1}


async def awrite(state: State) -> State:
    await adispatch_custom_event("progress", {"percent": 50})
    return {"n": 1}


def ask(state: State) -> State:
    return {"log": [interrupt("sure?")]}


def line(*nodes: Any) -> Any:
    builder = StateGraph(State)
    names = [f"{node.__name__ if hasattr(node, '__name__') else 'sub'}_{i}" for i, node in enumerate(nodes)]
    for before, name, node in zip((START, *names), names, nodes, strict=False):
        builder.add_node(name, node)
        builder.add_edge(before, name)
    return builder.compile()


def fan_out() -> Any:
    builder = StateGraph(State)
    builder.add_node("many", lambda n: {"log": [n]})
    builder.add_node("end", say)
    builder.add_conditional_edges(START, lambda state: [Send("many", n) for n in range(3)])
    builder.add_edge("many", "end")
    return builder.compile()


def branching() -> Any:
    builder = StateGraph(State)
    builder.add_node("a", say)
    builder.add_node("b", say)
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: "b" if len(state["log"]) < 3 else "__end__", ["b", "__end__"])
    builder.add_edge("b", "a")
    return builder.compile()


#: {what: (graph, inputs of its runs)}
GRAPHS: dict[str, tuple[Any, list[Any]]] = {
    "line": (line(say, say), [{"log": []}]),
    "line, async": (line(asay, asay), [{"log": []}]),
    "loop": (branching(), [{"log": []}]),
    "tokens": (line(speak, say), [{"log": []}]),
    "tokens, async": (line(aspeak, say), [{"log": []}]),
    "chain as a node": (line(RunnableLambda(say) | RunnableLambda(lambda given: given), say), [{"log": []}]),
    "subgraph": (line(say, line(say, speak), say), [{"log": []}]),
    "tool": (line(look_up, say), [{"log": []}]),
    "tool that fails": (line(say, fail_in_a_tool), [{"log": []}]),
    "node that fails": (line(say, fail), [{"log": []}]),
    "custom events": (line(write, awrite), [{"n": 0}]),
    "question and answer": (line(say, ask, say), [{"log": []}, Command(resume="yes")]),
    "two runs of a thread": (line(say, speak), [{"log": []}, {"log": ["more"]}]),
    "fan-out": (fan_out(), [{"log": []}]),
}

#: Nodes run side by side in stock and one after the other here: their events are the same, in another order.
SIDE_BY_SIDE = {"fan-out"}


def config(run_id: str) -> dict[str, Any]:
    return {
        "configurable": {"thread_id": "1", "run_id": run_id, "user": "u"},
        "tags": ["tagged"],
        "metadata": {"run_id": run_id, "about": "it"},
        "run_name": "named",
    }


def by_stock(graph: Any, inputs: list[Any], kwargs: dict[str, Any]) -> list[Events]:
    async def run(input: Any, saver: InMemorySaver) -> Events:
        run_id = str(uuid.uuid4())
        own = graph.copy(update={"checkpointer": saver})
        told: Events = []
        stream = own.astream_events(input, {**config(run_id), "run_id": uuid.UUID(run_id)}, version="v2", **kwargs)
        with contextlib.suppress(ValueError):  # of the nodes that fail
            async for event in stream:
                told.append(json.loads(to_json(event)))
        return told

    saver = InMemorySaver()
    return [asyncio.run(run(given, saver)) for given in inputs]


def by_engine(graph: Any, inputs: list[Any], kwargs: dict[str, Any], *, inline: str | None = None) -> list[Events]:
    saver, runs = InMemorySaver(), []
    loaded = describe_graph("g", graph)
    for given in inputs:
        told: Events = []
        run_id = str(uuid.uuid4())
        spec = RunSpec(run_id, "1", "g", given, config(run_id), kwargs, inline=inline, modes=("events",))

        def put(chunk: Any, told: Events = told) -> None:
            if chunk[-2] == "events":
                told.append(json.loads(to_json(chunk[-1])))

        asyncio.run(aexecute_run(loaded.graph, spec, saver=saver, sink=put))
        assert {event["run_id"] for event in told if not event["parent_ids"]} == {run_id}
        runs.append(told)
    return runs


def without_ids(events: Events) -> list[str]:
    """Each run by its place in the tree, other ids left out."""
    names: dict[str, str] = {}
    seen: dict[str, int] = {}
    told = []
    for event in events:
        if event["run_id"] not in names:
            place = "/".join((names[event["parent_ids"][-1]] if event["parent_ids"] else "", event["name"]))
            seen[place] = seen.get(place, 0) + 1
            names[event["run_id"]] = f"{place}#{seen[place]}"
        parents = [names[parent] for parent in event["parent_ids"]]
        # LangGraph's handler of messages adds the tags to the metadata of the model's run, which all handlers share:
        # whoever reads the first event late, as stock's queue does, finds them in it.
        metadata = {key: value for key, value in event["metadata"].items() if key != "tags"}
        said = {**event, "metadata": metadata, "run_id": names[event["run_id"]], "parent_ids": parents}
        told.append(ID.sub("*", json.dumps(said, sort_keys=True)))
    return told


def is_chunk_of_the_run(event: dict[str, Any]) -> bool:
    return event["event"] == "on_chain_stream" and not event["parent_ids"]


def told_apart(events: Events) -> tuple[list[str], list[str]]:
    """(the run's own chunks, all else): stock's chunks wait in a queue, here they leave at once, so that a token may
    be told before or after the event about it."""
    told = list(zip(events, without_ids(events), strict=True))
    own, others = ([text for event, text in told if is_chunk_of_the_run(event) is one] for one in (True, False))
    return own, others


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize("what", GRAPHS)
def test_the_events_are_those_of_stock(what: str, subgraphs: bool) -> None:
    graph, inputs = GRAPHS[what]
    kwargs = {"stream_mode": ["custom", "messages", "updates", "values"], "subgraphs": subgraphs}

    stock, engine = by_stock(graph, inputs, kwargs), by_engine(graph, inputs, kwargs)

    for theirs, ours in zip(stock, engine, strict=True):
        if what in SIDE_BY_SIDE:
            assert sorted(without_ids(ours)) == sorted(without_ids(theirs))
        else:
            assert told_apart(ours) == told_apart(theirs)
    assert len(stock[0]) > 7


def test_a_run_that_is_executed_in_one_message_tells_the_same() -> None:
    graph, inputs = GRAPHS["subgraph"]
    kwargs = {"stream_mode": ["updates"], "subgraphs": False}

    inline = by_engine(graph, inputs, kwargs, inline="asked for")

    assert told_apart(inline[0]) == told_apart(by_stock(graph, inputs, kwargs)[0])


@pytest.mark.parametrize("subgraphs", [False, True])
def test_clients_get_what_the_agent_server_sends(subgraphs: bool) -> None:
    """Not the steps that LangGraph hides, nor the run's chunks, which they get by the modes that they asked for."""
    graph, inputs = GRAPHS["tokens"]
    kwargs = {"stream_mode": ["updates"], "subgraphs": subgraphs}
    renderer = EventRenderer(["events", "updates"], subgraphs=subgraphs)

    events = [told for chunk in run_chunks(graph, inputs[0], kwargs) for told in renderer.render(chunk)]

    names = [name for name, _ in events]
    assert names.count("updates") == 2
    told = [event for name, event in events if name == "events"]
    assert [event["event"] for event in told if event["name"] == "named"] == ["on_chain_start", "on_chain_end"]
    assert not any("langsmith:hidden" in event["tags"] for event in told)
    assert "".join(e["data"]["chunk"].content for e in told if e["event"] == "on_chat_model_stream") == "one two three"


def test_a_run_without_the_mode_makes_no_events() -> None:
    graph, inputs = GRAPHS["tokens"]

    chunks = run_chunks(graph, inputs[0], {"stream_mode": ["updates"], "subgraphs": False}, modes=("updates",))

    assert {mode for mode, _ in chunks} == {"updates"}


def run_chunks(graph: Any, input: Any, kwargs: dict[str, Any], *, modes: tuple[str, ...] = ("events",)) -> list[Any]:
    chunks: list[Any] = []
    run_id = str(uuid.uuid4())
    spec = RunSpec(run_id, "1", "g", input, config(run_id), kwargs, modes=modes)
    asyncio.run(aexecute_run(describe_graph("g", graph).graph, spec, saver=InMemorySaver(), sink=chunks.append))
    return chunks
