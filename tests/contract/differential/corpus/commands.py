"""Nodes that say where to go: Command with goto, update, Send, to the parent; and commands of a client."""

from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

from tests.contract.differential.building import Log, asks, says, says_later
from tests.contract.differential.scenario import AnyGraph, Run, answer, resume, scenario


def _goto() -> AnyGraph:
    def a(state: Log) -> Command[Literal["b", "c"]]:
        return Command(goto="c" if "skip" in state["log"] else "b", update={"log": ["a"]})

    builder = StateGraph(Log)
    builder.add_node("a", a)
    builder.add_node("b", says("b"))
    builder.add_node("c", says("c"))
    builder.add_edge(START, "a")
    builder.add_edge("b", "c")
    return builder.compile()


def _goto_several() -> AnyGraph:
    async def a(state: Log) -> Command[Literal["b", "c"]]:
        return Command(goto=["b", Send("c", {"log": ["sent"]})], update={"log": ["a"]})

    def c(state: Log) -> Log:
        return {"log": [f"c after {state['log']}"]}

    builder = StateGraph(Log)
    builder.add_node("a", a)
    builder.add_node("b", says("b"))
    builder.add_node("c", c)
    builder.add_node("d", says("d"))
    builder.add_edge(START, "a")
    builder.add_edge("b", "d")
    builder.add_edge("c", "d")
    return builder.compile()


def _goto_end() -> AnyGraph:
    def a(state: Log) -> Command[Any]:
        return Command(goto=END, update=[("log", ["a"]), ("log", ["again"])])

    builder = StateGraph(Log)
    builder.add_node("a", a, destinations=("b", END))
    builder.add_node("b", says("b"))
    builder.add_edge(START, "a")
    return builder.compile()


def _several_commands() -> AnyGraph:
    def a(state: Log) -> list[Any]:
        return [Command(goto="b", update={"log": ["first"]}), {"log": ["plain"]}, Command(goto="c")]

    builder = StateGraph(Log)
    builder.add_node("a", a, destinations=("b", "c"))
    builder.add_node("b", says("b"))
    builder.add_node("c", says("c"))
    builder.add_edge(START, "a")
    return builder.compile()


def _to_parent(*, deep: bool = False, later: bool = False) -> AnyGraph:
    """A node of a subgraph sends its parent elsewhere."""

    def leave(state: Log) -> Command[Any]:
        return Command(graph=Command.PARENT, goto="after", update={"log": ["left"]})

    async def leave_later(state: Log) -> Command[Any]:
        return leave(state)

    inner = StateGraph(Log)
    inner.add_node("x", says("x"))
    inner.add_node("leave", leave_later if later else leave)
    inner.add_node("never", says("never"))
    inner.add_edge(START, "x")
    inner.add_edge("x", "leave")
    inner.add_edge("leave", "never")
    child = inner.compile()
    if deep:
        middle = StateGraph(Log)
        middle.add_node("child", child)
        middle.add_node("after", says("middle after"))
        middle.add_edge(START, "child")
        child = middle.compile()
    builder = StateGraph(Log)
    builder.add_node("a", says_later("a") if later else says("a"))
    builder.add_node("child", child, destinations=("after",))
    builder.add_node("after", says("after"))
    builder.add_edge(START, "a")
    builder.add_edge("a", "child")
    return builder.compile()


def _hops() -> AnyGraph:
    """Two nodes that hand over to each other until one has had enough."""

    def hop(name: str, other: str) -> Any:
        def node(state: Log) -> Command[Any]:
            return Command(goto=END if len(state["log"]) > 5 else other, update={"log": [name]})

        return node

    builder = StateGraph(Log)
    builder.add_node("ping", hop("ping", "pong"), destinations=("pong", END))
    builder.add_node("pong", hop("pong", "ping"), destinations=("ping", END))
    builder.add_edge(START, "ping")
    return builder.compile()


def _asks_then() -> AnyGraph:
    builder = StateGraph(Log)
    for name, node in {"a": says("a"), "q": asks("q"), "b": says("b"), "c": says("c")}.items():
        builder.add_node(name, node)
    builder.add_edge(START, "a")
    builder.add_edge("a", "q")
    builder.add_edge("q", "b")
    return builder.compile()


NOTHING_SAID = {"log": []}

SCENARIOS = [
    scenario("goto", _goto(), Run(NOTHING_SAID), Run({"log": ["skip"]}), features="command turns"),
    scenario("goto_several", _goto_several(), Run({"log": ["in"]}), features="command send async", parallel=True),
    scenario("goto_end", _goto_end(), Run(NOTHING_SAID), features="command"),
    scenario("several_commands", _several_commands(), Run(NOTHING_SAID), features="command", parallel=True),
    scenario("to_parent", _to_parent(), Run(NOTHING_SAID), features="command subgraphs command_parent"),
    scenario("to_parent_async", _to_parent(later=True), Run(NOTHING_SAID), features="command_parent subgraphs async"),
    scenario("to_parent_deep", _to_parent(deep=True), Run(NOTHING_SAID), features="command_parent subgraphs nested_2"),
    scenario("hops", _hops(), Run(NOTHING_SAID), features="command loops"),
    scenario(
        "client_goes_elsewhere",
        _asks_then(),
        Run(NOTHING_SAID),
        Run(goto="c"),
        features="command_of_client command interrupts",
        parallel=True,
    ),
    scenario(
        "client_updates_and_resumes",
        _asks_then(),
        Run(NOTHING_SAID),
        resume("yes", update={"log": ["told"]}),
        features="command_of_client interrupts",
    ),
    scenario(
        "client_resumes_and_goes",
        _asks_then(),
        Run(NOTHING_SAID),
        answer({"q?": "yes"}, goto="c"),
        features="command_of_client interrupts",
        parallel=True,
    ),
    scenario(
        "client_sends",
        _asks_then(),
        Run(NOTHING_SAID),
        Run(goto=[{"node": "b", "input": {"log": ["own"]}}, "c"], update={"log": ["told"]}),
        features="command_of_client send",
        parallel=True,
    ),
    scenario(
        "client_updates_alone",
        _asks_then(),
        Run(NOTHING_SAID),
        Run(update={"log": ["told"]}),
        features="command_of_client",
    ),
    scenario(
        "client_begins_with_a_command",
        _asks_then(),
        Run(goto="c", update={"log": ["x"]}),
        features="command_of_client",
        parallel=True,
    ),
]
