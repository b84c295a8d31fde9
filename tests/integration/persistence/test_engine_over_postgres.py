"""Stock LangGraph beside the farm, node by node, over a real PostgreSQL: the same values, the same history.

What the engine decides and what the database makes durable meet here; queue and processes are left out: messages are
worked in order, each claimed by a worker that has nothing of the thread in its memory.
"""

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command, Send, interrupt

from agentfarm.engine.segment import SegmentRequest, arun_segment, inline_reason, run_segment
from agentfarm.engine.steps import RunSpec
from agentfarm.ids import assistant_id, new_id
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Databases
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.records import Claimed, Ended, NewRun
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home

BIG = "long " * 100


class State(TypedDict, total=False):
    seen: Annotated[list[Any], operator.add]
    text: str
    kept: str


def node(name: str) -> Callable[[State], State]:
    return lambda state: {"seen": [name], "text": f"{state.get('text', '')}>{name}"}


def seer(name: str) -> Callable[[State], State]:
    return lambda state: {"seen": [name]}


def line() -> StateGraph[Any]:
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_sequence([(name, node(name)) for name in ("a", "b", "c")])
    return builder.add_edge(START, "a")


def diamond() -> StateGraph[Any]:
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("a", node("a"))
    for name in ("left", "right"):
        builder.add_node(name, seer(name)).add_edge("a", name)
    builder.add_node("z", node("z")).add_edge(["left", "right"], "z").add_edge("z", END)
    return builder.add_edge(START, "a")


def sends() -> StateGraph[Any]:
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("a", node("a"))
    builder.add_node("worker", lambda given: {"seen": [given["n"] * 10]})
    builder.add_conditional_edges("a", lambda _: [Send("worker", {"n": n}) for n in range(5)], ["worker"])
    builder.add_node("z", node("z")).add_edge("worker", "z")
    return builder.add_edge(START, "a")


def asking() -> StateGraph[Any]:
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("a", node("a"))
    builder.add_node("human", lambda state: {"seen": [interrupt({"why": "asked"})]})
    builder.add_node("beside", seer("beside"))
    builder.add_edge("a", "human").add_edge("a", "beside")
    builder.add_node("z", node("z")).add_edge(["human", "beside"], "z")
    return builder.add_edge(START, "a")


def nested() -> StateGraph[Any]:
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("a", node("a"))
    builder.add_node("child", asking().compile())
    builder.add_edge("a", "child").add_edge(START, "a")
    return builder


def functional() -> Pregel[Any, Any, Any, Any]:
    @task
    def double(n: int) -> int:
        return n * 2

    @entrypoint()
    def workflow(n: int) -> dict[str, Any]:
        doubled = [double(i) for i in range(n)]
        answer = interrupt("and?")
        return {"sum": sum(f.result() for f in doubled), "answer": answer}

    return workflow


class Deltas(TypedDict, total=False):
    log: Annotated[
        list[Any], DeltaChannel(lambda state, writes: [*(state or []), *(x for w in writes for x in w)], list)
    ]


def deltas() -> StateGraph[Any]:
    """The channel is in no checkpoint: it is put together from what the ancestors' nodes have written."""
    builder: StateGraph[Any] = StateGraph(Deltas)
    builder.add_node("a", lambda state: {"log": [len(state.get("log") or [])]})
    for name in ("left", "right"):
        builder.add_node(name, lambda state, name=name: {"log": [name]}).add_edge("a", name)
    builder.add_node("z", lambda state: {"log": [len(state["log"])]}).add_edge(["left", "right"], "z")
    return builder.add_edge(START, "a")


class Farm:
    """One graph, one tenant, and a worker with an empty memory for every message."""

    def __init__(
        self, home: Home, hands: Callable[..., Hand], tenant: Tenant, graph: Any, *, is_async: bool = False
    ) -> None:
        self.home, self.tenant, self.is_async = home, tenant, is_async
        self.graph = graph.compile() if isinstance(graph, StateGraph) else graph
        self.serde = serde_of(self.graph)
        self.workers = [hands(f"worker{n}") for n in range(2)]
        for worker in self.workers:
            worker.executions.claims.serde_for = lambda graph_id: self.serde
        self.runs = PostgresRuns(Databases(home.app), lambda graph_id: self.serde)
        self.messages = 0
        self.more: dict[str, Any] = {}  # for segments: a store, a cache

    def run(self, input: Any, thread_id: Any, **kwargs: Any) -> Ended:
        run_id = new_id()
        kwargs = {"stream_mode": ["values"], **kwargs}
        config = {"configurable": {"thread_id": str(thread_id)}, "metadata": {"run_id": str(run_id)}}
        spec = RunSpec(str(run_id), str(thread_id), "graph", input, config, kwargs, inline=inline_reason(kwargs))
        new = NewRun(run_id, thread_id, assistant_id("graph"), "graph", spec, create_thread=True)
        queue, ended = list(self.runs.admit(self.tenant, new).ready), None
        while queue:
            more, last = self.execute(queue.pop(0))
            queue += more
            ended = last or ended
        assert ended is not None
        return ended

    def execute(self, message: ExecuteNode) -> tuple[list[ExecuteNode], Ended | None]:
        self.messages += 1
        worker = self.workers[self.messages % 2]
        work: Claimed | None = worker.claim(message)
        more: list[ExecuteNode] = []
        ended = None
        while work is not None:
            request = SegmentRequest(work.kind, work.run, work.call, work.attempt, dict(work.settled), work.failed)
            if self.is_async:
                result = asyncio.run(arun_segment(self.graph, request, saver=work.saver, sink=_drop, **self.more))
            else:
                result = run_segment(self.graph, request, saver=work.saver, sink=_drop, **self.more)
            committed = worker.commit(work, result, lease_next=work.kind == "start")
            more += committed.ready
            ended = committed.ended or ended
            work = committed.leased or committed.advance
        return more, ended

    def history(self, thread_id: Any) -> list[Any]:
        saver = TenantSaver(self.home.app, self.tenant.id, self.serde)
        return told(self.graph.copy(update={"checkpointer": saver}), thread_id)


def _drop(chunk: object) -> None:
    """Nobody streams."""


def stock(graph: Any, inputs: list[Any], thread_id: Any, **kwargs: Any) -> list[Any]:
    compiled = graph.compile() if isinstance(graph, StateGraph) else graph
    compiled = compiled.copy(update={"checkpointer": InMemorySaver()})
    for given in inputs:
        compiled.invoke(given, {"configurable": {"thread_id": str(thread_id)}}, **kwargs)
    return told(compiled, thread_id)


def told(graph: Any, thread_id: Any) -> list[Any]:
    """Every checkpoint, newest first: what is in it, what is next, who has written what."""
    config = {"configurable": {"thread_id": str(thread_id)}}
    return [
        (
            state.values,
            state.next,
            state.metadata["source"],
            state.metadata["step"],
            [(t.name, t.error, [i.value for i in t.interrupts], t.result) for t in state.tasks],
            bool(state.parent_config),
        )
        for state in graph.get_state_history(config)
    ]


CASES: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "line": (line, [{"text": "hello", "kept": BIG}]),
    "line, twice": (line, [{"text": "hello", "kept": BIG}, {"text": "again"}]),
    "diamond": (diamond, [{"text": "hello"}]),
    "sends": (sends, [{"text": "hello"}]),
    "asking": (asking, [{"text": "hello"}, Command(resume="yes")]),
    "asking, with an update": (asking, [{"text": "hello"}, Command(resume="yes", update={"kept": "new"})]),
    "nested": (nested, [{"text": "hello"}, Command(resume="yes")]),
    "delta channel": (deltas, [{"log": ["hello"]}, {"log": ["again"]}]),
    "functional": (functional, [4, Command(resume="so")]),
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("case", CASES)
def test_a_run_over_postgres_leaves_what_a_run_in_process_leaves(
    case: str, is_async: bool, home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    make, inputs = CASES[case]
    thread_id = uuid4()
    farm = Farm(home, hands, acme, make(), is_async=is_async)

    statuses = [farm.run(given, thread_id).status for given in inputs]

    assert farm.history(thread_id) == stock(make(), inputs, thread_id)
    assert statuses[-1] == "success"
    assert home.query("SELECT count(*) FROM farm.node_execution WHERE status <> 'done'") == [(0,)]
    assert home.query("SELECT count(*) FROM farm.superstep") == [(0,)]


def test_a_run_that_cannot_be_cut_is_executed_whole_by_one_worker(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    thread_id = uuid4()
    farm = Farm(home, hands, acme, line())

    first = farm.run({"text": "hello"}, thread_id, durability="exit")
    second = farm.run({"text": "again"}, thread_id)

    assert (first.status, second.status) == ("success", "success")
    assert farm.messages == 1 + 3  # the whole run; then start with a, b, c
    newest = farm.history(thread_id)[0]
    assert newest[0]["seen"] == ["a", "b", "c", "a", "b", "c"]
    assert newest[0]["text"] == "again>a>b>c"


def test_a_failed_run_goes_on_from_its_checkpoint(home: Home, hands: Callable[..., Hand], acme: Tenant) -> None:
    fails = [True]

    def sometimes(state: State) -> State:
        if fails[0]:
            raise ValueError("not yet")
        return {"seen": ["b"]}

    builder: StateGraph[Any] = StateGraph(State)
    builder.add_sequence([("a", node("a")), ("b", sometimes), ("c", node("c"))])
    builder.add_edge(START, "a")
    thread_id = uuid4()
    farm = Farm(home, hands, acme, builder)

    failed = farm.run({"text": "hello"}, thread_id)
    fails[0] = False
    again = farm.run(None, thread_id)

    assert (failed.status, again.status) == ("error", "success")
    assert failed.error == {"error": "ValueError", "message": "not yet", "node": "b", "attempts": 1}
    assert farm.history(thread_id)[0][0]["seen"] == ["a", "b", "c"]
