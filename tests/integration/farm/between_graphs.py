"""Graphs of which one worker must know what another did. Nodes and handlers write down what happened, and where."""

import json
import operator
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import CachePolicy
from typing_extensions import TypedDict


def write_down(**what: Any) -> None:
    """One line in one write, so that processes do not cut each other's."""
    line = json.dumps({"pid": os.getpid(), **what}, default=str) + "\n"
    file = os.open(Path(os.environ["BETWEEN_WORKERS_TRAIL"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@dataclass(frozen=True)
class Note:
    text: str
    at: tuple[int, int]


class State(TypedDict, total=False):
    word: str
    note: Note
    log: Annotated[list[str], operator.add]


def before(state: State) -> State:
    write_down(node="before", word=state["word"])
    return {}


def look_up(state: State) -> State:
    write_down(node="look_up", word=state["word"])
    return {"note": Note(state["word"].upper(), (1, 2)), "log": [str(os.getpid())]}


async def alook_up(state: State) -> State:
    return look_up(state)


def after(state: State) -> State:
    note = state["note"]
    return {"log": [f"{type(note).__name__} {type(note.at).__name__} {note.text}"]}


def _looked_up(node: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("before", before)
    builder.add_node("look_up", node, cache_policy=CachePolicy(ttl=600))
    builder.add_node("after", after)
    for one, next_ in ((START, "before"), ("before", "look_up"), ("look_up", "after"), ("after", END)):
        builder.add_edge(one, next_)
    return builder.compile()


cached = _looked_up(look_up)
cached_async = _looked_up(alook_up)


class Recorder(BaseCallbackHandler):
    """Lives as long as its worker."""

    run_inline = True

    def on_chain_start(self, serialized: Any, inputs: Any, **told: Any) -> None:
        write_down(what="start", **told)

    def on_chain_end(self, outputs: Any, **told: Any) -> None:
        write_down(what="end", **told)

    def on_chain_error(self, error: BaseException, **told: Any) -> None:
        write_down(what="error", **told)


async def speak(state: State) -> State:
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three")]))
    return {"log": [(await model.ainvoke("hi")).content]}  # type: ignore[list-item]  # a str


def say(state: State) -> State:
    return {"log": ["said"]}


def fail(state: State) -> State:
    raise ValueError("this node always fails")


def _line(*nodes: Any) -> Any:
    builder = StateGraph(State)
    names = [f"{node.__name__}_{i}" for i, node in enumerate(nodes)]
    for one, name, node in zip((START, *names), names, nodes, strict=False):
        builder.add_node(name, node)
        builder.add_edge(one, name)
    return builder.compile().with_config(callbacks=[Recorder()])


speaks = _line(say, speak, say, say, say, say)
fails = _line(say, say, say, fail)
