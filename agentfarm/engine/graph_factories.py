"""Graphs that are made for each request: what a factory takes, how it is called, how long what it made stays open.

A factory is a function of langgraph.json that takes a config, a runtime or both, or that is a context manager; sync or
async. It is called for each segment of a run and for each look at a thread, by whichever process serves it; nothing of
what it made is kept. What takes nothing and answers a graph is no factory: it is called once, when it is loaded.
"""

import asyncio
import contextlib
import copy
import inspect
import logging
import re
import threading
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.runnables import Runnable
from langgraph.graph import StateGraph
from langgraph.runtime import Runtime, ServerInfo

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.graph_access import Access
from agentfarm.engine.graph_loading import LoadedGraph, compiled, describe_graph, stores_of, warn_of_stores
from agentfarm.errors import AgentFarmError, GraphLoadFailed

logger = logging.getLogger(__name__)

#: What a parameter of a factory is given.
Kind = Literal["config", "server runtime", "runtime"]

#: By the words of an annotation: it may be a string that names what is imported for type checkers alone.
_KINDS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"\bRunnableConfig\b"), "config"),
    (re.compile(r"\b(ServerRuntime|_ExecutionRuntime|_ReadRuntime|_ServerRuntimeBase)\b"), "server runtime"),
    (re.compile(r"\bRuntime\b"), "runtime"),
)
_BY_NAME: Mapping[str, Kind] = {"config": "config", "runtime": "server runtime"}

#: What ends a segment without being the graph's: it goes through a factory's context manager as it is.
_NOT_THE_GRAPHS = (AgentFarmError, KeyboardInterrupt, asyncio.CancelledError)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One that a factory is given. context_schema: of `ServerRuntime[Context]`, where that can be told."""

    name: str
    kind: Kind
    is_positional: bool
    context_schema: type | None = None


class GraphFactory:
    """A function that makes a graph for one request.

    sample  what it made when it was loaded, with an empty config, closed again: its queues and types are known from
            the start. None where that failed
    """

    def __init__(self, graph_id: str, function: Callable[..., Any], *, description: str | None = None) -> None:
        self.graph_id, self.function, self.description = graph_id, function, description
        self.parameters = read_parameters(graph_id, function)
        self.sample: LoadedGraph | None = None
        self._has_warned = False

    def open(self, access: Access) -> "Opening":
        """Call it. Raises GraphLoadFailed, with the factory's own error as its cause."""
        with naming_errors(self.graph_id, "its factory was called"):
            by_position = [self._argument(p, access) for p in self.parameters if p.is_positional]
            by_name = {p.name: self._argument(p, access) for p in self.parameters if not p.is_positional}
            return Opening(self, self.function(*by_position, **by_name))

    def try_once(self) -> None:
        """Make `sample`. A factory that raises with an empty config is warned of, and served.

        raises  GraphLoadFailed when it answers something else than a graph
        """
        try:
            opening = self.open(Access("assistants.read", self.graph_id, config={"configurable": {}}))
            self.sample = run_aside(opening.alook()) if opening.is_async else opening.look()
        except GraphLoadFailed as error:
            if error.__cause__ is None:
                raise
            logger.warning(
                "graph %s could not be made with an empty config (%s): queues that its nodes name are not known here, "
                "and their messages go to the default queue",
                self.graph_id,
                type(error.__cause__).__name__,
            )

    def describe(self, made: Any) -> LoadedGraph:
        graph = compiled(self.graph_id, made)
        if (own := stores_of(graph)) and not self._has_warned:
            self._has_warned = True
            warn_of_stores(self.graph_id, own)
        return describe_graph(self.graph_id, graph, description=self.description, is_made=True)

    def _argument(self, parameter: Parameter, access: Access) -> Any:
        if parameter.kind == "config":
            return copy.deepcopy(dict(access.config))  # the run's own is shared by its messages
        executes = access.purpose == "threads.create_run"
        context = lg.coerce_context(parameter.context_schema, copy.deepcopy(access.context)) if executes else None
        if parameter.kind == "runtime":
            assistant_id = str((access.config.get("configurable") or {}).get("assistant_id", ""))
            info = ServerInfo(assistant_id=assistant_id, graph_id=access.graph_id, user=access.caller)
            return Runtime(context=context, store=access.store, server_info=info)
        # Here, since the SDK brings its HTTP client along, which no worker needs for graphs that are compiled once.
        from agentfarm.engine._langgraph_runtime import ExecutionRuntime, ReadRuntime

        told: dict[str, Any] = {"access_context": access.purpose, "user": access.caller, "store": access.store}
        return ExecutionRuntime(context=context, **told) if executes else ReadRuntime(**told)


class Opening:
    """A graph for one request: entered, used and left once, with `async with` on one loop where is_async."""

    def __init__(self, factory: GraphFactory, product: Any) -> None:
        self.factory, self.product = factory, product
        self.is_async = not _is_graph(product) and (inspect.isawaitable(product) or hasattr(product, "__aenter__"))
        self._stack = contextlib.ExitStack()
        self._astack = contextlib.AsyncExitStack()
        self._failure: BaseException | None = None

    def failed_with(self, error: BaseException | None) -> None:
        """What a node raised, which the segment has kept: the factory's context manager is left as if by it, and what
        becomes of it there (a task group wraps it) changes nothing: it may be about to be retried."""
        self._failure = error

    def __enter__(self) -> LoadedGraph:
        loaded = None
        with naming_errors(self.factory.graph_id, "its factory was called"), contextlib.ExitStack() as stack:
            made = self.product
            if _is_manager(made):
                made = stack.enter_context(made)
            loaded = self.factory.describe(made)
            self._stack = stack.pop_all()
        return self._there(loaded)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        on_its_way = error or self._failure
        with _leaving(self.factory.graph_id, on_its_way):
            self._stack.__exit__(*_raised(on_its_way))

    async def __aenter__(self) -> LoadedGraph:
        loaded = None
        with naming_errors(self.factory.graph_id, "its factory was called"):
            async with contextlib.AsyncExitStack() as stack:
                made = self.product
                if not _is_graph(made) and inspect.isawaitable(made):
                    made = await made
                if not _is_graph(made) and hasattr(made, "__aenter__"):
                    made = await stack.enter_async_context(made)
                elif _is_manager(made):
                    made = stack.enter_context(made)
                loaded = self.factory.describe(made)
                self._astack = stack.pop_all()
        # What an async factory has opened lives on this loop, and so do the nodes that use it.
        return replace(self._there(loaded), is_async=True)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        on_its_way = error or self._failure
        with _leaving(self.factory.graph_id, on_its_way):
            await self._astack.__aexit__(*_raised(on_its_way))

    def _there(self, loaded: LoadedGraph | None) -> LoadedGraph:
        if loaded is None:
            why = "its factory's context manager hides why what it made is no graph"
            raise GraphLoadFailed(graph_id=self.factory.graph_id, why=why)
        return loaded

    def look(self) -> LoadedGraph:
        with self as loaded:
            return loaded

    async def alook(self) -> LoadedGraph:
        async with self as loaded:
            return loaded


@dataclass(slots=True)
class Shared:
    """A graph that is compiled once a process, as an opening: nothing is to be made or closed."""

    loaded: LoadedGraph
    is_async: bool = False

    def failed_with(self, error: BaseException | None) -> None:
        pass

    def __enter__(self) -> LoadedGraph:
        return self.loaded

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        pass

    async def __aenter__(self) -> LoadedGraph:
        return self.loaded

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        pass


def make_graph(graph_id: str, variable: Any, *, description: str | None = None) -> LoadedGraph | GraphFactory:
    """A variable of langgraph.json as what is served: a graph, or a factory that makes one for each request.

    raises  GraphLoadFailed, which says why; what a function without parameters raises, as it is
    """
    if _is_graph(variable) or not callable(variable):
        return describe_graph(graph_id, compiled(graph_id, variable), description=description)
    factory = GraphFactory(graph_id, variable, description=description)
    if not factory.parameters and not _makes_a_manager(variable):
        made = variable()
        if not _is_graph(made) and inspect.isawaitable(made):
            made = run_aside(_awaited(made))
        if _is_graph(made) or not (_is_manager(made) or hasattr(made, "__aenter__")):
            return describe_graph(graph_id, compiled(graph_id, made), description=description)
    factory.try_once()
    return factory


# --------------------------------------------------------------------------- what a factory takes


def read_parameters(graph_id: str, function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Those that it is given, in order. Raises GraphLoadFailed for one that must be given and that nobody knows."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind not in _REST]
    hints = _hints(function)
    required = [p for p in parameters if p.default is p.empty]
    found = []
    for parameter in parameters:
        hint = hints.get(parameter.name, parameter.annotation)
        kind = _kind(parameter, hint)
        if kind is None and required == [parameter] and parameter.annotation is parameter.empty:
            kind = "config"  # one parameter without a type: what a factory took before there was a runtime
        if kind is not None:
            is_positional = parameter.kind is parameter.POSITIONAL_ONLY
            found.append(Parameter(parameter.name, kind, is_positional, _context_schema(hint)))
        elif parameter.default is parameter.empty:
            raise GraphLoadFailed(
                graph_id=graph_id,
                why=f"its factory takes a parameter {parameter.name!r} that is neither `config: RunnableConfig` nor "
                "`runtime: ServerRuntime` and has no default",
            )
    return tuple(found)


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _kind(parameter: inspect.Parameter, hint: Any) -> Kind | None:
    if hint is not parameter.empty:
        words = hint if isinstance(hint, str) else f"{getattr(hint, '__name__', '')} {hint}"
        for pattern, kind in _KINDS:
            if pattern.search(words):
                return kind
    return _BY_NAME.get(parameter.name)


def _hints(function: Any) -> Mapping[str, Any]:
    """Annotations as types; none of them where one cannot be resolved: then their text has to do."""
    if inspect.isclass(function):
        function = vars(function).get("__init__", function)
    elif not hasattr(function, "__annotations__"):
        function = getattr(function, "func", type(function).__call__)  # a partial, or an object that is called
    try:
        return typing.get_type_hints(function)
    except Exception:  # evaluating a user's annotation may raise anything
        return {}


def _context_schema(hint: Any) -> type | None:
    """`Context` of `ServerRuntime[Context]`."""
    arguments = typing.get_args(hint) if not isinstance(hint, str) else ()
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], type) else None


def _makes_a_manager(function: Any) -> bool:
    """Whether it is decorated by contextlib: calling it only to see would be calling it once too often."""
    inner = inspect.unwrap(function)
    return inner is not function and (inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner))


def _is_graph(made: Any) -> bool:
    return isinstance(made, Runnable | StateGraph)


def _is_manager(made: Any) -> bool:
    return not _is_graph(made) and hasattr(made, "__enter__")


# --------------------------------------------------------------------------- errors


@contextlib.contextmanager
def naming_errors(graph_id: str, when: str) -> Iterator[None]:
    """What the graph's own code raises as GraphLoadFailed, with the error as its cause. What it says stays in the log:
    it may come from anywhere, keys included."""
    try:
        yield
    except _NOT_THE_GRAPHS:
        raise
    except BaseException as error:  # sys.exit() in a factory must not end the process either
        logger.warning("graph %s could not be made", graph_id, exc_info=True)
        raise GraphLoadFailed(graph_id=graph_id, why=f"{type(error).__name__} when {when}; see the log") from error


@contextlib.contextmanager
def _leaving(graph_id: str, error: BaseException | None) -> Iterator[None]:
    """An error on the way out is the graph's, unless another is on its way already: that one stays."""
    try:
        with naming_errors(graph_id, "its factory's context manager was left"):
            yield
    except GraphLoadFailed:
        if error is None:
            raise


def _raised(error: BaseException | None) -> tuple[type[BaseException] | None, BaseException | None, Any]:
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


# --------------------------------------------------------------------------- async, where nothing may be running yet


def run_aside(coroutine: Any) -> Any:
    """In an OS thread of its own: a loop may be running in this one, and none is kept, since this process may fork."""
    answer: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            answer.append(asyncio.run(coroutine))
        except BaseException as error:  # raised again below
            failure.append(error)

    thread = threading.Thread(target=work, name="loading a graph")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return answer[0]


async def _awaited(made: Any) -> Any:
    return await made
