"""Graphs whose answers are known: what stock LangGraph makes of the same inputs, one run after the other.

Each node writes a line into a ledger outside of every database when it begins (`Entry`), so that one can count how
often it was executed, whatever became of its writes.
"""

import asyncio
import operator
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy, Send, interrupt
from typing_extensions import TypedDict

#: A folder. Without it (the oracle) nothing is written, and nothing fails or waits on purpose.
LEDGER = "AGENTFARM_CHAOS_LEDGER"

#: How long a node works: long enough to be killed in, short enough that a run is over in a second or two.
NODE_SECONDS = 0.06

TOKENS = 12
ITEMS = 5
MORE_ITEMS = 6
AT_ONCE = 2


class State(TypedDict, total=False):
    """`asked` is the run's own words; they are in everything that its nodes say."""

    asked: str
    log: Annotated[list[str], operator.add]
    total: int


# --------------------------------------------------------------------------- the ledger


@dataclass(frozen=True, slots=True)
class Entry:
    """One execution of a node that has begun. began: on the monotonic clock, which no fault moves and all share."""

    run_id: str
    execution_id: str
    node: str
    pid: int
    began: float


def enter(config: RunnableConfig) -> int:
    """Write the line, and answer how often this run has begun this node by now. 1 for the oracle."""
    folder = os.environ.get(LEDGER)
    if folder is None:
        return 1
    configurable = config["configurable"]
    place = configurable["checkpoint_ns"].split("|")[0]  # the node of the graph itself, also from within a subgraph
    node, _, execution_id = place.partition(":")
    run = Path(folder) / configurable["run_id"]
    # One write of less than a page to a file opened for appending: whole or not there, whoever is killed.
    with run.open("ab", buffering=0) as lines:
        lines.write(f"{execution_id} {node} {os.getpid()} {time.monotonic()}\n".encode())
    return sum(entry.execution_id == execution_id for entry in _read(run))


def read_ledger(folder: Path) -> list[Entry]:
    return [entry for run in sorted(folder.iterdir()) for entry in _read(run)]


def _read(run: Path) -> Iterator[Entry]:
    for line in run.read_text(encoding="ascii").splitlines():
        execution_id, node, pid, began = line.split(" ")
        yield Entry(run.name, execution_id, node, int(pid), float(began))


def _work() -> None:
    if LEDGER in os.environ:
        time.sleep(NODE_SECONDS)


# --------------------------------------------------------------------------- the graphs


def _say(name: str) -> Any:
    def node(state: State, config: RunnableConfig) -> State:
        enter(config)
        _work()
        return {"log": [f"{name} {state['asked']}"], "total": state.get("total", 0) * 2 + 1}

    return node


def _line(*names: str, queues: dict[str, str] | None = None) -> Any:
    builder = StateGraph(State)
    for name in names:
        queue = (queues or {}).get(name)
        builder.add_node(name, _say(name), metadata={"queue": queue} if queue else None)
    for one, other in zip((START, *names), (*names, END), strict=True):
        builder.add_edge(one, other)
    return builder


chain = _line("a", "b", "c", "d", "e", queues={"c": "cpu"}).compile()


def _item(state: dict[str, Any], config: RunnableConfig) -> State:
    enter(config)
    _work()
    return {"log": [f"item {state['number']} {state['asked']}"]}


def _fan_out(items: int) -> Any:
    def spread(state: State) -> list[Send]:
        return [Send("item", {"number": number, "asked": state["asked"]}) for number in range(items)]

    builder = StateGraph(State)
    builder.add_node("plan", _say("plan"))
    builder.add_node("item", _item)
    builder.add_node("join", _say("join"))
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", spread, ["item"])
    builder.add_edge("item", "join")
    return builder.compile()


fan_out = _fan_out(ITEMS)

#: Of which `CONFIG` lets so many be executed at a time.
narrow = _fan_out(MORE_ITEMS)


def _ask(state: State, config: RunnableConfig) -> State:
    enter(config)
    answer = interrupt({"question": state["asked"]})
    return {"log": [f"told {answer}"]}


def _approval() -> Any:
    builder = StateGraph(State)
    builder.add_sequence([("before", _say("before")), ("ask", _ask), ("after", _say("after"))])
    builder.add_edge(START, "before")
    return builder.compile()


approval = _approval()


class Inner(TypedDict, total=False):
    asked: str
    words: Annotated[list[str], operator.add]


def _inner(name: str) -> Any:
    def node(state: Inner, config: RunnableConfig) -> Inner:
        if name == "x":
            enter(config)
        _work()
        return {"words": [f"{name} {state['asked']}"]}

    return node


class Outer(State, total=False):
    words: list[str]


def _parent() -> Any:
    child = StateGraph(Inner)
    child.add_sequence([("x", _inner("x")), ("y", _inner("y"))])
    child.add_edge(START, "x")
    builder = StateGraph(Outer)
    builder.add_node("before", _say("before"))
    builder.add_node("child", child.compile())
    builder.add_node("after", _say("after"))
    builder.add_edge(START, "before")
    builder.add_edge("before", "child")
    builder.add_edge("child", "after")
    return builder.compile()


parent = _parent()


async def _speak(state: State, config: RunnableConfig) -> State:
    enter(config)
    write = get_stream_writer()
    for number in range(TOKENS):
        write({"token": number, "of": state["asked"]})
        await asyncio.sleep(0.03 if LEDGER in os.environ else 0)
    return {"log": [f"spoke {state['asked']}"]}


def _chat() -> Any:
    builder = StateGraph(State)
    builder.add_node("listen", _say("listen"))
    builder.add_node("speak", _speak)
    builder.add_edge(START, "listen")
    builder.add_edge("listen", "speak")
    return builder.compile()


chat = _chat()


class NotYet(Exception):
    """What the flaky node fails with before its third execution."""


def _try(state: State, config: RunnableConfig) -> State:
    times = enter(config)
    if LEDGER in os.environ and times < 3:
        raise NotYet
    return {"log": [f"at last {state['asked']}"]}


def _flaky(seconds: float) -> Any:
    builder = StateGraph(State)
    policy = RetryPolicy(initial_interval=seconds, backoff_factor=1.0, jitter=False, max_attempts=3, retry_on=NotYet)
    builder.add_node("try", _try, retry_policy=policy)
    builder.add_node("rest", _say("rest"))
    builder.add_edge(START, "try")
    builder.add_edge("try", "rest")
    return builder.compile()


#: Whether a try is slept for by the worker that has the node, or comes by a message later: shorter and longer than
#: AGENTFARM_RETRY_MESSAGE_SECONDS in run.py.
flaky = _flaky(0.1)
patient = _flaky(0.7)

GRAPHS = {
    "chain": chain,
    "fan_out": fan_out,
    "narrow": narrow,
    "approval": approval,
    "parent": parent,
    "chat": chat,
    "flaky": flaky,
    "patient": patient,
}

#: What a run of it is asked for with.
CONFIG: Mapping[str, Mapping[str, Any]] = {"narrow": {"max_concurrency": AT_ONCE}}

#: Of these, a node may be begun more often than it was claimed: its RetryPolicy tries it again.
RETRIED = frozenset({"flaky", "patient"})

#: Of these, nodes speak side by side: in any order.
UNORDERED = frozenset({"fan_out", "narrow"})
