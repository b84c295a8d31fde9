"""The graphs of the golden files. Never change one: add another, and write new files for it (write_golden.py).

A file of an older build must be read and continued by each later one; a graph that changed would test something else.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel

from agentfarm.persistence.serde import types_of


class Mood(Enum):
    CALM = "calm"


class Offer(BaseModel):
    price: int
    tags: tuple[str, ...] = ()


@dataclass
class Visit:
    at: datetime
    offer: Offer


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    seen: Annotated[list[Any], operator.add]
    visits: dict[Mood, Visit]
    big: str


VISIT = Visit(datetime(2026, 1, 2, 3, 4, tzinfo=UTC), Offer(price=3, tags=("a", "b")))
BEGIN: State = {"messages": [HumanMessage("hello", id="h1")], "big": "x" * 1000}


def asking() -> Any:
    """Stops at a question, with values of many kinds in its state."""

    def look(state: State) -> Any:
        return {"visits": {Mood.CALM: VISIT}, "messages": [AIMessage("hm", id="a1")], "seen": [("look", {1, 2})]}

    def ask(state: State) -> Any:
        return {"seen": [interrupt({"offer": state["visits"][Mood.CALM].offer})]}

    def close(state: State) -> Any:
        return {"seen": [state["visits"][Mood.CALM] == VISIT, len(state["messages"])]}

    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("look", look).add_node("ask", ask).add_node("close", close)
    builder.add_edge(START, "look").add_edge("look", "ask").add_edge("ask", "close").add_edge("close", END)
    return builder.compile()


class StocksState(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    seen: Annotated[list[Any], operator.add]
    visits: list[Visit]


def asking_of_stock() -> Any:
    """Stops at a question, with values that stock's serializer keeps."""

    def look(state: StocksState) -> Any:
        return {"visits": [VISIT], "messages": [AIMessage("hm", id="a1")], "seen": [{1, 2}]}

    def ask(state: StocksState) -> Any:
        return {"seen": [interrupt({"price": state["visits"][0].offer.price})]}

    def close(state: StocksState) -> Any:
        return {"seen": [state["visits"][0].at == VISIT.at, len(state["messages"])]}

    builder: StateGraph[Any] = StateGraph(StocksState)
    builder.add_node("look", look).add_node("ask", ask).add_node("close", close)
    builder.add_edge(START, "look").add_edge("look", "ask").add_edge("ask", "close").add_edge("close", END)
    return builder.compile()


def stocks_serde(graph: Any) -> JsonPlusSerializer:
    """As who runs the graph at stock LangGraph would have set it up."""
    return JsonPlusSerializer(allowed_msgpack_modules=[(c.__module__, c.__name__) for c in types_of(graph)])


def fanning() -> Any:
    """Three nodes by Send; the file is written when one of them has finished."""

    def worker(arg: dict[str, Any]) -> Any:
        return {"seen": [arg["offer"].price * 10]}

    def split(_: State) -> list[Send]:
        return [Send("worker", {"offer": Offer(price=n)}) for n in (1, 2, 3)]

    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("begin", lambda state: {"seen": ["begin"]}).add_node("worker", worker)
    builder.add_node("join", lambda state: {"seen": [sum(n for n in state["seen"] if isinstance(n, int))]})
    builder.add_edge(START, "begin").add_conditional_edges("begin", split, ["worker"]).add_edge("worker", "join")
    return builder.compile()


def working() -> Any:
    """A workflow that asks between two tasks: the first one's result is stored."""

    @task
    def price(n: int) -> Offer:
        return Offer(price=n, tags=("made",))

    @entrypoint()
    def workflow(n: int) -> Any:
        offer = price(n).result()
        answer = interrupt("buy?")
        return {"offer": offer, "answer": answer}

    return workflow


def nesting() -> Any:
    """The question is asked by a node of a subgraph."""
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("child", asking()).add_node("end", lambda state: {"seen": ["end"]})
    builder.add_edge(START, "child").add_edge("child", "end")
    return builder.compile()


@dataclass(frozen=True)
class Golden:
    """messages  after how many messages the file is written; None: when the run has ended, which asked something
    ends      what the thread holds when it has gone on to its end
    """

    graph: Callable[[], Any]
    input: Any
    ends: Callable[[Any], Any]
    expected: Any
    messages: int | None = None
    answer: Any = None


def _seen(values: Any) -> Any:
    return values["seen"]


GOLDEN: dict[str, Golden] = {
    "asking": Golden(asking, BEGIN, _seen, [("look", {1, 2}), "yes", True, 2], answer=Command(resume="yes")),
    "fanning": Golden(fanning, BEGIN, _seen, ["begin", 10, 20, 30, 60], messages=2),
    "working": Golden(
        working, 4, lambda v: v, {"offer": Offer(price=4, tags=("made",)), "answer": "so"}, answer=Command(resume="so")
    ),
    "nesting": Golden(nesting, BEGIN, _seen, [("look", {1, 2}), "yes", True, 2, "end"], answer=Command(resume="yes")),
}


# --------------------------------------------------------------------------- the store


def letters(texts: Sequence[str]) -> list[list[float]]:
    """A text as how often it has each of a, b, c, d."""
    return [[float(text.count(letter)) for letter in "abcd"] for text in texts]


#: Minutes. Items that are to be there when the file is read, and one that is not.
CENTURIES, ONE_MINUTE = 500_000_000.0, 1.0

#: key: (value, ttl)
ITEMS: dict[str, tuple[dict[str, Any], float | None]] = {
    "kept": ({"text": "aab", "n": [1, 2**70, -0.5, 1e300], "in": {"ключ": [None, True, {}]}}, None),
    "timed": ({"text": "ccd"}, CENTURIES),
    "over": ({"text": "aab"}, ONE_MINUTE),
}
