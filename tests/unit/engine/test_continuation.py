"""A thread that was begun under one build of a graph, and another build that is to go on with it."""

import operator
from typing import Annotated, Any

import pytest
from langgraph.channels import DeltaChannel, Topic
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from agentfarm.engine.continuation import (
    Manifest,
    decide_continuation,
    goes_on,
    manifest_of,
    pending_nodes,
    stored_channels,
)


def _ask(state: Any) -> Any:
    interrupt("go on?")


def _pass(state: Any) -> Any:
    return {}


def _build(*nodes: str, schema: type = dict, **edges: Any) -> Manifest:
    """A line of these nodes over this state."""
    builder: Any = StateGraph(schema)
    builder.add_sequence([(node, _pass) for node in nodes])
    builder.add_edge(START, nodes[0])
    return manifest_of(builder.compile())


def _of(channel: Any) -> Manifest:
    return _build("a", schema=TypedDict("State", {"x": channel}))  # type: ignore[operator]


def _decide(old: Manifest, new: Manifest, *pending: str) -> str | None:
    return decide_continuation(old, new, pending=pending, stored=["x", "gone", "added"])


# --------------------------------------------------------------------------- nodes


@pytest.mark.parametrize("nodes", [("a", "b", "c"), ("b", "a"), ("a",)], ids=" ".join)
def test_nodes_come_and_go_that_are_not_next(nodes: tuple[str, ...]) -> None:
    assert _decide(_build("a", "b"), _build(*nodes), "a") is None


def test_a_node_that_is_next_and_gone_is_named() -> None:
    assert _decide(_build("a", "b"), _build("a", "other"), "a", "b") == "node 'b', which is next, is gone"


# --------------------------------------------------------------------------- channels


def _longest(one: list[str], other: list[str]) -> list[str]:
    return max(one, other, key=len)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (list[str], Annotated[list[str], operator.add]),
        (Annotated[list[str], operator.add], list[str]),
        (Annotated[list[str], operator.add], Annotated[list[int], _longest]),
        (Annotated[int, operator.add], Annotated[float, operator.add]),
        (int, str),
        (Any, Annotated[list[str], operator.add]),
        (Annotated[list[str], operator.add], Annotated[list[str], DeltaChannel(lambda old, new: old)]),
        (list[str] | None, Annotated[list[str], operator.add]),
    ],
)
def test_a_channel_that_can_take_what_is_stored_is_no_obstacle(was: Any, now: Any) -> None:
    assert _decide(_of(was), _of(now)) is None


@pytest.mark.parametrize(
    ("was", "now", "why"),
    [
        (str, Annotated[list[str], operator.add], "held a str, and its reducer _operator.add combines"),
        (Annotated[dict[str, int], operator.or_], Annotated[list[str], operator.add], "held a dict"),
        (Annotated[list[str], Topic(str)], list[str], "was a Topic and is a LastValue now"),
        (list[str], Annotated[list[str], Topic(str)], "was a LastValue and is a Topic now"),
        (Annotated[list[str], DeltaChannel(lambda old, new: old)], list[str], "was a DeltaChannel and is a LastValue"),
    ],
)  # fmt: skip
def test_a_channel_that_cannot_take_what_is_stored_is_named(was: Any, now: Any, why: str) -> None:
    decided = _decide(_of(was), _of(now))

    assert decided is not None
    assert decided.startswith(f"channel 'x' {why}")


def test_a_channel_without_a_value_may_become_anything() -> None:
    assert decide_continuation(_of(str), _of(Annotated[list[str], operator.add]), pending=[], stored=[]) is None


# --------------------------------------------------------------------------- what a checkpoint says


def _standing(builder: Any, input: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """(graph, its last checkpoint, what LangGraph says is next)."""
    graph = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    graph.invoke(input, config)
    return graph, graph.checkpointer.get_tuple(config).checkpoint, graph.get_state(config).next


class State(TypedDict, total=False):
    x: Annotated[list[str], operator.add]
    lines: Annotated[list[str], DeltaChannel(lambda old, new: [*old, *(line for one in new for line in one)])]


def _joined() -> Any:
    """Two branches of other lengths that meet: the barrier is half full while the longer one asks."""
    builder = StateGraph(State)
    for name, node in {"short": _pass, "first": _pass, "long": _ask, "meet": _pass}.items():
        builder.add_node(name, node)
    builder.add_edge(START, "short")
    builder.add_edge(START, "first")
    builder.add_edge("first", "long")
    builder.add_edge(["short", "long"], "meet")
    return builder


def _mapped() -> Any:
    builder = StateGraph(State)
    builder.add_node("ask", _ask)
    builder.add_conditional_edges(START, lambda _: [Send("ask", {}), Send("ask", {})], ["ask"])
    return builder


def _deferred() -> Any:
    builder = StateGraph(State)
    builder.add_node("a", _pass)
    builder.add_node("late", _ask, defer=True)
    builder.add_edge(START, "a")
    builder.add_edge("a", "late")
    return builder


def _chosen() -> Any:
    builder = StateGraph(State)
    builder.add_node("a", lambda _: Command(goto="ask", update={"x": ["a"]}), destinations=("ask", END))
    builder.add_node("ask", _ask)
    builder.add_edge(START, "a")
    return builder


@pytest.mark.parametrize("make", [_joined, _mapped, _deferred, _chosen])
def test_the_pending_nodes_are_those_that_langgraph_would_execute(make: Any) -> None:
    graph, checkpoint, following = _standing(make(), {"x": ["in"]})

    assert following
    assert pending_nodes(manifest_of(graph), checkpoint) == set(following)


def test_nothing_is_pending_at_the_end() -> None:
    builder = StateGraph(State)
    builder.add_sequence([("a", _pass), ("b", _pass)])
    builder.add_edge(START, "a")
    graph, checkpoint, following = _standing(builder, {"x": ["in"], "lines": ["one"]})

    assert following == ()
    assert pending_nodes(manifest_of(graph), checkpoint) == set()
    assert stored_channels(manifest_of(graph), checkpoint) == {"x", "lines"}


def test_another_input_puts_aside_what_was_pending() -> None:
    assert [goes_on(given) for given in (None, Command(resume=1), {"x": []})] == [True, True, False]
