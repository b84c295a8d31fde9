"""What a second attempt of a node finds, after the first died with its worker."""

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy, interrupt

from agentfarm.engine.segment import arun_segment, run_segment
from agentfarm.engine.steps import NodeCall, PutCheckpoint, RunSpec, SegmentRequest, SegmentResult
from agentfarm.testing.coordinator import Coordinator, Message

from .conftest import CONFIG, Bench


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]


class KilledWorker(BaseException):
    """Thrown from inside of a node, and through the engine."""


def line(*nodes: tuple[str, Any], **options: Any) -> Any:
    builder = StateGraph(State)
    for i, (name, node) in enumerate(nodes):
        builder.add_node(name, node, **options)
        builder.add_edge(nodes[i - 1][0] if i else START, name)
    return builder.compile()


class OneWorker:
    """Message by message, with the delivery count in the test's hand."""

    def __init__(self, graph: Any, **options: Any) -> None:
        self.graph, self.saver, self.options = graph, InMemorySaver(), options
        self.inbox: list[Message] = []
        self.coordinator = Coordinator(self.inbox.append)
        self.runs = 0

    def start(self, input: Any) -> None:
        self.runs += 1
        spec = RunSpec(str(self.runs), "1", "graph", input, CONFIG, {"stream_mode": []}, **self.options)
        self.run = self.coordinator.create(spec)

    def execute(self, *, attempt: int = 1) -> SegmentResult | None:
        """The oldest message; None if nothing is left to do for it."""
        message = self.inbox.pop(0)
        request = self.coordinator.begin(Message(message.run_id, message.call, attempt))
        result = None
        while request is not None:
            result = run_segment(self.graph, request, saver=self.saver)
            request = self.coordinator.commit(request, result, self.saver)
        return result

    def die_in(self) -> None:
        """The oldest message is executed and its worker dies before the commit. It stays in the inbox."""
        message = self.inbox[0]
        request = self.coordinator.begin(message)
        assert request is not None
        run_segment(self.graph, request, saver=self.saver)

    def finish(self) -> Any:
        while self.inbox:
            self.execute()
        assert self.run.error is None
        return self.graph.copy(update={"checkpointer": self.saver}).get_state(CONFIG).values


def test_every_attempt_finds_the_same_idempotency_key_and_its_own_number() -> None:
    seen: list[tuple[str, int]] = []

    def node(state: State, runtime: Runtime[None]) -> State:
        assert runtime.execution_info is not None
        seen.append((runtime.execution_info.task_id, runtime.execution_info.node_attempt))
        return {"log": ["a"]}

    worker = OneWorker(line(("a", node)))
    worker.start({"log": []})
    worker.execute()
    call = worker.inbox[0].call

    worker.die_in()
    worker.execute(attempt=2)

    assert call is not None
    assert seen == [(call.execution_id, 1), (call.execution_id, 2)]


def test_results_of_tasks_are_there_for_the_second_attempt() -> None:
    called: list[int] = []

    @task
    def square(n: int) -> int:
        called.append(n)
        return n * n

    @entrypoint()
    def flow(n: int) -> int:
        return square(n).result() + square(n + 1).result()

    worker = OneWorker(flow)
    worker.start(2)
    worker.execute()
    worker.die_in()
    worker.execute(attempt=2)

    assert worker.finish() == 13
    assert sorted(called) == [2, 3]


def test_a_handler_goes_on_with_the_error_of_the_first_attempt() -> None:
    handled: list[str] = []
    ran: list[str] = []

    def fails(state: State) -> State:
        ran.append("fails")
        raise ValueError("no")

    def handler(state: State) -> State:
        handled.append("handled")
        return {"log": ["handled"]}

    builder = StateGraph(State)
    builder.add_node("a", fails, error_handler=handler)
    builder.add_edge(START, "a")
    worker = OneWorker(builder.compile())
    worker.start({"log": []})
    worker.execute()
    worker.die_in()
    worker.execute(attempt=2)

    assert worker.finish() == {"log": ["handled"]}
    assert (ran, handled) == (["fails"], ["handled", "handled"])


@pytest.mark.parametrize("dies", ["before the subgraph", "in the subgraph", "after the subgraph"])
def test_a_subgraph_with_a_memory_is_never_taken_for_its_last_call(dies: str) -> None:
    """It keeps its history from call to call: in the second attempt its last checkpoint may be an older call's end."""
    first_attempt_of_second_turn = [False]
    ran: list[str] = []

    def once(where: str) -> None:
        if first_attempt_of_second_turn[0] and dies == where:
            first_attempt_of_second_turn[0] = False
            raise KilledWorker

    def one(state: State) -> State:
        ran.append("one")
        return {"log": ["one"]}

    def two(state: State) -> State:
        once("in the subgraph")
        return {"log": ["two"]}

    builder = StateGraph(State)
    builder.add_node("one", one)
    builder.add_node("two", two)
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    remembering = builder.compile(checkpointer=True)

    def node(state: State) -> State:
        once("before the subgraph")
        result = remembering.invoke({"log": ["turn"]})
        once("after the subgraph")
        return {"log": [len(result["log"])]}

    worker = OneWorker(line(("a", node)))
    worker.start({"log": []})
    assert worker.finish() == {"log": [3]}

    ran.clear()
    first_attempt_of_second_turn[0] = True
    worker.start({"log": []})
    worker.execute()
    message = worker.inbox[0]
    worker.execute()  # KilledWorker became the run's error, which nobody committed: see below
    assert isinstance(worker.run.error, KilledWorker)
    worker.run.status, worker.run.error = "running", None
    worker.inbox.append(message)
    worker.execute(attempt=2)

    assert worker.finish() == {"log": [3, 6]}
    assert ran == ["one"]


@pytest.mark.parametrize("checkpointer", [None, True])
def test_a_subgraph_that_goes_on_still_stops_at_its_breakpoint(checkpointer: bool | None) -> None:
    """The worker dies between the subgraph's stop and the commit that would have told of it."""
    ran: list[str] = []

    def step(name: str) -> Callable[[State], State]:
        def node(state: State) -> State:
            ran.append(name)
            return {"log": [name]}

        return node

    builder = StateGraph(State)
    builder.add_node("x", step("x"))
    builder.add_node("y", step("y"))
    builder.add_edge(START, "x")
    builder.add_edge("x", "y")
    worker = OneWorker(line(("sub", builder.compile(checkpointer=checkpointer, interrupt_before=["y"]))))
    worker.start({"log": []})
    worker.execute()

    worker.die_in()
    result = worker.execute(attempt=2)

    assert result is not None
    assert (result.status, ran) == ("interrupted", ["x"])


def test_a_subgraph_goes_on_where_the_dead_attempt_left_it() -> None:
    ran: list[str] = []
    worker_dies = [True]

    def step(name: str) -> Callable[[State], State]:
        def node(state: State) -> State:
            ran.append(name)
            if name == "y" and worker_dies[0]:
                worker_dies[0] = False
                raise KilledWorker
            return {"log": [name]}

        return node

    worker = OneWorker(line(("sub", line(("x", step("x")), ("y", step("y"))))))
    worker.start({"log": []})
    worker.execute()
    message = worker.inbox[0]
    worker.execute()
    worker.run.status, worker.run.error = "running", None
    worker.inbox.append(message)
    worker.execute(attempt=2)

    assert worker.finish() == {"log": ["x", "y"]}
    assert ran == ["x", "y", "y"]


def test_a_retry_is_a_message_that_tells_its_try_and_its_delay() -> None:
    seen: list[tuple[int, float | None]] = []

    def fails_twice(state: State, runtime: Runtime[None]) -> State:
        info = runtime.execution_info
        assert info is not None
        seen.append((info.node_attempt, info.node_first_attempt_time))
        if len(seen) < 3:
            raise ValueError("again")
        return {"log": ["a"]}

    policy = RetryPolicy(max_attempts=3, initial_interval=2.0, backoff_factor=3.0, jitter=False, retry_on=ValueError)
    worker = OneWorker(line(("a", fails_twice), retry_policy=policy), retry_by_message=0.0)
    worker.start({"log": []})
    worker.execute()

    results = [worker.execute() for _ in range(2)]

    assert [(r.outcome, r.retry_in, r.ops) for r in results if r] == [("retry", 2.0, []), ("retry", 6.0, [])]
    assert worker.inbox[0].call is not None
    assert worker.inbox[0].call.tries == 2
    assert worker.finish() == {"log": ["a"]}
    assert [number for number, _ in seen] == [1, 2, 3]
    assert len({since for _, since in seen}) == 1


class Tries:
    """A node that fails so many times, and what it was told of its tries."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.told: list[int] = []
        self.since: set[float | None] = set()

    def __call__(self, state: State, runtime: Runtime[None]) -> State:
        assert runtime.execution_info is not None
        self.told.append(runtime.execution_info.node_attempt)
        self.since.add(runtime.execution_info.node_first_attempt_time)
        if self.errors:
            raise self.errors.pop(0)
        return {"log": ["a"]}


def test_tries_count_on_from_slept_delays_to_messages_and_back() -> None:
    fails = Tries(*(ValueError(str(n)) for n in range(5)))
    # 0.01 s and 0.04 s are slept, 0.16 s leaves, and so do those that the longest cuts to 0.2 s.
    policy = RetryPolicy(max_attempts=6, initial_interval=0.01, backoff_factor=4.0, max_interval=0.2, jitter=False)
    policy = policy._replace(retry_on=ValueError)
    worker = OneWorker(line(("a", fails), retry_policy=policy), retry_by_message=0.1)
    worker.start({"log": []})
    worker.execute()

    results = [worker.execute() for _ in range(3)]

    assert [(r.retry_in, str(r.error), r.call and r.call.tries) for r in results if r] == [
        (0.16, "2", 3),
        (0.2, "3", 4),
        (0.2, "4", 5),
    ]
    assert worker.finish() == {"log": ["a"]}
    assert fails.told == [1, 2, 3, 4, 5, 6]
    assert len(fails.since) == 1


def test_the_first_policy_that_fits_an_error_decides_with_all_tries_counted() -> None:
    fails = Tries(ValueError("1"), KeyError("2"), ValueError("3"), KeyError("4"))
    often = RetryPolicy(max_attempts=9, initial_interval=1.0, backoff_factor=2.0, jitter=False, retry_on=KeyError)
    seldom = RetryPolicy(max_attempts=4, initial_interval=0.5, backoff_factor=1.0, jitter=False)
    seldom = seldom._replace(retry_on=lambda error: isinstance(error, ValueError | KeyError))
    worker = OneWorker(line(("a", fails), retry_policy=[often, seldom]), retry_by_message=0.0)
    worker.start({"log": []})
    worker.execute()

    results = [worker.execute() for _ in range(4)]

    assert [r.retry_in for r in results if r] == [0.5, 2.0, 0.5, 8.0]
    assert worker.finish() == {"log": ["a"]}


def test_a_message_s_tries_are_given_up_with_the_last_one_s_error() -> None:
    fails = Tries(*(ValueError(str(n)) for n in range(9)))
    policy = RetryPolicy(max_attempts=4, initial_interval=0.01, backoff_factor=20.0, jitter=False, retry_on=ValueError)
    run = Bench(line(("a", fails), retry_policy=policy._replace(max_interval=0.15)), retry_by_message=0.1)

    with pytest.raises(ValueError, match="3"):
        run.run({"log": []})

    assert fails.told == [1, 2, 3, 4]


def test_a_worker_that_dies_in_a_later_try_does_not_begin_the_tries_anew() -> None:
    fails = Tries(ValueError("1"), ValueError("2"), KilledWorker(), ValueError("4"))  # type: ignore[arg-type]
    policy = RetryPolicy(max_attempts=4, initial_interval=0.5, jitter=False, retry_on=ValueError)
    worker = OneWorker(line(("a", fails), retry_policy=policy), retry_by_message=0.0)
    worker.start({"log": []})
    worker.execute()
    worker.execute()
    worker.execute()
    worker.die_in()

    result = worker.execute(attempt=2)

    # Three tries have failed; what died is an attempt, and no try that the policy knows of.
    assert result is not None
    assert (result.outcome, result.call and result.call.tries) == ("retry", 3)
    assert fails.told == [1, 2, 3, 4]


def test_jitter_is_added_as_in_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high * 0.75)
    worker = OneWorker(
        line(("a", Tries(ValueError())), retry_policy=RetryPolicy(initial_interval=1.0, retry_on=ValueError)),
        retry_by_message=1.7,
    )
    worker.start({"log": []})
    worker.execute()

    result = worker.execute()

    assert result is not None
    assert result.retry_in == 1.75


def test_the_last_try_s_error_is_the_run_s() -> None:
    def fails(state: State) -> State:
        raise ValueError("always")

    policy = RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False, retry_on=ValueError)
    run = Bench(line(("a", fails), retry_policy=policy), retry_by_message=0.0)

    with pytest.raises(ValueError, match="always"):
        run.run({"log": []})


def test_max_concurrency_holds_executions_back() -> None:
    builder = StateGraph(State)
    for name in "abcd":
        builder.add_node(name, lambda state: {"log": ["x"]})
        builder.add_edge(START, name)
    spec = RunSpec("1", "1", "g", {"log": []}, {**CONFIG, "max_concurrency": 2}, {"stream_mode": []})

    result = run_segment(builder.compile(), SegmentRequest("start", spec), saver=InMemorySaver())

    assert (len(result.next), result.max_concurrency) == (4, 2)


async def test_a_cancelled_segment_raises_and_has_nothing_to_save() -> None:
    entered = asyncio.Event()

    async def waits(state: State) -> State:
        entered.set()
        await asyncio.Event().wait()
        return {}

    graph, saver = line(("a", waits)), InMemorySaver()
    spec = RunSpec("1", "1", "g", {"log": []}, CONFIG, {"stream_mode": []})
    started = await arun_segment(graph, SegmentRequest("start", spec), saver=saver)
    for op in started.ops:
        if isinstance(op, PutCheckpoint):
            saver.put(op.config, op.checkpoint, op.metadata, op.new_versions)
    saved = list(saver.list(CONFIG))
    running = asyncio.create_task(arun_segment(graph, SegmentRequest("node", spec, started.next[0]), saver=saver))
    await entered.wait()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert list(saver.list(CONFIG)) == saved


def test_questions_of_a_run_that_waits_are_in_its_result() -> None:
    run = OneWorker(line(("a", lambda state: {"log": [interrupt("sure?")]})))
    run.start({"log": []})
    run.execute()
    call = run.inbox[0].call
    result = run.execute()

    assert isinstance(call, NodeCall)
    assert result is not None
    assert result.status == "interrupted"
    assert [(id_, [i.value for i in asked]) for id_, asked in result.interrupts] == [(call.execution_id, ["sure?"])]


def test_a_run_that_is_executed_whole_goes_on_where_the_dead_attempt_left_it() -> None:
    """And a subgraph with a memory, which the dead attempt had not called yet, gets its input."""
    ran: list[str] = []
    worker_dies = [False]
    remembering = StateGraph(State)
    remembering.add_node("one", lambda state: {"log": ["one"]})
    remembering.add_edge(START, "one")
    sub = remembering.compile(checkpointer=True)

    def first(state: State) -> State:
        ran.append("first")
        return {"log": ["first"]}

    def second(state: State) -> State:
        if worker_dies[0]:
            worker_dies[0] = False
            raise KilledWorker
        return {"log": [len(sub.invoke({"log": ["turn"]})["log"])]}

    graph, saver = line(("first", first), ("second", second)), InMemorySaver()

    def attempt(run_id: str, number: int) -> SegmentResult:
        config = {**CONFIG, "metadata": {"run_id": run_id}}
        spec = RunSpec(run_id, "1", "g", {"log": []}, config, {"stream_mode": [], "durability": "sync"}, inline="why")
        return run_segment(graph, SegmentRequest("start", spec, attempt=number), saver=saver)

    assert attempt("turn 1", 1).status == "success"
    worker_dies[0] = True
    assert isinstance(attempt("turn 2", 1).error, KilledWorker)
    result = attempt("turn 2", 2)

    assert (result.status, result.ops, result.next) == ("success", [], ())
    assert graph.copy(update={"checkpointer": saver}).get_state(CONFIG).values["log"] == ["first", 2, "first", 4]
    assert ran == ["first", "first"]
