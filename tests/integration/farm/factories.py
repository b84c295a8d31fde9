"""Graphs that are made for each request. Each writes down when it is opened and closed, where its config says so."""

import contextlib
import operator
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph_sdk.runtime import ServerRuntime
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.integration.farm.policy_graphs import hang_once


@contextlib.contextmanager
def _journal(config: RunnableConfig, runtime: Any) -> Iterator[None]:
    """Lines of {access context} {open|closed|the error it was left with} {pid}, in the file that the config names."""
    path = config["configurable"].get("journal")

    def say(word: str) -> None:
        if path is not None:
            with Path(path).open("a") as file:
                file.write(f"{runtime.access_context} {word} {os.getpid()}\n")

    say("open")
    try:
        yield
    except BaseException as error:
        say(type(error).__name__)
        raise
    say("closed")


def _graph(config: RunnableConfig, runtime: Any) -> Any:
    """first → second, both told by the factory for whom they are; the item in between is of a class made here."""
    told = config["configurable"]

    class Item(BaseModel):
        word: str

    class State(TypedDict, total=False):
        hangs_in: str
        fails: bool
        item: Item
        log: Annotated[list[str], operator.add]

    def first(state: State) -> State:
        return {"item": Item(word=told.get("word", "none")), "log": [f"first for {runtime.user.identity}"]}

    def second(state: State) -> State:
        if folder := state.get("hangs_in"):
            hang_once(folder, "second")
        if state.get("fails"):
            raise ValueError("this node always fails")
        kind = "an Item" if isinstance(state["item"], Item) else type(state["item"]).__name__
        return {"log": [f"second got {kind}: {state['item'].word}"]}

    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("second", second)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    if extra := told.get("extra_node"):
        builder.add_node(extra, lambda state: {"log": [extra]})
        builder.add_edge("second", extra)
    return builder


@contextlib.contextmanager
def sync_factory(config: RunnableConfig, runtime: ServerRuntime) -> Iterator[Any]:
    with _journal(config, runtime):
        yield _graph(config, runtime).compile()


@contextlib.asynccontextmanager
async def async_factory(config: RunnableConfig, runtime: ServerRuntime) -> AsyncIterator[Any]:
    with _journal(config, runtime):
        yield _graph(config, runtime)


def choosy_factory(config: RunnableConfig, runtime: ServerRuntime) -> Any:
    """Needs a word to look at it, and a good one to execute it."""
    word = config["configurable"]["word"]
    if runtime.execution_runtime is not None and word != "good":
        raise LookupError(f"no tools for {word}")
    return _graph(config, runtime)
