"""Whole runs of real graphs, message by message, over the real stores: their state equals stock LangGraph's.

One process stands for all workers; what is between two messages is in Postgres alone.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel, UntrackedValue
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, Send, interrupt

from agentfarm.engine.segment import SegmentRequest, inline_reason, run_segment
from agentfarm.engine.steps import RunSpec
from agentfarm.errors import LeaseLost, StoreUnavailable
from agentfarm.ids import new_id
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.database import Databases
from agentfarm.persistence.executions import PostgresExecutions
from agentfarm.persistence.leases import WorkerLease
from agentfarm.persistence.redis_tier.claims import RedisClaims
from agentfarm.persistence.redis_tier.scripts import RedisScripts
from agentfarm.persistence.redis_tier.write_behind import WriteBehind
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.records import Claimed, NewRun, Refused
from agentfarm.run_options import RunOptions
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home, wait_for
from tests.integration.persistence.runs.parts import ASSISTANT, rows_of
from tests.services import NOWHERE


class Worker:
    """Claims, executes and commits one message after the other, as flow/step.py does."""

    def __init__(self, home: Home, tenant: Tenant, builder: Any, redis_url: str | None) -> None:
        self.home, self.tenant = home, tenant
        self.options = RunOptions(persistence="redis" if redis_url else "postgres")
        self.graph = builder.compile()
        self.serde = serde_of(self.graph)
        settings = home.settings.model_copy(update={"heartbeat_seconds": 0.1})
        self.lease = WorkerLease(settings, name="worker")
        self.lease.start()
        databases = Databases(home.app)
        self.scripts = RedisScripts(redis_url or NOWHERE)
        self.behind = WriteBehind(self.scripts, databases)
        redis = RedisClaims(self.scripts, self.behind, lease_seconds=settings.lease_seconds) if redis_url else None
        self.told: list[ExecuteNode] = []
        self.behind.tell = lambda committed: self.told.extend(committed.ready)
        behind = self.behind if redis_url else None
        self.runs = PostgresRuns(databases, lambda _: self.serde, behind=behind)
        self.threads = PostgresThreads(databases, lambda _: self.serde, behind=behind)
        self.executions = PostgresExecutions(databases, lambda _: self.serde, self.lease, settings, redis)
        self.builder = builder

    def admit(
        self, thread_id: UUID, input: Any, *, configurable: dict[str, Any] | None = None, **kwargs: Any
    ) -> tuple[UUID, list[ExecuteNode]]:
        run_id = new_id()
        place = {**(configurable or {}), "thread_id": str(thread_id)}
        chosen = {"stream_mode": ["values"], "subgraphs": False, "durability": "async", **kwargs}
        spec = RunSpec(
            run_id=str(run_id),
            thread_id=str(thread_id),
            graph_id="graph",
            input=input,
            config={"configurable": place, "metadata": {"run_id": str(run_id)}},
            kwargs=chosen,
            inline=inline_reason(chosen),
            options=self.options,
        )
        admitted = self.runs.admit(self.tenant, NewRun(run_id, thread_id, ASSISTANT, "graph", spec, create_thread=True))
        return run_id, list(admitted.ready)

    def run(self, thread_id: UUID, input: Any, *, lose: int = 0, **kwargs: Any) -> str:
        """To its end; its status. lose: messages that are delivered twice."""
        run_id, ready = self.admit(thread_id, input, **kwargs)
        messages = deque(ready)
        while messages:
            message = messages.popleft()
            messages.extend(self.execute(message))
            messages.extend(self.told)
            self.told.clear()
            if lose:
                assert list(self.execute(message)) == []
        return self.runs.get(self.tenant, thread_id, run_id).status

    def execute(self, message: ExecuteNode, *, commit: Callable[[], object] = lambda: None) -> Iterable[ExecuteNode]:
        """What is to be published next. commit: called between the work and its commit."""
        claimed = self.executions.claim(message)
        work: Claimed | None = None if isinstance(claimed, Refused) else claimed
        while work is not None:
            request = SegmentRequest(
                kind=work.kind,
                run=work.run,
                call=work.call,
                attempt=work.attempt,
                settled=dict(work.settled),
                failed=work.failed,
            )
            try:
                result = run_segment(self.graph, request, saver=work.saver, sink=None)
            except StoreUnavailable:
                self.executions.release(work)
                raise
            commit()
            committed = self.executions.commit(work, result, lease_next=work.kind == "start")
            yield from committed.ready
            work = committed.leased or committed.advance

    def saver(self) -> BaseCheckpointSaver[str]:
        return self.threads.saver(self.tenant, "graph")

    def stop(self) -> None:
        self.behind.close()
        self.lease.stop()
        self.scripts.close()


@pytest.fixture(params=["postgres", "redis"])
def make_worker(
    request: pytest.FixtureRequest, home: Home, acme: Tenant, redis_url: str
) -> Iterator[Callable[[Any], Worker]]:
    """A worker of runs that are moved by Postgres, and of those that Redis moves."""
    made: list[Worker] = []

    def make(builder: Any) -> Worker:
        made.append(Worker(home, acme, builder, redis_url if request.param == "redis" else None))
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


def history(builder: Any, saver: BaseCheckpointSaver[Any], thread_id: UUID) -> list[Any]:
    """All that a client sees of a thread, but for ids that are random."""
    states = builder.compile(checkpointer=saver).get_state_history({"configurable": {"thread_id": str(thread_id)}})
    return [
        (
            state.values,
            state.next,
            (state.metadata or {}).get("source"),
            (state.metadata or {}).get("step"),
            [(task.name, task.result, [one.value for one in task.interrupts]) for task in state.tasks],
        )
        for state in states
    ]


# --------------------------------------------------------------------------- graphs


class Pair(NamedTuple):
    left: int
    right: int


class State(TypedDict):
    log: Annotated[list[Any], lambda have, more: [*have, *more]]
    items: Annotated[list[int], DeltaChannel(lambda have, writes: [*have, *(x for one in writes for x in one)])]
    n: int
    pair: Pair


def _line() -> Any:
    def step(name: str) -> Any:
        return lambda state: {
            "log": [f"{name}{state['n']}"],
            "items": [state["n"]],
            "n": state["n"] + 1,
            "pair": Pair(state["n"], -1),
        }

    builder = StateGraph(State)
    for name in "abc":
        builder.add_node(name, step(name))
    builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c")
    builder.add_conditional_edges("c", lambda state: "a" if state["n"] < 9 else END)
    return builder


def _fan_out() -> Any:
    builder = StateGraph(State)
    builder.add_node("plan", lambda state: {"n": state["n"], "log": ["plan " * 100]})
    builder.add_node("work", lambda item: {"log": [item["at"] * 10], "items": [item["at"]]})
    builder.add_node("sum", lambda state: {"n": sum(state["items"]), "pair": Pair(len(state["log"]), 0)})
    builder.add_edge(START, "plan").add_edge("work", "sum")
    builder.add_conditional_edges(
        "plan", lambda state: [Send("work", {"at": at}) for at in range(state["n"])], ["work"]
    )
    return builder


def _approval() -> Any:
    def ask(_: Any) -> Any:
        return {"messages": [AIMessage(f"{interrupt({'ask': 1})} and {interrupt({'ask': 2})}", id="2")]}

    inner = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()
    builder = StateGraph(MessagesState).add_node("inner", inner)
    builder.add_node("beside", lambda _: {"messages": [AIMessage("beside", id="3")]})
    builder.add_node("end", lambda _: {"messages": [AIMessage("end", id="4")]})
    return builder.add_edge(START, "inner").add_edge(START, "beside").add_edge(["inner", "beside"], "end")


START_STATE = {"log": [], "items": [], "n": 5, "pair": Pair(0, 0)}
HELLO = {"messages": [HumanMessage("hi", id="1")]}


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (_line, [START_STATE, {**START_STATE, "n": 7}]),
        (_fan_out, [START_STATE, {"n": 3}]),
        (_approval, [HELLO, Command(resume="yes"), Command(resume="no")]),
    ],
    ids=["line", "fan-out", "approval"],
)
@pytest.mark.parametrize("how", ["by message", "delivered twice", "inline"])
def test_a_threads_history_equals_stock_langgraphs(
    make_worker: Callable[[Any], Worker], build: Callable[[], Any], inputs: list[Any], how: str
) -> None:
    worker, thread_id = make_worker(build()), uuid4()
    stock = InMemorySaver(serde=worker.serde)  # its own would read a named tuple back as a dict
    durability: Any = "exit" if how == "inline" else "async"

    for given in inputs:
        worker.run(thread_id, given, lose=how == "delivered twice", durability=durability)
        config: Any = {"configurable": {"thread_id": str(thread_id)}}
        worker.builder.compile(checkpointer=stock).invoke(given, config, durability=durability)

    assert history(worker.builder, worker.saver(), thread_id) == history(worker.builder, stock, thread_id)


def test_a_graph_says_itself_how_many_of_its_siblings_run_at_once(
    home: Home, make_worker: Callable[[Any], Worker]
) -> None:
    class Limited(StateGraph[Any]):
        def compile(self, *args: Any, **kwargs: Any) -> Any:
            return super().compile(*args, **kwargs).with_config({"max_concurrency": 2})

    builder = _fan_out()
    builder.__class__ = Limited
    worker, thread_id = make_worker(builder), uuid4()
    _, (start,) = worker.admit(thread_id, START_STATE)
    ready = list(worker.execute(start))
    assert len(ready) == 2, "of five"

    for message in ready:
        ready += worker.execute(message)

    wait_for(lambda: home.query("SELECT status FROM farm.run") == [("success",)], what="the run's end")
    assert len(ready) == 6


def test_a_run_that_is_undone_in_the_middle_leaves_nothing(
    home: Home, acme: Tenant, make_worker: Callable[[Any], Worker]
) -> None:
    worker, thread_id = make_worker(_fan_out()), uuid4()
    worker.run(thread_id, START_STATE)
    before = rows_of(home, acme)
    run_id, (start,) = worker.admit(thread_id, {"n": 4})
    siblings = list(worker.execute(start))
    for message in siblings[:2]:
        assert list(worker.execute(message)) == []

    worker.runs.cancel(acme, thread_id, run_id, rollback=True)

    assert rows_of(home, acme) == before
    assert [list(worker.execute(message)) for message in siblings] == [[], [], [], []]
    assert rows_of(home, acme) == before


def test_a_resumed_run_that_is_undone_asks_again(
    home: Home, acme: Tenant, make_worker: Callable[[Any], Worker]
) -> None:
    worker, thread_id = make_worker(_approval()), uuid4()
    assert worker.run(thread_id, HELLO) == "interrupted"
    asked = history(worker.builder, worker.saver(), thread_id)
    run_id, (start,) = worker.admit(thread_id, Command(resume="yes"))
    commits = itertools.count(1)

    def cancel_before_the_second() -> None:  # the first has saved the answer, and the node has taken it
        if next(commits) == 2:
            worker.runs.cancel(acme, thread_id, run_id, rollback=True)

    with pytest.raises(LeaseLost):
        list(worker.execute(start, commit=cancel_before_the_second))

    assert history(worker.builder, worker.saver(), thread_id) == asked
    assert home.query("SELECT status FROM farm.thread") == [("interrupted",)]
    for answer in ("1", "2"):
        worker.run(thread_id, Command(resume=answer))
    assert "1 and 2" in str(history(worker.builder, worker.saver(), thread_id)[0])


def test_a_run_that_is_cancelled_while_its_node_works_saves_nothing_of_it(
    home: Home, acme: Tenant, make_worker: Callable[[Any], Worker]
) -> None:
    worker, thread_id = make_worker(_line()), uuid4()
    run_id, (start,) = worker.admit(thread_id, START_STATE)
    (second,) = worker.execute(start)
    before = history(worker.builder, worker.saver(), thread_id)

    with pytest.raises(LeaseLost):
        list(worker.execute(second, commit=lambda: worker.runs.cancel(acme, thread_id, run_id, rollback=False)))

    assert history(worker.builder, worker.saver(), thread_id) == before
    assert worker.runs.get(acme, thread_id, run_id).status == "interrupted"


# --------------------------------------------------------------------------- tried again by the same process


class Noted(TypedDict, total=False):
    notes: list[str]
    live: Annotated[str, UntrackedValue]  # which keeps a superstep of several nodes in the message of its start


GIVEN = ["of the input", "of the config", "of the context"]


@pytest.mark.parametrize("beside", [(), ("beside",)], ids=["in its own message", "in the start's"])
def test_a_second_attempt_in_the_same_process_finds_what_the_first_was_given(
    home: Home, make_worker: Callable[[Any], Worker], beside: tuple[str, ...]
) -> None:
    executed: list[list[str]] = []

    def note(state: Noted, config: RunnableConfig, runtime: Runtime[dict[str, list[str]]]) -> Noted:
        given = (state["notes"], config["configurable"]["notes"], runtime.context["notes"])
        executed.append([text for notes in given for text in notes])
        for notes in given:
            notes.append("changed in place")
        if len(executed) == 1:
            raise StoreUnavailable  # as its store does, when Postgres does not answer
        return {"notes": ["done"]}

    builder = StateGraph(Noted, context_schema=dict).add_node("note", note).add_edge(START, "note")
    for name in beside:
        builder.add_node(name, lambda _: {}).add_edge(START, name)
    worker, thread_id = make_worker(builder), uuid4()
    run_id, (start,) = worker.admit(
        thread_id,
        {"notes": GIVEN[:1]},
        configurable={"notes": GIVEN[1:2]},
        context={"notes": GIVEN[2:]},
    )

    with pytest.raises(StoreUnavailable):
        list(worker.execute(start))
    given_back = "SELECT 1 FROM farm.node_execution WHERE status = 'ready'"
    wait_for(lambda: home.query(given_back) or worker.told, what="the execution that was given back")
    (again,) = worker.executions.open_at_head(start) or worker.told or (start,)
    list(worker.execute(again))

    assert worker.runs.get(worker.tenant, thread_id, run_id).status == "success"
    assert executed == [GIVEN, GIVEN]
