"""How nodes follow each other: lines, joins, branches, loops, fan-outs, commands."""

import operator
from typing import Annotated, Any, Literal, TypedDict, cast

from langgraph.graph import START, StateGraph
from langgraph.types import Send

from tests.contract.differential.building import Log, line, says, says_later, says_line
from tests.contract.differential.scenario import AnyGraph, Run, scenario

START_WITH = {"log": ["in"]}


def _diamond(*, later: bool = False, defer: bool = False) -> AnyGraph:
    builder = StateGraph(Log)
    for name in ("a", "b", "c", "d", "e"):
        builder.add_node(name, says_later(name) if later and name in "bd" else says(name), defer=defer and name == "e")
    builder.add_edge(START, "a")
    for name in ("b", "c"):
        builder.add_edge("a", name)
    builder.add_edge("c", "d")
    if defer:
        builder.add_edge("b", "e")
        builder.add_edge("d", "e")
    else:
        builder.add_edge(["b", "d"], "e")
    return builder.compile()


class Count(TypedDict, total=False):
    count: int
    log: Annotated[list[Any], operator.add]


def _loop(rounds: int) -> AnyGraph:
    def more(state: Count) -> Count:
        return {"count": state.get("count", 0) + 1, "log": [state.get("count", 0)]}

    def again(state: Count) -> Literal["more", "end"]:
        return "more" if state["count"] < rounds else "end"

    builder = StateGraph(Count)
    builder.add_node("more", more)
    builder.add_node("end", says("end"))
    builder.add_edge(START, "more")
    builder.add_conditional_edges("more", again)
    return builder.compile()


def _branch() -> AnyGraph:
    def which(state: Log) -> str:
        return "left" if "left" in state["log"] else "right"

    builder = StateGraph(Log)
    for name in ("a", "l", "r"):
        builder.add_node(name, says(name))
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", which, {"left": "l", "right": "r"})
    return builder.compile()


class Item(TypedDict):
    number: int


def _fan_out(width: int, *, later: bool = False, from_start: bool = False) -> AnyGraph:
    def split(state: Log) -> list[Send]:
        return [Send("item", {"number": number}) for number in range(width)]

    def item(sent: Item) -> Log:
        return {"log": [f"item {sent['number']}"]}

    async def item_later(sent: Item) -> Log:
        return item(sent)

    builder = StateGraph(Log)
    builder.add_node("a", says("a"))
    builder.add_node("item", cast("Any", item_later if later else item), input_schema=Item)
    builder.add_node("e", says("e"))
    builder.add_conditional_edges(START if from_start else "a", split, ["item"])
    if not from_start:
        builder.add_edge(START, "a")
    builder.add_edge("item", "e")
    return builder.compile()


SCENARIOS = [
    scenario("line", says_line("a", "b", "c"), Run(START_WITH), features="edges"),
    scenario("line_async", line({n: says_later(n) for n in "abc"}), Run(START_WITH), features="edges async"),
    scenario(
        "line_mixed",
        line({"a": says("a"), "b": says_later("b"), "c": says("c")}),
        Run(START_WITH),
        features="edges async sync_and_async",
    ),
    scenario(
        "line_of_two_turns", says_line("a", "b"), Run(START_WITH), Run({"log": ["again"]}), features="edges turns"
    ),
    scenario("diamond", _diamond(), Run(START_WITH), features="joins", parallel=True),
    scenario(
        "diamond_mixed", _diamond(later=True), Run(START_WITH), features="joins async sync_and_async", parallel=True
    ),
    scenario("diamond_deferred", _diamond(defer=True), Run(START_WITH), features="deferred", parallel=True),
    scenario("loop", _loop(5), Run({"log": ["in"]}), features="conditional_edges loops"),
    scenario("branch", _branch(), Run({"log": ["left"]}), Run({"log": ["now"]}), features="conditional_edges turns"),
    scenario("fan_out_of_3", _fan_out(3), Run(START_WITH), features="send", parallel=True),
    scenario("fan_out_of_100", _fan_out(100), Run(START_WITH), features="send", parallel=True),
    scenario("fan_out_async", _fan_out(5, later=True), Run(START_WITH), features="send async", parallel=True),
    scenario("fan_out_at_once", _fan_out(4, from_start=True), Run(START_WITH), features="send", parallel=True),
]
