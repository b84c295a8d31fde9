"""Small graphs with known answers: one for each way in which a run can be cut into messages.

Every variable is a compiled graph that a langgraph.json can name ("agentfarm.testing.graphs:diamond"). Nodes write
their names into `log`; none keeps anything between two calls, so that any worker can execute any of them.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, cast

from langgraph.channels.untracked_value import UntrackedValue
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.pregel import Pregel
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy, Send, interrupt

AnyGraph = Pregel[Any, Any, Any, Any]


class State(TypedDict, total=False):
    """log: which nodes ran, in the order in which LangGraph applied them."""

    log: Annotated[list[str], operator.add]


class Item(TypedDict):
    """What a Send brings."""

    number: int


class Flaked(Exception):
    """What the flaky node raises in its first attempts."""


def _writes(name: str) -> Any:
    def node(state: State) -> State:
        return {"log": [name]}

    return node


def _writes_later(name: str) -> Any:
    async def node(state: State) -> State:
        return {"log": [name]}

    return node


def _asks(name: str) -> Any:
    def node(state: State) -> State:
        return {"log": [f"{name}:{interrupt(name + '?')}"]}

    return node


def _line(nodes: Mapping[str, Any], **options: Any) -> AnyGraph:
    builder = StateGraph(State)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node, **options)
        builder.add_edge(before, name)
        before = name
    return builder.compile()


def _diamond() -> AnyGraph:
    builder = StateGraph(State)
    for name in ("a", "b", "c", "d", "e"):
        builder.add_node(name, _writes(name))
    builder.add_edge(START, "a")
    for name in ("b", "c", "d"):
        builder.add_edge("a", name)
    builder.add_edge(["b", "c", "d"], "e")
    return builder.compile()


def _fan_out(width: int) -> AnyGraph:
    def split(state: State) -> list[Send]:
        return [Send("item", {"number": number}) for number in range(width)]

    def item(sent: Item) -> State:
        return {"log": [f"item {sent['number']}"]}

    builder = StateGraph(State)
    builder.add_node("a", _writes("a"))
    builder.add_node("item", cast("Any", item), input_schema=Item)
    builder.add_node("e", _writes("e"))
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", split, ["item"])
    builder.add_edge("item", "e")
    return builder.compile()


def _questions() -> AnyGraph:
    builder = StateGraph(State)
    for name, node in {"a": _writes("a"), "q1": _asks("q1"), "q2": _asks("q2"), "n": _writes("n")}.items():
        builder.add_node(name, node)
    builder.add_node("e", _writes("e"))
    builder.add_edge(START, "a")
    for name in ("q1", "q2", "n"):
        builder.add_edge("a", name)
    builder.add_edge(["q1", "q2", "n"], "e")
    return builder.compile()


def _nested() -> AnyGraph:
    inner = StateGraph(State)
    for name in ("s1", "s2", "s3", "s4"):
        inner.add_node(name, _writes(name))
    inner.add_edge(START, "s1")
    inner.add_edge("s1", "s2")
    inner.add_edge("s1", "s3")
    inner.add_edge(["s2", "s3"], "s4")

    def says_nothing(state: State) -> State:
        return {"log": []}

    builder = StateGraph(State)
    builder.add_node("a", says_nothing)
    builder.add_node("sub", inner.compile())
    builder.add_node("e", _writes("e"))
    builder.add_edge(START, "a")
    builder.add_edge("a", "sub")
    builder.add_edge("sub", "e")
    return builder.compile()


def _flaky_node(state: State, runtime: Runtime[None]) -> State:
    """Succeeds in its third attempt."""
    info = runtime.execution_info
    if info is None or info.node_attempt < 3:
        raise Flaked
    return {"log": [f"flaky in attempt {info.node_attempt}"]}


_NO_WAIT = RetryPolicy(max_attempts=3, initial_interval=0.0, jitter=False, retry_on=Flaked)


@task
def _square(number: int) -> int:
    return number * number


@entrypoint()
def squares(numbers: list[int]) -> list[int]:
    """Functional API: the entrypoint is one node, its tasks run inside of it."""
    return [future.result() for future in [_square(number) for number in numbers]]


line = _line({name: _writes(name) for name in "abc"})
async_line = _line({name: _writes_later(name) for name in "abc"})
diamond = _diamond()
fan_out = _fan_out(4)
questions = _questions()
nested = _nested()
flaky = _line({"a": _writes("a"), "flaky": _flaky_node}, retry_policy=_NO_WAIT)


class Untracked(State, total=False):
    """count, side: in no checkpoint; see engine/untracked.py"""

    count: Annotated[int, UntrackedValue]
    side: Annotated[str, UntrackedValue(str, guard=False)]


def _counts(name: str) -> Any:
    def node(state: Untracked) -> Untracked:
        count = state.get("count", 0) + 1
        return {"log": [f"{name} {count}"], "count": count}

    return node


def _untracked() -> AnyGraph:
    def takes_a_side(side: str) -> Any:
        return lambda state: {"log": [f"{side} {state['count']}"], "side": side}

    builder = StateGraph(Untracked)
    builder.add_sequence([("a", _counts("a")), ("b", _counts("b"))])
    builder.add_edge(START, "a")
    for side in ("left", "right"):
        builder.add_node(side, takes_a_side(side))
        builder.add_edge("b", side)
    builder.add_node("c", lambda state: {"log": [f"c {state['side']} {state['count']}"]})
    builder.add_edge(["left", "right"], "c")
    return builder.compile()


untracked = _untracked()


@dataclass(frozen=True, slots=True)
class Known:
    """A graph, what to put in, and what comes out.

    answers  what each interrupt gets, by the question it asks; then the run goes on to `output`
    """

    graph: AnyGraph
    input: Any
    output: Any
    answers: Mapping[str, str] | None = None


KNOWN: Mapping[str, Known] = {
    "line": Known(line, {"log": ["in"]}, {"log": ["in", "a", "b", "c"]}),
    "async_line": Known(async_line, {"log": ["in"]}, {"log": ["in", "a", "b", "c"]}),
    "diamond": Known(diamond, {"log": ["in"]}, {"log": ["in", "a", "b", "c", "d", "e"]}),
    "fan_out": Known(fan_out, {"log": []}, {"log": ["a", "item 0", "item 1", "item 2", "item 3", "e"]}),
    "questions": Known(
        questions, {"log": []}, {"log": ["a", "n", "q1:yes", "q2:no", "e"]}, answers={"q1?": "yes", "q2?": "no"}
    ),
    "nested": Known(nested, {"log": []}, {"log": ["s1", "s2", "s3", "s4", "e"]}),
    "flaky": Known(flaky, {"log": []}, {"log": ["a", "flaky in attempt 3"]}),
    "untracked": Known(untracked, {"log": []}, {"log": ["a 1", "b 2", "left 2", "right 2", "c right 2"]}),
    "squares": Known(squares, [1, 2, 3], [1, 4, 9]),
}
