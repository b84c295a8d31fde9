"""Nodes that end the process they run in, and those that have the bad luck to run beside them."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

#: Innocents that have to be at work before the poison kills for the first time.
BESIDE = 10

_DEADLINE_SECONDS = 60.0


class Given(TypedDict, total=False):
    journal: str  # a file: what happened, a line each
    done: bool


def _write(state: Given, line: str) -> None:
    with Path(state["journal"]).open("a") as journal:
        journal.write(f"{line} {os.getpid()}\n")


def _count(state: Given, word: str) -> int:
    return sum(line.startswith(word) for line in Path(state["journal"]).read_text().splitlines())


def _wait(state: Given, word: str, count: int) -> None:
    end = time.monotonic() + _DEADLINE_SECONDS
    while _count(state, word) < count and time.monotonic() < end:
        time.sleep(0.02)


def _kill(state: Given) -> Given:
    _wait(state, "innocent", BESIDE)
    _write(state, "poison")
    match _count(state, "poison") % 3:
        case 1:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is out
        case 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        case _:
            os._exit(3)
    time.sleep(_DEADLINE_SECONDS)  # the signal comes when the kernel delivers it
    raise AssertionError("this process is alive")


def _stand_beside(state: Given) -> Given:
    _write(state, "innocent")
    _wait(state, "poison", 1)
    return {"done": True}


def _pay(state: Given, runtime: Runtime[Any]) -> Given:
    info = runtime.execution_info
    assert info is not None
    _write(state, f"payment {info.task_id} {info.node_attempt}")
    if info.node_attempt == 1:
        _wait(state, "killed", 1)  # between the payment and its commit
    return {"done": True}


def _one(name: str, node: Any) -> Any:
    builder = StateGraph(Given)
    builder.add_node(name, node)
    builder.add_edge(START, name)
    return builder.compile()


poison = _one("poison", _kill)
innocent = _one("innocent", _stand_beside)
payment = _one("pay", _pay)
