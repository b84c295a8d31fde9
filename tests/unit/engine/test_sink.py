"""Chunks leave the moment they are made: each is seen before the node makes the next one, and no thread is started."""

import asyncio
import contextvars
import operator
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from .conftest import Bench

MODES = ["updates", "custom", "messages"]
WORDS = "one two three four five"


class State(TypedDict, total=False):
    out: Annotated[list, operator.add]
    n: int


class Watched:
    """What was made and what was seen, in the order in which it happened."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def made(self, what: Any) -> None:
        self.seen.append(("made", what))

    def append(self, chunk: Any) -> None:
        self.seen.append(("seen", token_of(chunk)))


def token_of(chunk: Any) -> Any:
    mode, payload = chunk[-2:]
    return payload[0].content if mode == "messages" else payload


WATCHED = contextvars.ContextVar[Watched]("WATCHED")


class Model(GenericFakeChatModel):
    """Says when it makes a token."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for chunk in super()._stream(*args, **kwargs):
            WATCHED.get().made(chunk.message.content)
            yield chunk

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for chunk in super()._stream(*args, **kwargs):
            WATCHED.get().made(chunk.message.content)
            yield chunk
            await asyncio.sleep(0)


def model() -> Model:
    return Model(messages=iter([AIMessage(WORDS)]))


def writes(state: State) -> State:
    for i in range(5):
        WATCHED.get().made(i)
        get_stream_writer()(i)
    return {"out": ["x"]}


async def awrites(state: State) -> State:
    writer = get_stream_writer()
    for i in range(5):
        WATCHED.get().made(i)
        writer(i)
        await asyncio.sleep(0)
    return {"out": ["x"]}


def speaks(state: State) -> State:
    return {"out": [model().invoke("q").content]}


async def aspeaks(state: State) -> State:
    return {"out": [(await model().ainvoke("q")).content]}


def writes_in_a_thread(state: State) -> State:
    thread = threading.Thread(target=contextvars.copy_context().run, args=(writes, state), name="the node's own")
    thread.start()
    thread.join()
    return {"out": ["x"]}


def subgraph(node: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("inner", node)
    builder.add_edge(START, "inner")
    return builder.compile()


def counts(state: State) -> State:
    return {"n": 1}


async def acounts(state: State) -> State:
    return {"n": 1}


def around(node: Any, *, is_async: bool = False) -> Any:
    builder = StateGraph(State)
    builder.add_node("a", acounts if is_async else counts)
    builder.add_node("t", node)
    builder.add_node("z", acounts if is_async else counts)
    builder.add_edge(START, "a")
    builder.add_edge("a", "t")
    builder.add_edge("t", "z")
    return builder.compile()


NODES: dict[str, Callable[[], Any]] = {
    "custom": lambda: writes,
    "custom, async": lambda: awrites,
    "messages": lambda: speaks,
    "messages, async": lambda: aspeaks,
    "thread of its own": lambda: writes_in_a_thread,
    "subgraph": lambda: subgraph(writes),
    "subgraph, async": lambda: subgraph(awrites),
}


@pytest.fixture
def started_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    started: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    return started


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize("node", NODES)
def test_a_chunk_is_out_before_the_next_is_made(node: str, subgraphs: bool, started_threads: list[str]) -> None:
    watched = Watched()
    WATCHED.set(watched)
    # Inside of its parent's node, a subgraph saves its checkpoints as stock does: by threads.
    run = Bench(around(NODES[node](), is_async="async" in node), stream_mode=MODES, nested=True)

    run_into(run, watched, subgraphs=subgraphs)

    made = [what for kind, what in watched.seen if kind == "made"]
    assert len(made) >= 5
    if not node.startswith("subgraph") or subgraphs:
        for what in made:
            at = watched.seen.index(("made", what))
            assert watched.seen[at + 1] == ("seen", what)
    assert started_threads == (["the node's own"] if node == "thread of its own" else [])


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize("node", NODES)
def test_there_are_as_many_chunks_as_stock_yields_and_in_its_order(node: str, subgraphs: bool) -> None:
    stock, engine = Watched(), Watched()
    for by, watched in (("stock", stock), ("engine", engine)):
        WATCHED.set(watched)
        run_into(Bench(around(NODES[node]()), by=by, stream_mode=MODES), watched, subgraphs=subgraphs)

    seen = [[what for kind, what in watched.seen if kind == "seen"] for watched in (engine, stock)]
    assert seen[0] == seen[1]


def run_into(run: Bench, watched: Watched, **kwargs: Any) -> None:
    for chunk in run.run({"n": 0}, sink=watched.append, **kwargs):
        watched.append(chunk)  # stock's


@pytest.mark.parametrize("fails", [False, True])
def test_the_last_token_of_an_async_node_comes_before_its_update(fails: bool) -> None:
    async def node(state: State) -> State:
        get_stream_writer()("last")
        if fails:
            raise ValueError("after the last token")
        return {"out": ["x"]}

    run = Bench(around(node), stream_mode=MODES)
    if fails:
        with pytest.raises(ValueError, match="after the last token"):
            run.run({"n": 0})
        assert ("custom", "last") in run.chunks
    else:
        chunks = run.run({"n": 0})
        assert chunks.index(("custom", "last")) < chunks.index(("updates", {"t": {"out": ["x"]}}))
