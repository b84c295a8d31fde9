"""Small graphs for the API's tests."""

import operator
import time
from pathlib import Path
from typing import Annotated, Any

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
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
