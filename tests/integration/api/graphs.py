"""Small graphs for the API's tests."""

import operator
import time
from pathlib import Path
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    path: str


def _line() -> Any:
    builder = StateGraph(Log)
    for one, next_ in ((START, "a"), ("a", "b")):
        builder.add_node(next_, lambda state, name=next_: {"log": [name]})
        builder.add_edge(one, next_)
    return builder.compile()


line = _line()


def _wait(state: Log) -> Log:
    """Says that it began, waits for a file that the test makes, and says that it ended."""
    get_stream_writer()({"at": "began"})
    deadline = time.monotonic() + 60
    while not Path(state["path"]).exists():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
    get_stream_writer()({"at": "ended"})
    return {"log": ["waited"]}


def _gate() -> Any:
    builder = StateGraph(Log)
    builder.add_node("wait", _wait)
    builder.add_edge(START, "wait")
    return builder.compile()


gate = _gate()


class Loud(TypedDict, total=False):
    events: int
    event_bytes: int


def _shout(state: Loud) -> Loud:
    tell = get_stream_writer()
    for number in range(state["events"]):
        tell({"number": number, "noise": "x" * state["event_bytes"]})
    return {"events": 0}


def _loud() -> Any:
    builder = StateGraph(Loud)
    builder.add_node("shout", _shout)
    builder.add_edge(START, "shout")
    return builder.compile()


loud = _loud()


class Chat(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    log: Annotated[list[str], operator.add]


def _answer(state: Chat) -> Chat:
    return {"messages": [AIMessage("an answer")]}


def _ask(state: Chat) -> Chat:
    return {"log": [str(interrupt("go on?"))]}


def _chat() -> Any:
    """answer → ask, which asks a human, or → end, by what was said last."""
    builder = StateGraph(Chat)
    builder.add_node("answer", _answer)
    builder.add_node("ask", _ask)
    builder.add_node("side", lambda state: {"log": ["side"]})
    builder.add_edge(START, "answer")
    builder.add_conditional_edges(
        "answer", lambda state: "ask" if "?" in state["messages"][-1].text else "side", ["ask", "side"]
    )
    return builder.compile()


chat = _chat()
