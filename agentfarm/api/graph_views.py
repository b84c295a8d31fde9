"""A graph as a client sees it before it runs: a drawing, JSON schemas, its subgraphs. LangGraph's own answers.

What a graph does not say, or says with types that have no JSON schema, is null: a client shows a plain form then.
"""

import logging
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from agentfarm.errors import NotFound

logger = logging.getLogger(__name__)

Json = dict[str, Any]
Graph = Any  # a compiled graph or, as a subgraph, whatever speaks its protocol


def draw(graph: Graph, *, xray: bool | int) -> Json:
    """{nodes, edges} as Studio and RemoteGraph read it."""
    return graph.get_graph(xray=xray).to_json()


def schemas(graph: Graph) -> Json:
    """{input_schema, output_schema, state_schema, config_schema, context_schema}."""
    context = _schema(graph.get_context_jsonschema)
    return {
        "input_schema": _schema(graph.get_input_jsonschema),
        "output_schema": _schema(graph.get_output_jsonschema),
        "state_schema": _schema(lambda: _state_schema(graph)),
        # What `configurable` may hold is the context, which is how LangGraph calls it now.
        "config_schema": context,
        "context_schema": context,
    }


def subgraphs(graph: Graph, *, namespace: str | None, recurse: bool) -> Json:
    """{namespace: schemas} of the subgraphs, or of those at one namespace. Raises NotFound where there is none."""
    found = {name: schemas(child) for name, child in graph.get_subgraphs(namespace=namespace, recurse=recurse)}
    if namespace is not None and not found:
        raise NotFound(what="Subgraph")
    return found


def _state_schema(graph: Graph) -> Json | None:
    state = getattr(getattr(graph, "builder", None), "state_schema", None)
    return TypeAdapter(state).json_schema() if state is not None else None


def _schema(make: Callable[[], Json | None]) -> Json | None:
    try:
        return make()
    except Exception as error:  # types of a user's graph may raise whatever they like when asked for a schema
        logger.debug("a graph's types have no JSON schema", extra={"error": type(error).__name__})
        return None
