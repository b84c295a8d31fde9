"""A variable that langgraph.json names, and a compiled graph with what the farm must know of it.

Variables that are no graphs yet, but make them, are graph_factories.py's.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_core.runnables import RunnableSequence
from langchain_core.runnables.base import RunnableLambda
from langchain_core.runnables.config import run_in_executor
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.continuation import Manifest, manifest_of
from agentfarm.engine.graphs_config import GraphEntry, GraphsConfig
from agentfarm.engine.handover import queue_of
from agentfarm.errors import GraphLoadFailed

logger = logging.getLogger(__name__)

AnyPregel = Pregel[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class LoadedGraph:
    """A graph that can be run.

    graph        compiled, without a checkpointer or a store of its own; never changed, since all threads of the
                 process share it
    is_async     run it through `astream`: a node or a branch of it is, or may be, async (docs/decisions/0002)
    node_queues  {node: queue} of the nodes whose metadata names one
    fingerprint  the same for graphs of the same nodes, channels and edges, in every process
    manifest     what of it a thread depends on that is to go on under another build
    is_made      for one request, by a factory: its classes are its own
    """

    graph_id: str
    graph: AnyPregel
    is_async: bool
    description: str | None
    node_queues: Mapping[str, str]
    fingerprint: str
    manifest: Manifest
    is_made: bool = False

    def nodes_told(self) -> str:
        """Its nodes, for whoever named one that it lacks."""
        return ", ".join(node for node in self.graph.nodes if not node.startswith("__"))


def load_variable(entry: GraphEntry, config: GraphsConfig) -> Any:
    """What langgraph.json names, as its module has it. Raises whatever the module raises."""
    where, _, name = entry.path.rpartition(":")
    return functools.reduce(getattr, name.split("."), import_module(where, config))


@contextlib.contextmanager
def load_failures(graph_id: str) -> Iterator[None]:
    """Whatever goes wrong while a graph is loaded, as GraphLoadFailed."""
    try:
        yield
    except GraphLoadFailed:
        raise
    except (ImportError, AttributeError, SyntaxError, OSError) as error:
        raise GraphLoadFailed(graph_id=graph_id, why=f"{type(error).__name__}: {error}") from error
    except Exception as error:
        # What it says may come from anywhere, keys included, and `problems` is shown: the log has the rest.
        raise GraphLoadFailed(
            graph_id=graph_id, why=f"{type(error).__name__} while it was imported; see the log"
        ) from error


def describe_graph(
    graph_id: str, graph: AnyPregel, *, description: str | None = None, is_made: bool = False
) -> LoadedGraph:
    """A compiled graph as the farm uses it."""
    if own := stores_of(graph):
        if not is_made:
            warn_of_stores(graph_id, own)
        graph = graph.copy(update=dict.fromkeys(own))
    return LoadedGraph(
        graph_id=graph_id,
        graph=graph,
        is_async=not _is_plainly_sync(graph),
        description=description,
        node_queues={name: queue for name, node in graph.nodes.items() if (queue := queue_of(node))},
        fingerprint=_fingerprint(graph),
        manifest=manifest_of(graph),
        is_made=is_made,
    )


def compiled(graph_id: str, made: Any) -> AnyPregel:
    """A graph, or a builder that is compiled now. Raises GraphLoadFailed for anything else."""
    if isinstance(made, StateGraph):
        return made.compile()
    if isinstance(made, Pregel):
        return made
    raise GraphLoadFailed(
        graph_id=graph_id, why=f"it is a {type(made).__name__}, neither a StateGraph nor a compiled graph"
    )


def stores_of(graph: AnyPregel) -> tuple[str, ...]:
    """What it has of its own, and the server puts the tenant's in the place of."""
    return tuple(name for name in ("checkpointer", "store") if getattr(graph, name) is not None)


def warn_of_stores(graph_id: str, own: tuple[str, ...]) -> None:
    logger.warning("graph %s has a %s of its own; the server's takes its place", graph_id, " and a ".join(own))


# --------------------------------------------------------------------------- importing


def import_module(where: str, config: GraphsConfig) -> ModuleType:
    """What langgraph.json names before its last colon: "./agent/graph.py" or "package.module"."""
    if not where.endswith(".py") and "/" not in where:
        return importlib.import_module(where)
    file = (config.folder / where).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"there is no {where}")
    if name := _module_name(file, config.search_paths):
        return importlib.import_module(name)
    return _import_file(file, config.folder)


def _module_name(file: Path, search_paths: tuple[Path, ...]) -> str | None:
    """The name that the code itself would import this file by: seen from the nearest folder of sys.path. A stored
    value names its class by its module, so every process must give the module the same name."""
    parents = [folder for folder in search_paths if file.is_relative_to(folder)]
    if not parents:
        return None
    parts = file.relative_to(max(parents, key=lambda folder: len(folder.parts))).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    if not parts or not all(part.isidentifier() for part in parts):
        return None
    name = ".".join(parts)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    # The name may be an installed package's, or one of Python's own modules.
    return name if spec is not None and spec.origin and Path(spec.origin).resolve() == file else None


def _import_file(file: Path, folder: Path) -> ModuleType:
    relative = file.relative_to(folder) if file.is_relative_to(folder) else file
    name = "agentfarm_graph__" + "".join(c if c.isalnum() else "_" for c in str(relative.with_suffix("")))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{relative} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# --------------------------------------------------------------------------- what it is made of


def _is_plainly_sync(graph: AnyPregel) -> bool:
    if not all(_is_sync(node.bound) for node in graph.nodes.values()):
        return False
    branches = getattr(getattr(graph, "builder", None), "branches", {})
    return all(_is_sync(branch.path) for by_name in branches.values() for branch in by_name.values())


def _is_sync(runnable: Any) -> bool:
    """Whether its async way is its sync way in a thread. A runnable that has both was written for both: its async half
    may be the only one that works (a tool that is async)."""
    if isinstance(runnable, Pregel):
        return _is_plainly_sync(runnable)
    if isinstance(runnable, lg.RunnableSeq | RunnableSequence):
        return all(_is_sync(step) for step in runnable.steps)
    if isinstance(runnable, lg.ChannelWrite):
        return True
    if isinstance(runnable, lg.RunnableCallable):
        return runnable.func is not None and (runnable.afunc is None or _is_func_in_a_thread(runnable.afunc))
    if isinstance(runnable, RunnableLambda):
        return hasattr(runnable, "func") and not hasattr(runnable, "afunc")
    return False


def _is_func_in_a_thread(afunc: Any) -> bool:
    return isinstance(afunc, functools.partial) and afunc.func is run_in_executor


def _fingerprint(graph: AnyPregel) -> str:
    shape = json.dumps(list(_shape(graph)), sort_keys=True)
    return hashlib.sha256(shape.encode()).hexdigest()[:16]


def _shape(graph: AnyPregel) -> Iterator[Any]:
    """What a checkpoint stands on: names and kinds, no code."""
    yield manifest_of(graph)["channels"]
    yield [graph.input_channels, graph.output_channels]
    for name, node in sorted(graph.nodes.items()):
        reads = node.channels if isinstance(node.channels, str) else sorted(node.channels)
        yield [name, reads, sorted(node.triggers), [list(_shape(g)) for g in node.subgraphs if isinstance(g, Pregel)]]
    builder = getattr(graph, "builder", None)
    if builder is not None:
        yield sorted(builder.edges)
        yield sorted((list(starts), end) for starts, end in builder.waiting_edges)
        yield sorted((start, sorted(by_name)) for start, by_name in builder.branches.items())
