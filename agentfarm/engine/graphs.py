"""The operator's graphs: langgraph.json as the ecosystem writes it, read once, each graph compiled once a process.

A graph that cannot be loaded is named in `problems` and the others are served. Which keys of the file mean something
here is in graphs_config.py, how a variable becomes a compiled graph in graph_loading.py, and how a graph is made for a
request in graph_factories.py. Who serves a request asks `open`, whichever of the two it is.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from agentfarm.engine.graph_access import Access
from agentfarm.engine.graph_factories import GraphFactory, Opening, Shared, make_graph
from agentfarm.engine.graph_loading import LoadedGraph, load_failures, load_variable
from agentfarm.engine.graphs_config import GraphEntry, GraphsConfig, TtlConfig, prepare_process, read_config
from agentfarm.engine.store_config import StoreConfig, load_store
from agentfarm.errors import GraphLoadFailed, GraphNotFound
from agentfarm.run_options import RunChoices

__all__ = ["GraphRegistry", "LoadedGraph"]

logger = logging.getLogger(__name__)


class GraphRegistry:
    """The graphs that this process serves.

    problems  {graph id: why it could not be loaded}
    store     what the file says of the store
    entries   what else the file says of a graph
    ttl       for how long threads are kept, as the file says
    """

    def __init__(
        self,
        graphs: Mapping[str, LoadedGraph | GraphFactory],
        problems: Mapping[str, str] | None = None,
        store: StoreConfig | None = None,
        entries: Mapping[str, GraphEntry] | None = None,
        *,
        ttl: TtlConfig | None = None,
    ) -> None:
        self.store = store or StoreConfig()
        self._graphs = dict(graphs)
        self._entries = dict(entries or {})
        self.ttl = ttl or TtlConfig()
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
        graphs: dict[str, LoadedGraph | GraphFactory] = {}
        problems = {}
        for graph_id, entry in config.graphs.items():
            try:
                with load_failures(graph_id):
                    variable = load_variable(entry, config)
                    graphs[graph_id] = make_graph(graph_id, variable, description=entry.description)
            except GraphLoadFailed as error:
                problems[graph_id] = str(error)
                logger.exception("a graph could not be loaded", extra={"graph_id": graph_id})
        return cls(graphs, problems, load_store(config), config.graphs, ttl=config.ttl)

    def open(self, graph_id: str, access: Callable[[], Access]) -> Opening | Shared:
        """The graph, for one request: a context manager, and an async one where `is_async`.

        access  asked only where a factory makes the graph
        raises  GraphNotFound; GraphLoadFailed for one that could not be loaded, or that its factory did not make
        """
        served = self._served(graph_id)
        return served.open(access()) if isinstance(served, GraphFactory) else Shared(served)

    def get(self, graph_id: str) -> LoadedGraph:
        """A graph that is compiled once a process; of a factory, what it made at the start.

        raises  GraphNotFound; GraphLoadFailed
        """
        served = self._served(graph_id)
        if isinstance(served, LoadedGraph):
            return served
        if served.sample is None:
            raise GraphLoadFailed(graph_id=graph_id, why="its factory needs more than an empty config")
        return served.sample

    def _served(self, graph_id: str) -> LoadedGraph | GraphFactory:
        if served := self._graphs.get(graph_id):
            return served
        if why := self.problems.get(graph_id):
            raise GraphLoadFailed(why)
        raise GraphNotFound(graph_id=graph_id, known=", ".join(self._graphs) or "none")

    def is_made(self, graph_id: str) -> bool:
        """Whether a factory makes it for each request."""
        return isinstance(self._graphs.get(graph_id), GraphFactory)

    def is_lossy(self, graph_id: str) -> bool:
        """Whether langgraph.json says that its values may go on as plain data where they cannot be kept."""
        entry = self._entries.get(graph_id)
        return entry is not None and entry.lossy_state

    def choices(self, graph_id: str) -> RunChoices:
        """How its assistant's runs are executed that do not say so themselves."""
        entry = self._entries.get(graph_id)
        return entry.choices if entry is not None else RunChoices()

    def description(self, graph_id: str) -> str | None:
        """Raises GraphNotFound, GraphLoadFailed."""
        return self._served(graph_id).description

    def ids(self) -> tuple[str, ...]:
        """Of the graphs that can be run, in the file's order."""
        return tuple(self._graphs)

    def queues(self) -> frozenset[str]:
        """The queues that nodes name. Workers must consume each of them."""
        known = [g.sample if isinstance(g, GraphFactory) else g for g in self._graphs.values()]
        return frozenset(queue for graph in known if graph for queue in graph.node_queues.values())
