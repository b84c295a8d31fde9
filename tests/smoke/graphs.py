"""A line of nodes, one of which waits until the test lets it go."""

import operator
import os
import time
from pathlib import Path
from typing import Annotated

from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

#: After this a node that nobody released gives up: the test has failed long before.
GATE_SECONDS = 120


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def first(state: Log) -> Log:
    return {"log": ["first"]}


def gate(state: Log) -> Log:
    """Notes who executes it, and waits for the test."""
    folder = Path(os.environ["SMOKE_FOLDER"])
    with (folder / "executed").open("a") as trail:
        trail.write(f"{os.getpid()}\n")
    end = time.monotonic() + GATE_SECONDS
    while not (folder / "released").exists():
        if time.monotonic() > end:
            raise TimeoutError("nobody released the gate")
        time.sleep(0.02)
    return {"log": ["gate"]}


def last(state: Log) -> Log:
    return {"log": ["last"]}


def _line() -> StateGraph[Log]:
    builder = StateGraph(Log)
    for node in (first, gate, last):
        builder.add_node(node.__name__, node)
    builder.add_edge(START, "first")
    builder.add_edge("first", "gate")
    builder.add_edge("gate", "last")
    return builder


line = _line().compile()
