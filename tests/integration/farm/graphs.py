"""Small graphs with known answers, for the farm's tests."""

import operator
import time
from typing import Annotated, Any

from langgraph.channels.untracked_value import UntrackedValue
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from typing_extensions import TypedDict


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def _say(name: str) -> Any:
    def node(state: Log) -> Log:
        return {"log": [name]}

    return node


def _line(schema: type, *names: str) -> Any:
    builder = StateGraph(schema)
    for name in names:
        builder.add_node(name, _say(name))
    for one, next_ in zip((START, *names), (*names, END), strict=False):
        builder.add_edge(one, next_)
    return builder.compile()


line = _line(Log, "a", "b", "c")


def _fail(state: Log) -> Log:
    raise ValueError("this node always fails")


def _failing() -> Any:
    builder = StateGraph(Log)
    builder.add_node("good", _say("good"))
    builder.add_node("bad", _fail)
    builder.add_edge(START, "good")
    builder.add_edge("good", "bad")
    return builder.compile()


failing = _failing()


async def _async_say(state: Log) -> Log:
    get_stream_writer()({"at": "custom"})
    return {"log": ["async"]}


def _async_line() -> Any:
    builder = StateGraph(Log)
    builder.add_node("async", _async_say)
    builder.add_node("sync", _say("sync"))
    builder.add_edge(START, "async")
    builder.add_edge("async", "sync")
    return builder.compile()


async_line = _async_line()


def _ask(name: str) -> Any:
    def node(state: Log) -> Log:
        return {"log": [f"{name}: {interrupt({'question': name})}"]}

    return node


def _two_questions() -> Any:
    builder = StateGraph(Log)
    for name in ("left", "right"):
        builder.add_node(name, _ask(name))
        builder.add_edge(START, name)
        builder.add_edge(name, "end")
    builder.add_node("end", _say("end"))
    return builder.compile()


two_questions = _two_questions()


class Untracked(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    scratch: Annotated[str, UntrackedValue]


def _see(name: str) -> Any:
    def see(state: Untracked) -> Untracked:
        seen = state.get("scratch")
        return {"log": [f"{name} saw {seen}"], "scratch": (seen or "") + name}

    return see


def _untracked() -> Any:
    builder = StateGraph(Untracked)
    builder.add_sequence([("a", _see("a")), ("b", _see("b"))])
    builder.add_edge(START, "a")
    return builder.compile()


untracked = _untracked()


def _parent() -> Any:
    builder = StateGraph(Log)
    builder.add_node("before", _say("before"))
    builder.add_node("child", _line(Log, "x", "y"))
    builder.add_edge(START, "before")
    builder.add_edge("before", "child")
    return builder.compile()


parent = _parent()


class Wide(TypedDict, total=False):
    """seconds, fails, asks: what its items do, by their numbers"""

    width: int
    seconds: dict[str, float]
    fails: list[int]
    asks: list[int]
    log: Annotated[list[str], operator.add]


class Item(TypedDict):
    number: int
    seconds: float
    fails: bool
    asks: bool


def _split(state: Wide) -> list[Send]:
    every, of = state.get("seconds", {}).get("every", 0.0), state.get("seconds", {})
    return [
        Send(
            "item",
            Item(
                number=n,
                seconds=of.get(str(n), every),
                fails=n in state.get("fails", ()),
                asks=n in state.get("asks", ()),
            ),
        )
        for n in range(state["width"])
    ]


def _item(sent: Item) -> Wide:
    time.sleep(sent["seconds"])
    if sent["fails"]:
        raise ValueError("this item fails")
    answer = interrupt({"question": sent["number"]}) if sent["asks"] else "done"
    return {"log": [f"{sent['number']} {answer}"]}


def _wide() -> Any:
    builder = StateGraph(Wide)
    builder.add_node("begin", lambda state: {})
    builder.add_node("item", _item, input_schema=Item)  # type: ignore[call-overload]  # langgraph wants the graph's own state
    builder.add_node("end", lambda state: {"log": ["end"]})
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", _split, ["item"])
    builder.add_edge("item", "end")
    return builder.compile()


wide = _wide()
