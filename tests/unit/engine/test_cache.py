"""A farm's cache for nodes with a CachePolicy: asked before anything is handed over, whatever the graph brought."""

import asyncio
import cmath
import math
import operator
import os
import re
import subprocess
import sys
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Send
from pydantic import BaseModel

from agentfarm.engine.cache_keys import digest_of
from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.steps import RunSpec
from agentfarm.testing.one_process import aexecute_run, execute_run


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    n: int


class Counting(InMemoryCache[Any]):
    """Says how often it was asked for how many keys."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def get(self, keys: Any) -> Any:
        self.asked.append(len(keys))
        return super().get(keys)


def executed(graph: Any, input: Any, cache: Any, *, thread_id: str = "1") -> list[Any]:
    """The updates that a run streams."""
    loaded = describe_graph("g", graph)
    config = {"configurable": {"thread_id": thread_id}}
    spec = RunSpec("run", thread_id, "g", input, config, {"stream_mode": "updates"})
    chunks: list[Any] = []
    given: dict[str, Any] = {"saver": InMemorySaver(), "cache": cache, "sink": chunks.append}
    if loaded.is_async:
        run = asyncio.run(aexecute_run(loaded.graph, spec, **given))
    else:
        run = execute_run(loaded.graph, spec, **given)
    if run.error is not None:
        raise run.error
    return chunks


def line(node: Any, *, policy: Any = None, cache: Any = None) -> Any:
    builder = StateGraph(State)
    builder.add_node("first", lambda state: {"log": ["first"]})
    builder.add_node("cached", node, cache_policy=policy or CachePolicy(key_func=lambda state: "one"))
    builder.add_node("last", lambda state: {"log": ["last"]})
    builder.add_edge(START, "first")
    builder.add_edge("first", "cached")
    builder.add_edge("cached", "last")
    return builder.compile(cache=cache)


def counted(ran: list[str], *, is_async: bool) -> Any:
    def node(state: State) -> State:
        ran.append("cached")
        return {"log": ["cached"]}

    async def anode(state: State) -> State:
        return node(state)

    return anode if is_async else node


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("own", [False, True], ids=["compiled without a cache", "compiled with one"])
def test_a_cached_result_takes_the_place_of_the_node(is_async: bool, own: bool) -> None:
    ran: list[str] = []
    cache = InMemoryCache[Any]()
    own_cache = InMemoryCache[Any]() if own else None
    graph = line(counted(ran, is_async=is_async), cache=own_cache)

    first, second = executed(graph, {"log": []}, cache), executed(graph, {"log": []}, cache, thread_id="2")

    assert ran == ["cached"]
    names = [next(name for name in chunk if name != "__metadata__") for chunk in second]
    assert names == ["first", "cached", "last"]
    assert [chunk.get("cached") for chunk in second] == [chunk.get("cached") for chunk in first]
    assert own_cache is None or not own_cache._cache


def test_a_graph_whose_nodes_have_no_policy_asks_no_cache() -> None:
    cache = Counting()
    builder = StateGraph(State)
    builder.add_node("a", lambda state: {"n": 1})
    builder.add_node("b", lambda state: {"n": 2})
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")

    executed(builder.compile(), {"n": 0}, cache)

    assert cache.asked == []


def test_each_of_many_is_looked_up_and_only_what_is_missing_is_executed() -> None:
    ran: list[int] = []

    def node(n: int) -> State:
        ran.append(n)
        return {"log": [n]}

    builder = StateGraph(State)
    builder.add_node("square", node, cache_policy=CachePolicy())
    builder.add_conditional_edges(START, lambda state: [Send("square", n) for n in range(state["n"])])
    graph, cache = builder.compile(), InMemoryCache[Any]()

    executed(graph, {"n": 3}, cache)
    executed(graph, {"n": 5}, cache, thread_id="2")

    assert sorted(ran) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("nested", [False, True])
def test_a_subgraph_shares_the_cache(nested: bool) -> None:
    ran: list[str] = []
    child = line(counted(ran, is_async=False))
    builder = StateGraph(State)
    builder.add_node("child", child)
    builder.add_edge(START, "child")
    graph, cache = builder.compile(), InMemoryCache[Any]()

    for thread_id in ("1", "2"):
        spec = RunSpec(
            "run", thread_id, "g", {"log": []}, {"configurable": {"thread_id": thread_id}},
            {"stream_mode": "updates"}, nested=nested,
        )  # fmt: skip
        execute_run(graph, spec, saver=InMemorySaver(), cache=cache)

    assert ran == ["cached"]


@pytest.mark.parametrize("is_async", [False, True])
def test_results_of_tasks_and_of_an_entrypoint_are_cached(is_async: bool) -> None:
    ran: list[str] = []

    @task(cache_policy=CachePolicy())
    def double(n: int) -> int:
        ran.append("double")
        return 2 * n

    @entrypoint()
    def flow(n: int) -> int:
        return double(n).result()

    @entrypoint()
    async def aflow(n: int) -> int:
        return await double(n)

    @entrypoint(cache_policy=CachePolicy(key_func=str))
    def whole(n: int) -> int:
        ran.append("whole")
        return n

    cache = InMemoryCache[Any]()
    for thread_id in ("1", "2"):
        assert executed(aflow if is_async else flow, 3, cache, thread_id=thread_id)[-1] == {
            "aflow" if is_async else "flow": 6
        }
        executed(whole, 1, cache, thread_id=thread_id)

    assert ran == ["double", "whole"]


# --------------------------------------------------------------------------- the default key


class Colour(Enum):
    RED = 1


class Point(BaseModel):
    x: int
    tags: set[str] = set()


@dataclass
class Bag:
    things: dict[str, Any] = field(default_factory=dict)


class Odd:
    def __init__(self, n: int) -> None:
        self.n = n


def values() -> list[Any]:
    """Each with nothing in common with the others, made anew at each call."""
    return [
        None, True, 1, 1.0, "1", b"1", "", [], {}, set(), [1, [2]], [[1], 2], {"a": 1}, {"a": {"b": 1}}, {1: "a"},
        {"x", "y", "z"}, datetime(2026, 1, 1, tzinfo=UTC), UUID(int=7), Decimal("1.10"), Decimal("1.1"), Colour.RED,
        deque([1, 2]), OrderedDict(b=1, a=2), Point(x=1, tags={"p", "q", "r"}), Point(x=2), Bag({"a": {"k"}}), Odd(1),
        Odd(2), HumanMessage("hi", id="1"), AIMessage("hi", id="1"),
        AIMessage("", id="2", tool_calls=[{"name": "f", "args": {"q": [1]}, "id": "c"}]), Send("a", {"n": 1}), Odd,
        Colour, re.compile("a"), re.compile("a", re.I), int | str, math.sqrt, cmath.sqrt,
    ]  # fmt: skip


def test_equal_values_have_one_key_and_others_have_another() -> None:
    keys = [digest_of((value,)) for value in values()]

    assert keys == [digest_of((value,)) for value in values()]
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_tell_whether_two_strings_are_one_object() -> None:
    word, the_same = (b"word".decode() for _ in range(2))
    assert word is not the_same

    assert digest_of([word, word]) == digest_of([word, the_same])
    assert digest_of([word, [word]]) != digest_of([[word], word])
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_a_value_that_holds_itself_has_a_key() -> None:
    one: list[Any] = [1]
    one.append(one)
    other: list[Any] = [1]
    other.append(other)

    assert digest_of(one) == digest_of(other)


def test_what_pickle_refuses_has_no_key_here_either() -> None:
    with pytest.raises(Exception, match="pickle"):
        digest_of([lambda: None])
    with pytest.raises(TypeError, match="pickle"):
        digest_of([sys._getframe()])


ASK = """
import hashlib
import agentfarm.engine.segment
from langchain_core.messages import AIMessage
from langgraph.types import CachePolicy
state = {"messages": [AIMessage("hi", id="1", name="a")], "seen": {"a", "b", "c", "d"}}
print(hashlib.sha256(CachePolicy().key_func(state)).hexdigest())
"""


def test_the_default_key_of_a_message_is_the_same_in_two_processes() -> None:
    """Python's hashes differ between them, and with these the order of a pickled set."""
    keys = {
        subprocess.run(
            [sys.executable, "-c", ASK], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }

    assert len(keys) == 1
