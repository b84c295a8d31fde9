"""Graphs in a few words, for the corpus. Nodes write their names into `log`; none keeps anything between two calls."""

import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from tests.contract.differential.scenario import AnyGraph


class Log(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


def says(name: str) -> Callable[[Log], Log]:
    def node(state: Log) -> Log:
        return {"log": [name]}

    return node


def says_later(name: str) -> Any:
    async def node(state: Log) -> Log:
        return {"log": [name]}

    return node


def asks(name: str) -> Callable[[Log], Log]:
    """Asks "name?" and writes what it is told."""

    def node(state: Log) -> Log:
        return {"log": [f"{name}: {interrupt(f'{name}?')}"]}

    return node


def line(
    nodes: Mapping[str, Any], schema: type = Log, *, compile: Mapping[str, Any] | None = None, **schemas: Any
) -> AnyGraph:
    """One after the other."""
    builder = StateGraph(schema, **schemas)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(before, name)
        before = name
    return builder.compile(**(compile or {}))


def says_line(*names: str, **options: Any) -> AnyGraph:
    return line({name: says(name) for name in names}, **options)
