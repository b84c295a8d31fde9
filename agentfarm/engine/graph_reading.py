"""A graph as one reads the states of its threads by it: what refuses a state when a node is executed does not refuse to
show it.

LangGraph prepares the nodes that are next in order to show a state, and so makes each one's input: a model of pydantic
that does not take the values raises there. A thread that got such an input must stay readable all the same.
"""

from weakref import WeakKeyDictionary

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.graph_loading import AnyPregel

_readable: "WeakKeyDictionary[AnyPregel, AnyPregel]" = WeakKeyDictionary()


def for_reading(graph: AnyPregel) -> AnyPregel:
    """The same graph, made once a process, whose nodes take any state. Not to be run."""
    if (found := _readable.get(graph)) is None:
        nodes: dict[str, lg.PregelNode] = {name: node.copy({"mapper": None}) for name, node in graph.nodes.items()}
        found = _readable[graph] = graph.copy(update={"nodes": nodes})
    return found
