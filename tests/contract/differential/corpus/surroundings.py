"""What a node finds around it: context, config, writer, cache, limits, durability."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, cast

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config, get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import CachePolicy, Send, StreamWriter
from pydantic import BaseModel

from tests.contract.differential.building import Log, line, says, says_later, says_line
from tests.contract.differential.scenario import AnyGraph, Run, scenario

BEGIN = Run({"log": []})


@dataclass
class Context:
    user: str
    limit: int = 10


class ContextModel(BaseModel):
    user: str
    limit: int = 10


class ContextDict(TypedDict, total=False):
    user: str


def _reads_context(state: Log, runtime: Runtime[Any]) -> Log:
    return {"log": [f"{type(runtime.context).__name__} {runtime.context}"]}


async def _reads_context_later(state: Log) -> Log:
    return {"log": [f"{get_runtime(Context).context.user}"]}


def _told_of_run(state: Log, config: RunnableConfig) -> Any:
    configurable = config["configurable"]
    theirs = {key: value for key, value in configurable.items() if not key.startswith("__")}
    metadata = dict(config.get("metadata") or {})
    return {"log": [{"configurable": theirs, "metadata": metadata, "tags": sorted(config.get("tags") or ())}]}


async def _told_later(state: Log, config: RunnableConfig) -> Any:
    return _told_of_run(state, config)


def _limits(state: Log) -> Log:
    config = get_config()
    return {"log": [config["recursion_limit"], config.get("max_concurrency")]}


def _execution_info(state: Log, runtime: Runtime[None]) -> Any:
    info = runtime.execution_info
    assert info is not None
    attempt = f"attempt {info.node_attempt}"
    return {"log": [[attempt, info.thread_id, info.run_id, info.checkpoint_ns, info.checkpoint_id, info.task_id]]}


def _writes(state: Log) -> Log:
    write = get_stream_writer()
    for n in range(3):
        write({"from": "writes", "n": n})
    return {"log": ["wrote"]}


def _writes_by_parameter(state: Log, writer: StreamWriter) -> Log:
    writer("a text")
    writer(["a", "list"])
    writer(None)
    return {"log": ["wrote"]}


async def _writes_later(state: Log, runtime: Runtime[None]) -> Log:
    for n in range(3):
        runtime.stream_writer({"from": "writes later", "n": n})
    return {"log": ["wrote later"]}


def _writers_beside_each_other() -> AnyGraph:
    def writer_of(name: str) -> Any:
        def node(state: Log) -> Log:
            write = get_stream_writer()
            for n in range(3):
                write({"from": name, "n": n})
            return {"log": [name]}

        return node

    builder = StateGraph(Log)
    for name in ("left", "right"):
        builder.add_node(name, writer_of(name))
        builder.add_edge(START, name)
    return builder.compile()


def _cached(name: str) -> AnyGraph:
    """The farm's cache and stock's begin empty; a key of its own for each scenario."""
    builder = StateGraph(Log)
    builder.add_node("a", says("a"))
    builder.add_node(
        "cached", says(name), cache_policy=CachePolicy(key_func=lambda state: f"{name} {len(state['log']) > 1}")
    )
    builder.add_node("e", says("e"))
    builder.add_edge(START, "a")
    builder.add_edge("a", "cached")
    builder.add_edge("cached", "e")
    return builder.compile()


class Item(TypedDict):
    number: int


def _limited_fan() -> AnyGraph:
    def split(state: Log) -> list[Send]:
        return [Send("item", {"number": number}) for number in range(7)]

    def item(sent: Item) -> Log:
        return {"log": [sent["number"]]}

    builder = StateGraph(Log)
    builder.add_node("item", cast("Any", item), input_schema=Item)
    builder.add_node("e", says("e"))
    builder.add_conditional_edges(START, split, ["item"])
    builder.add_edge("item", "e")
    return builder.compile()


def _named(**metadata: Any) -> AnyGraph:
    builder = StateGraph(Log)
    builder.add_node("a", _told_of_run, metadata=metadata)
    builder.add_edge(START, "a")
    return builder.compile(name="called otherwise").with_config(tags=["of the graph"], metadata={"graph": "own"})  # type: ignore[return-value]


class Seen(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


CONFIGURED: dict[str, Any] = {
    "tags": ["one", "two"],
    "metadata": {"customer": "acme", "number": 7, "nested": {"deep": [1]}},
    "configurable": {"model": "small", "depth": {"n": 3}},
    "recursion_limit": 50,
    "max_concurrency": 4,
}

SCENARIOS = [
    scenario(
        "context",
        line({"a": _reads_context}, context_schema=Context),
        Run({"log": []}, context={"user": "ann", "limit": 3}),
        features="context",
    ),
    scenario(
        "context_of_a_model",
        line({"a": _reads_context}, context_schema=ContextModel),
        Run({"log": []}, context={"user": "ann"}),
        features="context pydantic_context",
    ),
    scenario(
        "context_of_a_dict",
        line({"a": _reads_context}, context_schema=ContextDict),
        Run({"log": []}, context={"user": "ann"}),
        features="context",
    ),
    scenario(
        "context_async",
        line({"a": _reads_context_later}, context_schema=Context),
        Run({"log": []}, context={"user": "ann"}),
        features="context async",
    ),
    scenario("context_not_given", line({"a": _reads_context}, context_schema=ContextDict), BEGIN, features="context"),
    scenario(
        "context_that_does_not_fit",
        line({"a": _reads_context}, context_schema=Context),
        Run({"log": []}, context={"nobody": 1}),
        features="context failing",
    ),
    scenario(
        "context_by_configurable",
        line({"a": _reads_context}, context_schema=Context),
        Run({"log": []}, config={"configurable": {"user": "bob"}}),
        features="context configurable",
    ),
    scenario(
        "config",
        line({"a": _told_of_run, "b": _told_of_run}),
        Run({"log": []}, config=CONFIGURED),
        features="configurable tags metadata",
    ),
    scenario(
        "config_async",
        line({"a": _told_later, "b": says("b")}),
        Run({"log": []}, config=CONFIGURED),
        features="configurable tags metadata async",
    ),
    scenario(
        "config_in_a_child",
        line({"a": says("a"), "child": line({"x": _told_of_run})}),
        Run({"log": []}, config=CONFIGURED),
        features="configurable tags metadata subgraphs",
    ),
    scenario(
        "config_of_the_graph",
        _named(owner="team"),
        Run({"log": []}, config=CONFIGURED),
        features="configurable tags metadata",
    ),
    scenario(
        "config_over_turns",
        line({"a": _told_of_run}),
        Run({"log": []}, config=CONFIGURED),
        Run({"log": []}),
        features="configurable tags metadata turns",
    ),
    scenario(
        "config_limits",
        line({"a": _limits}),
        Run({"log": []}, config={"recursion_limit": 9, "max_concurrency": 3}),
        features="recursion_limit max_concurrency",
    ),
    scenario("execution_info", line({"a": _execution_info, "b": _execution_info}), BEGIN, features="runtime"),
    scenario("writer", line({"a": says("a"), "w": _writes}), BEGIN, features="stream_writer"),
    scenario("writer_by_parameter", line({"a": says("a"), "w": _writes_by_parameter}), BEGIN, features="stream_writer"),
    scenario(
        "writer_async",
        line({"a": says_later("a"), "w": _writes_later, "v": _writes}),
        BEGIN,
        features="stream_writer async",
    ),
    scenario(
        "writer_in_a_child",
        line({"child": line({"w": _writes}), "v": _writes}),
        BEGIN,
        features="stream_writer subgraphs",
    ),
    scenario(
        "writer_in_a_child_not_streamed",
        line({"child": line({"w": _writes}), "v": _writes}),
        Run({"log": []}, subgraphs=False),
        features="stream_writer subgraphs",
    ),
    scenario("writers_beside_each_other", _writers_beside_each_other(), BEGIN, features="stream_writer", parallel=True),
    scenario(
        "max_concurrency",
        _limited_fan(),
        Run({"log": []}, config={"max_concurrency": 2}),
        features="max_concurrency send",
        parallel=True,
    ),
    scenario(
        "durability_sync", says_line("a", "b", "c"), Run({"log": []}, durability="sync"), features="durability_sync"
    ),
    scenario(
        "durability_async", says_line("a", "b", "c"), Run({"log": []}, durability="async"), features="durability_async"
    ),
    scenario(
        "durability_exit",
        says_line("a", "b", "c"),
        Run({"log": []}, durability="exit"),
        Run({"log": ["more"]}, durability="exit"),
        features="durability_exit inline turns",
    ),
    scenario(
        "durability_exit_async",
        line({n: says_later(n) for n in "ab"}),
        Run({"log": []}, durability="exit"),
        features="durability_exit inline async",
    ),
    scenario("cache_policy", _cached("cached"), BEGIN, features="cache_policy"),
]
