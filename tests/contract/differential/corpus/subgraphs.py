"""Graphs inside of graphs: as a node, called in a node, with a memory of their own, two and three deep, that ask."""

import operator
from typing import Annotated, Any, TypedDict, cast

from langgraph.graph import START, StateGraph
from langgraph.types import Send

from tests.contract.differential.building import Log, asks, line, says, says_later, says_line
from tests.contract.differential.scenario import MODES, AnyGraph, Run, Update, answer, resume, scenario

BEGIN = Run({"log": ["in"]})


def _around(child: Any, **options: Any) -> AnyGraph:
    return line({"before": says("before"), "child": child, "after": says("after")}, **options)


class Own(TypedDict, total=False):
    own: Annotated[list[str], operator.add]


def _own(name: str) -> Any:
    def node(state: Own) -> Own:
        return {"own": [name]}

    return node


def _called(child: AnyGraph, *, times: int = 1, later: bool = False) -> AnyGraph:
    """Called inside of a node's function, whose state is another."""

    def calls(state: Log) -> Log:
        return {"log": [child.invoke({"own": [f"call {n}"]})["own"] for n in range(times)]}

    async def calls_later(state: Log) -> Log:
        return {"log": [(await child.ainvoke({"own": [f"call {n}"]}))["own"] for n in range(times)]}

    return line({"before": says("before"), "calls": calls_later if later else calls, "after": says("after")})


def _asks_own(name: str) -> Any:
    ask = asks(name)

    def node(state: Own) -> Own:
        return {"own": ask({})["log"]}

    return node


def _diamond() -> AnyGraph:
    builder = StateGraph(Log)
    for name in ("s1", "s2", "s3", "s4"):
        builder.add_node(name, says(name))
    builder.add_edge(START, "s1")
    builder.add_edge("s1", "s2")
    builder.add_edge("s1", "s3")
    builder.add_edge(["s2", "s3"], "s4")
    return builder.compile()


def _two_children(**compile: Any) -> AnyGraph:
    builder = StateGraph(Log)
    for name in ("left", "right"):
        builder.add_node(name, line({f"{name} {n}": says(f"{name} {n}") for n in (1, 2)}, compile=compile))
        builder.add_edge(START, name)
    builder.add_node("e", says("e"))
    builder.add_edge(["left", "right"], "e")
    return builder.compile()


def _two_that_ask() -> AnyGraph:
    builder = StateGraph(Log)
    for name in ("left", "right"):
        builder.add_node(name, line({f"{name} 1": says(f"{name} 1"), f"{name} 2": asks(f"{name} 2")}))
        builder.add_edge(START, name)
    builder.add_node("e", says("e"))
    builder.add_edge(["left", "right"], "e")
    return builder.compile()


class Item(TypedDict):
    number: int
    log: Annotated[list[str], operator.add]


def _fan_of_children() -> AnyGraph:
    def one(state: Item) -> Any:
        return {"log": [f"one {state['number']}"]}

    def two(state: Item) -> Any:
        return {"log": [f"two {state['number']}"]}

    inner = StateGraph(Item)
    inner.add_node("one", one)
    inner.add_node("two", two)
    inner.add_edge(START, "one")
    inner.add_edge("one", "two")

    def split(state: Log) -> list[Send]:
        return [Send("child", {"number": number, "log": []}) for number in range(3)]

    builder = StateGraph(Log)
    builder.add_node("child", cast("Any", inner.compile()))
    builder.add_node("e", says("e"))
    builder.add_conditional_edges(START, split, ["child"])
    builder.add_edge("child", "e")
    return builder.compile()


def _deep(depth: int, inmost: AnyGraph) -> AnyGraph:
    graph = inmost
    for level in range(depth):
        graph = line({f"in {level}": says(f"in {level}"), f"sub {level}": graph, f"out {level}": says(f"out {level}")})
    return graph


_asking = line({"x": says("x"), "q": asks("q"), "y": says("y")})
_remembers = line({"x": _own("x"), "y": _own("y")}, Own, compile={"checkpointer": True})
_remembers_asking = line({"x": _own("x"), "q": _asks_own("q")}, Own, compile={"checkpointer": True})
_remembers_log = says_line("x", "y", compile={"checkpointer": True})
_forgets = line({"x": _own("x"), "y": _own("y")}, Own, compile={"checkpointer": False})

SCENARIOS = [
    scenario("child", _around(says_line("x", "y")), BEGIN, features="subgraphs"),
    scenario(
        "child_not_streamed", _around(says_line("x", "y")), Run({"log": ["in"]}, subgraphs=False), features="subgraphs"
    ),
    scenario("child_async", _around(line({"x": says_later("x"), "y": says("y")})), BEGIN, features="subgraphs async"),
    scenario("child_with_branches", _around(_diamond()), BEGIN, features="subgraphs joins", parallel=True),
    scenario(
        "child_over_two_turns", _around(says_line("x", "y")), BEGIN, Run({"log": ["more"]}), features="subgraphs turns"
    ),
    scenario("children_beside_each_other", _two_children(), BEGIN, features="subgraphs joins", parallel=True),
    scenario("children_of_a_fan_out", _fan_of_children(), BEGIN, features="subgraphs send", parallel=True),
    scenario("child_that_asks", _around(_asking), BEGIN, resume("yes"), features="subgraphs interrupts"),
    scenario(
        "child_that_asks_by_id",
        _around(_asking),
        BEGIN,
        answer({"q?": "yes"}),
        features="subgraphs interrupts resume_map",
    ),
    scenario(
        "child_that_asks_not_streamed",
        _around(_asking),
        Run({"log": []}, subgraphs=False),
        resume("yes", subgraphs=False),
        features="subgraphs interrupts",
    ),
    scenario(
        "children_that_ask_together",
        _two_that_ask(),
        BEGIN,
        answer({"left 2?": 1, "right 2?": 2}),
        features="subgraphs interrupts several_interrupts resume_map",
        parallel=True,
    ),
    scenario(
        "children_that_ask_one_by_one",
        _two_that_ask(),
        BEGIN,
        answer({"right 2?": 2}),
        answer({"left 2?": 1}),
        features="subgraphs interrupts several_interrupts resume_map",
        parallel=True,
    ),
    scenario("child_2_deep", _deep(2, says_line("x", "y")), BEGIN, features="subgraphs nested_2"),
    scenario("child_3_deep", _deep(3, says_line("x", "y")), BEGIN, features="subgraphs nested_3"),
    scenario(
        "child_2_deep_that_asks", _deep(2, _asking), BEGIN, resume("yes"), features="subgraphs nested_2 interrupts"
    ),
    scenario(
        "child_3_deep_that_asks",
        _deep(3, _asking),
        BEGIN,
        answer({"q?": "yes"}),
        features="subgraphs nested_3 interrupts resume_map",
    ),
    scenario(
        "child_that_stops",
        _around(says_line("x", "y", compile={"interrupt_before": ["y"]})),
        BEGIN,
        Run(),
        features="subgraphs breakpoints breakpoints_compiled",
    ),
    scenario(
        "child_called",
        _called(line({"x": _own("x"), "y": _own("y")}, Own)),
        BEGIN,
        features="subgraphs subgraph_called",
    ),
    scenario(
        "child_called_async",
        _called(line({"x": _own("x"), "y": _own("y")}, Own), later=True),
        BEGIN,
        features="subgraphs subgraph_called async",
    ),
    scenario("child_called_without_saving", _called(_forgets, times=2), BEGIN, features="subgraphs subgraph_called"),
    scenario(
        "child_called_that_asks",
        _called(line({"x": _own("x"), "q": _asks_own("q")}, Own)),
        BEGIN,
        resume("yes"),
        features="subgraphs subgraph_called interrupts",
    ),
    scenario(
        "child_that_remembers",
        _called(_remembers),
        BEGIN,
        Run({"log": ["more"]}),
        features="subgraphs subgraph_called subgraph_memory turns",
    ),
    scenario(
        "child_that_remembers_and_asks",
        _called(_remembers_asking),
        BEGIN,
        resume("one"),
        Run({"log": ["more"]}),
        resume("two"),
        features="subgraphs subgraph_called subgraph_memory interrupts turns",
    ),
    scenario(
        "child_node_that_remembers",
        _around(_remembers_log),
        BEGIN,
        Run({"log": ["more"]}),
        features="subgraphs subgraph_memory turns",
    ),
    scenario(
        "child_updated_while_it_asks",
        _around(_asking),
        BEGIN,
        Update({"log": ["by hand"]}),
        resume("yes"),
        features="subgraphs interrupts update_state",
    ),
    scenario(
        "child_with_tasks_and_checkpoints",
        _around(says_line("x", "y")),
        Run({"log": []}, modes=("tasks", "checkpoints", "debug")),
        features="subgraphs mode_checkpoints mode_debug",
    ),
    scenario("child_replayed", _around(says_line("x", "y")), BEGIN, Run(at=2), features="subgraphs replay"),
    scenario(
        "child_that_asks_replayed",
        _around(_asking),
        BEGIN,
        resume("yes"),
        Run(at=2),
        resume("no"),
        features="subgraphs interrupts replay",
    ),
    scenario(
        "child_all_modes",
        _around(_asking),
        Run({"log": []}, modes=(*MODES, "checkpoints", "debug")),
        resume("yes", modes=(*MODES, "checkpoints", "debug")),
        features="subgraphs interrupts mode_checkpoints mode_debug",
    ),
    scenario(
        "child_without_saving_between",
        _around(says_line("x", "y")),
        Run({"log": []}, durability="exit"),
        features="subgraphs durability_exit inline",
    ),
]
