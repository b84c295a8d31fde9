"""The operator's graphs: langgraph.json as the ecosystem writes it, read once, each graph compiled once a process.

A graph that cannot be loaded is named in `problems` and the others are served. Which keys of the file mean something
here is in graphs_config.py, how a variable becomes a compiled graph in graph_loading.py.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from agentfarm.engine.graph_loading import LoadedGraph, load_graph
from agentfarm.engine.graphs_config import GraphsConfig, prepare_process, read_config
from agentfarm.errors import GraphLoadFailed, GraphNotFound

__all__ = ["GraphRegistry", "LoadedGraph"]

logger = logging.getLogger(__name__)


class GraphRegistry:
    """The graphs that this process serves.

    problems  {graph id: why it could not be loaded}
    """

    def __init__(self, graphs: Mapping[str, LoadedGraph], problems: Mapping[str, str] | None = None) -> None:
        self._graphs = dict(graphs)
        self.problems: Mapping[str, str] = MappingProxyType(dict(problems or {}))

    @classmethod
    def from_config(cls, path: Path) -> Self:
        """Load what a langgraph.json names.

        Puts local dependencies on sys.path and `env` into os.environ, where it does not overrule what is set already.
        raises  Misconfigured when the file cannot be read, or is not a langgraph.json
        """
        config = read_config(path)
        prepare_process(config)
        return cls._load(config)

    @classmethod
    def _load(cls, config: GraphsConfig) -> Self:
        graphs, problems = {}, {}
        for graph_id, entry in config.graphs.items():
            try:
                graphs[graph_id] = load_graph(graph_id, entry, config)
            except GraphLoadFailed as error:
                problems[graph_id] = str(error)
                logger.exception("a graph could not be loaded", extra={"graph_id": graph_id})
        return cls(graphs, problems)

    def get(self, graph_id: str) -> LoadedGraph:
        """Raises GraphNotFound, or GraphLoadFailed for one that langgraph.json names and that could not be loaded."""
        if graph := self._graphs.get(graph_id):
            return graph
        if why := self.problems.get(graph_id):
            raise GraphLoadFailed(why)
        raise GraphNotFound(graph_id=graph_id, known=", ".join(self._graphs) or "none")

    def ids(self) -> tuple[str, ...]:
        """Of the graphs that can be run, in the file's order."""
        return tuple(self._graphs)

    def queues(self) -> frozenset[str]:
        """The queues that nodes name. Workers must consume each of them."""
        return frozenset(queue for graph in self._graphs.values() for queue in graph.node_queues.values())
