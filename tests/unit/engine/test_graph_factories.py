"""Factories: what they are given, how long what they made stays open, and what becomes of what they raise."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph_sdk.runtime import ServerRuntime

from agentfarm.engine.graph_access import Access, Caller, Purpose
from agentfarm.engine.graph_factories import GraphFactory, make_graph
from agentfarm.engine.graph_loading import LoadedGraph
from agentfarm.engine.graphs import GraphRegistry
from agentfarm.errors import GraphLoadFailed, LeaseLost, Unavailable

if TYPE_CHECKING:
    from nowhere import Unresolvable


class State(TypedDict, total=False):
    n: int


@dataclass
class Context:
    who: str


def builder(name: str = "a", **metadata: Any) -> StateGraph[State]:
    made = StateGraph(State)
    made.add_node(name, lambda state: {"n": 1}, metadata=metadata)
    made.add_edge(START, name)
    return made


def access(purpose: Purpose = "threads.create_run", **given: Any) -> Access:
    config = {"configurable": {"node": "b", "assistant_id": "the-assistant"}}
    whole = Access(purpose, "g", config, {"who": "ann"}, Caller("tenant-1"), InMemoryStore())
    return replace(whole, **given)


def served(factory: Callable[..., Any]) -> GraphRegistry:
    return GraphRegistry({"g": make_graph("g", factory)})


def look(registry: GraphRegistry, asked: Access | None = None) -> LoadedGraph:
    opening = registry.open("g", lambda: asked or access())
    return asyncio.run(opening.alook()) if opening.is_async else opening.look()  # type: ignore[union-attr]


# --------------------------------------------------------------------------- each shape, with each kind of parameter


Build = Callable[[str], Any]


def as_function(build: Build) -> list[Any]:
    def none() -> Any:
        return build("none")

    def config(config: RunnableConfig) -> Any:
        return build(config["configurable"].get("node", "empty"))

    def runtime(runtime: ServerRuntime) -> Any:
        return build(runtime.access_context.replace(".", "_"))

    def both(runtime: ServerRuntime, config: RunnableConfig) -> Any:
        return build(f"{config['configurable'].get('node', 'empty')}_{runtime.access_context.replace('.', '_')}")

    return [none, config, runtime, both]


def as_async(function: Any) -> Any:
    @functools.wraps(function)
    async def later(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    return later


def as_manager(function: Any) -> Any:
    @functools.wraps(function)
    def generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield function(*args, **kwargs)

    return contextlib.contextmanager(generator)


def as_async_manager(function: Any) -> Any:
    @functools.wraps(function)
    async def generator(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        yield function(*args, **kwargs)

    return contextlib.asynccontextmanager(generator)


@pytest.mark.parametrize("build", [builder, lambda name: builder(name).compile()], ids=["builder", "graph"])
@pytest.mark.parametrize(
    "shape",
    [lambda f: f, as_async, as_manager, as_async_manager],
    ids=["function", "async function", "context manager", "async context manager"],
)
def test_every_shape_of_factory_gets_what_it_asks_for(shape: Any, build: Build) -> None:
    made = [look(served(shape(factory))) for factory in as_function(build)[1:]]

    assert [node for graph in made for node in graph.graph.nodes if node != "__start__"] == [
        "b",
        "threads_create_run",
        "b_threads_create_run",
    ]
    assert all(graph.is_made and graph.graph_id == "g" for graph in made)


def test_a_function_that_takes_nothing_is_called_once() -> None:
    calls = []

    def factory() -> Any:
        calls.append(1)
        return builder()

    registry = served(factory)
    loaded = [registry.open("g", access) for _ in range(3)]

    assert calls == [1]
    assert not registry.is_made("g")
    assert len({id(one.loaded) for one in loaded}) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [as_manager, as_async_manager])
def test_a_context_manager_that_takes_nothing_is_entered_for_each_request(shape: Any) -> None:
    calls = []

    def factory() -> Any:
        calls.append(1)
        return builder()

    registry = served(shape(factory))
    look(registry)
    look(registry)

    assert registry.is_made("g")
    assert len(calls) == 3  # one of them at the start


def test_a_graph_of_an_async_factory_runs_on_the_loop_and_one_of_a_sync_factory_as_its_nodes_are() -> None:
    async def later(config: RunnableConfig) -> Any:
        return builder()

    def now(config: RunnableConfig) -> Any:
        return builder()

    assert look(served(later)).is_async
    assert not look(served(now)).is_async


# --------------------------------------------------------------------------- what it is told


def test_a_server_runtime_says_why_for_whom_and_with_what() -> None:
    told: list[Any] = []

    def factory(runtime: ServerRuntime[Context]) -> Any:
        told.append(runtime)
        return builder()

    registry = served(factory)
    asked = access()
    look(registry, asked)
    look(registry, access("threads.read"))

    start, run, read = told
    assert (start.access_context, start.user, start.execution_runtime) == ("assistants.read", None, None)
    assert run.execution_runtime.context == Context("ann")
    assert run.ensure_user().identity == run.user["identity"] == "tenant-1"
    assert run.store is asked.store
    assert (read.access_context, read.execution_runtime) == ("threads.read", None)


def test_a_runtime_of_langgraph_s_own_is_given_where_it_is_asked_for() -> None:
    told: list[Any] = []

    def factory(runtime: Runtime[Context]) -> Any:
        told.append(runtime)
        return builder()

    look(served(factory))

    run = told[-1]
    assert run.context == Context("ann")
    assert (run.server_info.graph_id, run.server_info.assistant_id) == ("g", "the-assistant")
    assert run.server_info.user.identity == "tenant-1"


def _unresolvable(config: "RunnableConfig", runtime: "ServerRuntime[Unresolvable]") -> Any:
    return builder(f"{config['configurable'].get('node', 'empty')}_{type(runtime.execution_runtime).__name__}")


def test_annotations_that_cannot_be_resolved_are_taken_by_their_words() -> None:
    assert "b__ExecutionRuntime" in look(served(_unresolvable)).graph.nodes


@pytest.mark.parametrize(
    "factory",
    [
        lambda config: builder(config["configurable"].get("node", "empty")),
        lambda settings: builder(settings["configurable"].get("node", "empty")),
        functools.partial(lambda unused, config: builder(config["configurable"].get("node", "empty")), 1),
        lambda config=None, *rest, **more: builder(config["configurable"].get("node", "empty")),
    ],
    ids=["by its name", "the only one", "partial", "with a default"],
)
def test_a_config_is_told_by_its_name_or_by_being_alone(factory: Any) -> None:
    assert "b" in look(served(factory)).graph.nodes


def test_what_has_a_default_and_is_not_known_is_left_alone() -> None:
    def factory(config: RunnableConfig, model: str = "small") -> Any:
        return builder(model)

    assert "small" in look(served(factory)).graph.nodes


def test_a_parameter_that_nobody_can_fill_is_refused_by_name() -> None:
    def factory(config: RunnableConfig, model: str) -> Any:
        return builder(model)

    with pytest.raises(GraphLoadFailed, match=r"'model'.*has no default"):
        make_graph("g", factory)


def test_a_factory_cannot_change_the_config_of_the_run() -> None:
    def factory(config: RunnableConfig) -> Any:
        config["configurable"].setdefault("list", []).append(1)
        config["configurable"]["node"] = "changed"
        return builder()

    asked = access(config={"configurable": {"list": [0]}})
    look(served(factory), asked)

    assert asked.config == {"configurable": {"list": [0]}}


# --------------------------------------------------------------------------- how long it is open


class Doors:
    """A factory that writes down when it was opened and how it was left."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.leaves_with: Exception | None = None

    @contextlib.contextmanager
    def sync(self, config: RunnableConfig) -> Iterator[Any]:
        with self._door():
            yield builder()

    @contextlib.asynccontextmanager
    async def asynchronous(self, config: RunnableConfig) -> AsyncIterator[Any]:
        task = asyncio.current_task()
        with self._door():
            yield builder()
        assert asyncio.current_task() is task

    @contextlib.contextmanager
    def _door(self) -> Iterator[None]:
        self.log.append("open")
        try:
            yield
        except BaseException as error:
            self.log.append(type(error))
            raise
        finally:
            self.log.append("closed")
            if self.leaves_with is not None:
                raise self.leaves_with


@pytest.fixture(params=["sync", "asynchronous"])
def doors(request: pytest.FixtureRequest) -> Any:
    made = Doors()
    return made, served(getattr(made, request.param)), made.log.clear()


def use(
    registry: GraphRegistry, *, failed_with: BaseException | None = None, raises: BaseException | None = None
) -> None:
    opening = registry.open("g", access)

    def work() -> None:
        opening.failed_with(failed_with)
        if raises is not None:
            raise raises

    async def awork() -> None:
        async with opening:
            work()

    if opening.is_async:
        asyncio.run(awork())
    else:
        with opening:
            work()


def test_it_is_open_once_for_one_use(doors: Any) -> None:
    made, registry, _ = doors

    use(registry)

    assert made.log == ["open", "closed"]


def test_a_node_s_error_is_seen_by_the_context_manager_and_stays_the_node_s(doors: Any) -> None:
    made, registry, _ = doors

    use(registry, failed_with=ValueError("of a node"))

    assert made.log == ["open", ValueError, "closed"]


def test_a_node_s_error_stays_the_node_s_when_a_task_group_wraps_it(doors: Any) -> None:
    made, registry, _ = doors
    made.leaves_with = ExceptionGroup("unhandled errors in a TaskGroup", [ValueError("of a node")])

    use(registry, failed_with=ValueError("of a node"))

    assert made.log == ["open", ValueError, "closed"]


@pytest.mark.parametrize("error", [LeaseLost(execution_id=1), KeyboardInterrupt()], ids=["fenced out", "stopped"])
def test_what_ends_a_segment_closes_it_and_goes_on_as_it_was(doors: Any, error: BaseException) -> None:
    made, registry, _ = doors
    made.leaves_with = RuntimeError("while it was closed")

    with pytest.raises(type(error)):
        use(registry, raises=error)

    assert made.log[0] == "open"
    assert made.log[-1] == "closed"


def test_an_error_while_it_is_closed_is_the_graph_s(doors: Any) -> None:
    made, registry, _ = doors
    made.leaves_with = RuntimeError("sk-secret")

    with pytest.raises(GraphLoadFailed, match="RuntimeError when its factory's context manager was left") as caught:
        use(registry)

    assert caught.value.__cause__ is made.leaves_with
    assert "secret" not in str(caught.value)


def test_it_is_closed_when_what_it_made_is_no_graph() -> None:
    closed = []

    @contextlib.contextmanager
    def factory(config: RunnableConfig) -> Iterator[Any]:
        try:
            yield builder() if config["configurable"].get("node") is None else 3
        finally:
            closed.append(1)

    registry = served(factory)
    with pytest.raises(GraphLoadFailed, match="it is a int"):
        look(registry)

    assert closed == [1, 1]


# --------------------------------------------------------------------------- errors, and what is known at the start


def test_a_factory_that_needs_more_than_an_empty_config_is_warned_of_and_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def factory(config: RunnableConfig) -> Any:
        return builder(config["configurable"]["node"])

    registry = served(factory)

    assert registry.ids() == ("g",)
    assert registry.queues() == frozenset()
    assert "graph g could not be made with an empty config (KeyError)" in caplog.text
    assert "b" in look(registry).graph.nodes


def test_what_it_raises_is_kept_as_the_cause_and_not_repeated() -> None:
    error = ValueError("sk-secret")

    def factory(config: RunnableConfig) -> Any:
        raise error

    with pytest.raises(GraphLoadFailed, match=r"'g'.*ValueError when its factory was called") as caught:
        look(served(factory))

    assert caught.value.__cause__ is error
    assert "secret" not in str(caught.value)


def test_a_store_that_does_not_answer_is_not_the_factory_s_fault() -> None:
    def factory(config: RunnableConfig) -> Any:
        raise Unavailable

    registry = GraphRegistry({"g": GraphFactory("g", factory)})

    with pytest.raises(Unavailable):
        look(registry)


def test_queues_are_known_from_what_an_empty_config_makes() -> None:
    def factory(config: RunnableConfig) -> Any:
        return builder(queue="gpu")

    assert served(factory).queues() == {"gpu"}


def test_a_checkpointer_of_its_own_is_replaced_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    caplog.set_level(logging.WARNING)

    def factory(config: RunnableConfig) -> Any:
        return builder().compile(checkpointer=InMemorySaver())

    registry = served(factory)
    loaded = [look(registry) for _ in range(3)]

    assert [one.graph.checkpointer for one in loaded] == [None] * 3
    assert caplog.text.count("has a checkpointer of its own") == 1
