"""Graphs of which every message is known: their nodes do next to nothing, so that what is counted is the farm's."""

import operator
import random
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels import DeltaChannel
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph, add_messages
from langgraph.types import Send

#: What a fan-out is made of.
WIDTH = 4


class State(TypedDict, total=False):
    """ballast: a part of the state that no node touches."""

    log: Annotated[list[str], operator.add]
    ballast: str


class Item(TypedDict):
    number: int


class Told(TypedDict, total=False):
    tokens: int
    told: int


def add_all(messages: Any, writes: Sequence[Any]) -> Any:
    return reduce(add_messages, writes, messages or [])


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class DeltaChat(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(add_all)]


def ballast(size_bytes: int) -> str:
    """Text that Postgres cannot compress."""
    return random.Random(size_bytes).randbytes(size_bytes // 2).hex()


def _writes(name: str) -> Callable[[State], State]:
    return lambda state: {"log": [name]}


def _line() -> Any:
    builder = StateGraph(State)
    builder.add_sequence([(name, _writes(name)) for name in "abc"])
    builder.add_edge(START, "a")
    return builder.compile()


def _fan_out() -> Any:
    def item(sent: Item) -> State:
        return {"log": [f"item {sent['number']}"]}

    builder = StateGraph(State)
    builder.add_node("a", _writes("a"))
    builder.add_node("item", item, input_schema=Item)  # type: ignore[arg-type]  # of its Send's type
    builder.add_node("e", _writes("e"))
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: [Send("item", Item(number=n)) for n in range(WIDTH)], ["item"])
    builder.add_edge("item", "e")
    return builder.compile()


def _chat(schema: Any) -> Any:
    builder = StateGraph(schema)
    builder.add_node("answer", lambda state: {"messages": [AIMessage("I hear you.")]})
    builder.add_edge(START, "answer")
    return builder.compile()


#: Called by `speaker` after each of its tokens. A test that watches tokens leave puts its own here.
after_token: Callable[[int], None] = lambda number: None  # noqa: E731  a slot, not a function of ours


def _speak(state: Told) -> Told:
    tell = get_stream_writer()
    for number in range(state["tokens"]):
        tell({"token": number})
        after_token(number)
    return {"told": state["tokens"]}


def _speaker() -> Any:
    builder = StateGraph(Told)
    builder.add_node("speak", _speak)
    builder.add_edge(START, "speak")
    return builder.compile()


line = _line()
fan_out = _fan_out()
chat = _chat(Chat)
delta_chat = _chat(DeltaChat)
speaker = _speaker()
