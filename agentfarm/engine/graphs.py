"""The graphs that this process serves: read from the operator's langgraph.json, loaded once, known by their ids.

The file is read as the ecosystem writes it. A graph that cannot be loaded is reported by name, and the others work: a
typo in one agent does not take a farm down.
"""

import hashlib
import importlib
import importlib.util
import inspect
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_core.runnables import RunnableLambda, RunnableSequence
from langchain_core.runnables.config import run_in_executor
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from agentfarm.engine._langgraph import RunnableCallable
from agentfarm.errors import GraphLoadFailed, GraphNotFound, Misconfigured

logger = logging.getLogger(__name__)

#: Keys of langgraph.json that mean something here.
READ = frozenset({"graphs", "dependencies", "env"})

#: Keys for building an image, which is not done here.
FOR_BUILDS = frozenset(
    {
        "python_version", "node_version", "dockerfile_lines", "base_image", "image_distro", "pip_config_file",
        "pip_installer", "keep_pkg_tools", "api_version", "source", "$schema", "_INTERNAL_docker_tag",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadedGraph:
    """A graph, ready to run.

    is_async     it runs through astream (docs/decisions/0002)
    fingerprint  changes when nodes, edges or channels do
    node_queues  {node: queue} of the nodes whose metadata names one: add_node("render", f, metadata={"queue": "gpu"})
    """

    graph_id: str
    graph: Pregel[Any, Any, Any, Any]
    is_async: bool
    description: str | None
    fingerprint: str
    node_queues: Mapping[str, str] = field(default_factory=dict)


class GraphRegistry:
    """Graph id -> LoadedGraph.

    problems  {graph id: why it could not be loaded}
    """

    def __init__(self, graphs: Iterable[LoadedGraph], problems: Mapping[str, str] | None = None) -> None:
        self._graphs = {loaded.graph_id: loaded for loaded in graphs}
        self.problems = dict(problems or {})

    @classmethod
    def from_config(cls, path: Path) -> "GraphRegistry":
        """Load what the file names. Raises Misconfigured when the file itself cannot be read."""
        config = read_config(path)
        prepare_process(config, path.resolve().parent)
        graphs, problems = [], {}
        for graph_id, spec in config["graphs"].items():
            try:
                graphs.append(load_graph(graph_id, spec, path.resolve().parent))
            except GraphLoadFailed as error:
                problems[graph_id] = str(error)
                logger.exception("graph %s is not served; the others are", graph_id)
        return cls(graphs, problems)

    def get(self, graph_id: str) -> LoadedGraph:
        """Raises GraphNotFound, or GraphLoadFailed for one that is configured and could not be loaded."""
        if (loaded := self._graphs.get(graph_id)) is not None:
            return loaded
        if graph_id in self.problems:
            raise GraphLoadFailed(self.problems[graph_id])
        raise GraphNotFound(graph_id=graph_id, known=", ".join(self._graphs) or "none")

    def ids(self) -> tuple[str, ...]:
        """Of the graphs that work, in the file's order."""
        return tuple(self._graphs)

    def queues(self) -> set[str]:
        """The queues that nodes name."""
        return {queue for loaded in self._graphs.values() for queue in loaded.node_queues.values()}


# --------------------------------------------------------------------------- the file


def read_config(path: Path) -> dict[str, Any]:
    """The parsed file. Raises Misconfigured, which names the file and what is wrong."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"AGENTFARM_CONFIG names {path}, which cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise Misconfigured(f"{path} is not JSON: {error}.") from error
    graphs = config.get("graphs") if isinstance(config, dict) else None
    if not isinstance(graphs, dict) or not graphs:
        raise Misconfigured(f'{path} names no graphs; it needs "graphs": {{"agent": "./agent.py:graph"}}.')
    for key in sorted(config.keys() - READ):
        if key in FOR_BUILDS:
            logger.info("%s: %s is for building images and is not used here", path.name, key)
        else:
            logger.warning("%s: %s is not supported by this server and has no effect", path.name, key)
    return config


def prepare_process(config: Mapping[str, Any], folder: Path) -> None:
    """The file's `env` into the environment (what is set already wins), its local `dependencies` onto sys.path."""
    for name, value in _environment(config.get("env"), folder).items():
        os.environ.setdefault(name, value)
    local = [folder / dep for dep in config.get("dependencies") or () if isinstance(dep, str) and dep.startswith(".")]
    for place in [folder, *local]:
        for candidate in (place.resolve(), place.resolve() / "src"):
            if candidate.is_dir() and str(candidate) not in sys.path:
                sys.path.append(str(candidate))


def _environment(env: Any, folder: Path) -> dict[str, str]:
    if isinstance(env, dict):
        return {str(name): str(value) for name, value in env.items()}
    if not isinstance(env, str):
        return {}
    path = folder / env
    if not path.is_file():
        logger.warning("the env file of langgraph.json is missing: %s", path.name)
        return {}
    pairs = (
        line.strip().removeprefix("export ").partition("=") for line in path.read_text(encoding="utf-8").splitlines()
    )
    return {
        name.strip(): value.strip().strip("'\"") for name, sign, value in pairs if sign and not name.startswith("#")
    }


# --------------------------------------------------------------------------- one graph


def load_graph(graph_id: str, spec: Any, folder: Path) -> LoadedGraph:
    """What "path.py:variable", "module:variable" or {"path": …, "description": …} names. Raises GraphLoadFailed."""
    text = spec.get("path") if isinstance(spec, dict) else spec
    if not isinstance(text, str) or ":" not in text:
        raise GraphLoadFailed(graph_id=graph_id, why="its entry is not of the form './file.py:variable'")
    place, _, variable = text.rpartition(":")
    try:
        found = getattr(_import(graph_id, place, folder), variable)
        graph = _compiled(graph_id, found)
    except GraphLoadFailed:
        raise
    except Exception as error:  # the user's module may raise anything
        raise GraphLoadFailed(
            graph_id=graph_id, why=f"importing {text} raised {type(error).__name__}: {error}"
        ) from error
    return wrap_graph(graph_id, graph, description=spec.get("description") if isinstance(spec, dict) else None)


def wrap_graph(graph_id: str, graph: Pregel[Any, Any, Any, Any], *, description: str | None = None) -> LoadedGraph:
    """A compiled graph as the registry keeps it. Its own checkpointer, if it brought one, is not used."""
    if graph.checkpointer not in (None, True, False):
        logger.warning("graph %s was compiled with a checkpointer of its own, which is not used here", graph_id)
    graph.checkpointer = None
    return LoadedGraph(
        graph_id=graph_id,
        graph=graph,
        is_async=not is_plainly_sync(graph),
        description=description,
        fingerprint=fingerprint(graph),
        node_queues=_queues(graph),
    )


def _import(graph_id: str, place: str, folder: Path) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = (folder / place).resolve()
    if not path.is_file():
        raise GraphLoadFailed(graph_id=graph_id, why=f"there is no file {place} beside langgraph.json")
    # A module that a package holds goes by its full name, so that what it imports relatively is found.
    parts = [path.stem] if path.stem != "__init__" else []
    top = path.parent
    while (top / "__init__.py").exists():
        parts.insert(0, top.name)
        top = top.parent
    if len(parts) > 1 or (parts and path.stem == "__init__"):
        if str(top) not in sys.path:
            sys.path.append(str(top))
        return importlib.import_module(".".join(parts))
    # Two agents may both be called graph.py.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise GraphLoadFailed(graph_id=graph_id, why=f"{place} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _compiled(graph_id: str, found: Any) -> Pregel[Any, Any, Any, Any]:
    if callable(found) and not isinstance(found, Pregel | StateGraph):
        found = _call_factory(graph_id, found)
    if isinstance(found, StateGraph):
        found = found.compile()
    if not isinstance(found, Pregel):
        raise GraphLoadFailed(
            graph_id=graph_id, why=f"it is a {type(found).__name__}, not a graph or a function that makes one"
        )
    return found


def _call_factory(graph_id: str, factory: Any) -> Any:
    """A function of nothing, or of `config`, is called once, here."""
    if (
        inspect.iscoroutinefunction(factory)
        or inspect.isasyncgenfunction(factory)
        or inspect.isgeneratorfunction(factory)
    ):
        raise GraphLoadFailed(
            graph_id=graph_id, why="its factory is async or a context manager, which is not supported yet"
        )
    wanted = [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(wanted) > 1:
        raise GraphLoadFailed(
            graph_id=graph_id, why="its factory takes more than a config; graphs are made once, not per run"
        )
    return factory({"configurable": {}}) if wanted else factory()


# --------------------------------------------------------------------------- what a graph is like


def is_plainly_sync(graph: Pregel[Any, Any, Any, Any]) -> bool:
    """Whether every node and every branch is a sync function and nothing else, also inside of subgraphs."""
    builder = getattr(graph, "builder", None)
    if builder is None:  # an entrypoint, or a Pregel made by hand
        return all(_is_sync(node.bound) for node in graph.nodes.values())
    paths = [branch.path for branches in builder.branches.values() for branch in branches.values()]
    return all(_is_sync(node.bound) for node in graph.nodes.values()) and all(_is_sync(path) for path in paths)


def _is_sync(runnable: Any) -> bool:
    if isinstance(runnable, Pregel):
        return is_plainly_sync(runnable)
    if isinstance(runnable, RunnableCallable):
        return runnable.func is not None and (runnable.afunc is None or _is_the_same(runnable.afunc, runnable.func))
    if isinstance(runnable, RunnableLambda):
        return hasattr(runnable, "func") and not hasattr(runnable, "afunc")
    if isinstance(runnable, RunnableSequence) or hasattr(runnable, "steps"):
        return all(_is_sync(step) for step in runnable.steps)
    # RunnablePassthrough and its like have no function of a user's; anything else (models, tools) may be async inside.
    return type(runnable).__module__.startswith("langgraph.") or type(runnable).__name__ == "RunnablePassthrough"


def _is_the_same(afunc: Any, func: Any) -> bool:
    """LangGraph gives a sync function an async half that runs it in a thread."""
    return isinstance(afunc, partial) and afunc.func is run_in_executor and func in afunc.args


def fingerprint(graph: Pregel[Any, Any, Any, Any]) -> str:
    """Of the graph's shape: nodes with their triggers, and channels with their kinds. 16 hex digits."""
    shape = {
        "nodes": {name: sorted(node.triggers) for name, node in graph.nodes.items()},
        "channels": {name: type(channel).__name__ for name, channel in graph.channels.items()},
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


def _queues(graph: Pregel[Any, Any, Any, Any]) -> dict[str, str]:
    named = {name: (node.metadata or {}).get("queue") for name, node in graph.nodes.items()}
    return {name: queue for name, queue in named.items() if isinstance(queue, str)}
