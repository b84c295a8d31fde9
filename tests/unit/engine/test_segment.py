"""What a segment promises its caller: it saves nothing, changes nothing that others share, and says what follows."""

import copy
import operator
import subprocess
import sys
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeError
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, RetryPolicy, Send, interrupt

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.checkpoint_ids import id_after
from agentfarm.engine.fenced import FencedOut
from agentfarm.engine.segment import inline_reason, run_segment
from agentfarm.engine.steps import CacheAddress, NodeCall, PutCheckpoint, PutWrites, Replay, RunSpec, SegmentRequest
from agentfarm.errors import LeaseLost, Stale
from agentfarm.testing.graphs import KNOWN, diamond, line

from .conftest import CONFIG, Bench


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]


def spec_of(input: Any, **kwargs: Any) -> RunSpec:
    return RunSpec("run", "1", "graph", input, CONFIG, {"stream_mode": []}, **kwargs)


def save(saver: InMemorySaver, ops: Any) -> None:
    for op in ops:
        if isinstance(op, PutCheckpoint):
            saver.put(op.config, op.checkpoint, op.metadata, op.new_versions)
        else:
            where = {"thread_id": "1", "checkpoint_ns": op.checkpoint_ns, "checkpoint_id": op.checkpoint_id}
            saver.put_writes({"configurable": where}, op.writes, op.task_id, op.task_path)


def test_a_start_names_the_first_nodes_and_saves_nothing() -> None:
    saver = InMemorySaver()

    result = run_segment(line, SegmentRequest("start", spec_of({"log": ["in"]})), saver=saver)

    assert [call.name for call in result.next] == ["a"]
    assert result.next[0].sole
    assert (result.status, result.outcome, result.error) == (None, None, None)
    last = [op for op in result.ops if isinstance(op, PutCheckpoint)][-1]
    assert last.checkpoint["id"] == result.next[0].checkpoint_id
    assert list(saver.list(CONFIG)) == []


def test_a_node_alone_in_its_superstep_brings_its_writes_and_the_next_checkpoint() -> None:
    saver, spec = InMemorySaver(), spec_of({"log": ["in"]})
    started = run_segment(line, SegmentRequest("start", spec), saver=saver)
    save(saver, started.ops)
    call = started.next[0]

    result = run_segment(line, SegmentRequest("node", spec, call), saver=saver)

    writes, checkpoint = result.ops
    assert isinstance(writes, PutWrites)
    assert isinstance(checkpoint, PutCheckpoint)
    assert (writes.task_id, writes.checkpoint_id) == (call.execution_id, call.checkpoint_id)
    assert checkpoint.parent_id == call.checkpoint_id
    assert checkpoint.checkpoint["channel_values"]["log"] == ["in", "a"]
    assert [following.name for following in result.next] == ["b"]


def test_a_node_of_a_wider_superstep_brings_its_writes_and_the_last_one_s_advance_the_rest() -> None:
    saver, spec = InMemorySaver(), spec_of({"log": []})
    request = SegmentRequest("start", spec)
    while len((result := run_segment(diamond, request, saver=saver)).next) < 3:
        save(saver, result.ops)
        request = SegmentRequest("node", spec, result.next[0])
    save(saver, result.ops)
    siblings = result.next

    for call in siblings:
        settled = run_segment(diamond, SegmentRequest("node", spec, call), saver=saver)
        assert (settled.outcome, settled.call, settled.next) == ("done", call, ())
        assert [type(op) for op in settled.ops] == [PutWrites]
        save(saver, settled.ops)
    outcomes = {call.execution_id: "done" for call in siblings}
    advanced = run_segment(diamond, SegmentRequest("advance", spec, siblings[-1], settled=outcomes), saver=saver)

    assert [call.name for call in advanced.next] == ["e"]
    assert [type(op) for op in advanced.ops] == [PutCheckpoint]


def test_what_the_messages_of_a_run_share_stays_as_it_is() -> None:
    config = {**CONFIG, "metadata": {"run_id": "run"}, "tags": ["x"], "configurable": {"thread_id": "1", "model": "m"}}
    spec = RunSpec("run", "1", "graph", {"log": ["in"]}, config, {"stream_mode": ["values"]})
    before = copy.deepcopy(spec)
    graph_before = dict(vars(line))

    run_segment(line, SegmentRequest("start", spec), saver=InMemorySaver())

    assert spec == before
    assert vars(line) == graph_before


def test_a_call_of_a_checkpoint_that_is_not_there_is_stale() -> None:
    saver, spec = InMemorySaver(), spec_of({"log": []})
    started = run_segment(line, SegmentRequest("start", spec), saver=saver)

    with pytest.raises(Stale):
        run_segment(line, SegmentRequest("node", spec, started.next[0]), saver=saver)


def test_a_node_that_exits_ends_its_run_and_not_the_worker() -> None:
    run = Bench(one_node(lambda state: sys.exit(3)))

    with pytest.raises(SystemExit):
        run.run({"log": []})

    assert run.last is not None
    assert run.last.status == "error"


def test_the_worker_s_own_stop_is_not_taken_for_the_node_s() -> None:
    def node(state: State) -> State:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bench(one_node(node)).run({"log": []})


def test_a_node_finds_the_store_it_is_given_and_its_context() -> None:
    class Context(TypedDict):
        who: str

    def node(state: State, runtime: Runtime[Context]) -> State:
        assert runtime.store is not None
        runtime.store.put(("seen",), "who", {"who": runtime.context["who"]})
        return {}

    builder = StateGraph(State, context_schema=Context)
    builder.add_node("a", node)
    builder.add_edge(START, "a")
    given = InMemoryStore()

    Bench(builder.compile(store=InMemoryStore()), store=given).run({"log": []}, context={"who": "me"})

    item = given.get(("seen",), "who")
    assert item is not None
    assert item.value == {"who": "me"}


def test_a_node_s_metadata_names_its_queue() -> None:
    builder = StateGraph(State)
    builder.add_node("render", lambda state: {}, metadata={"queue": "gpu"})
    builder.add_node("tell", lambda state: {})
    builder.add_edge(START, "render")
    builder.add_edge(START, "tell")

    result = run_segment(builder.compile(), SegmentRequest("start", spec_of({"log": []})), saver=InMemorySaver())

    assert {call.name: call.queue for call in result.next} == {"render": "gpu", "tell": None}


def test_why_a_run_is_executed_whole_is_said() -> None:
    assert inline_reason({}) is None
    assert "exit" in (inline_reason({"durability": "exit"}) or "")


def test_an_answer_without_an_id_is_reported_as_taken() -> None:
    asks = one_node(lambda state: {"log": [interrupt("sure?")]})
    saver, spec = InMemorySaver(), spec_of({"log": []})
    for given in ({"log": []}, Command(resume="yes")):
        spec = spec_of(given)
        started = run_segment(asks, SegmentRequest("start", spec), saver=saver)
        save(saver, started.ops)
        result = run_segment(asks, SegmentRequest("node", spec, started.next[0]), saver=saver)
        save(saver, result.ops)

    assert result.status == "success"
    assert result.took_scalar
    assert result.taken_at == ("",)


def test_answers_by_id_are_read_from_the_run_and_not_kept_with_each_call() -> None:
    run = Bench(KNOWN["questions"].graph)
    run.run({"log": []})
    answers = dict.fromkeys(run.questions().values(), "yes")

    started = run_segment(run.loaded.graph, SegmentRequest("start", spec_of(Command(resume=answers))), saver=run.saver)

    assert [call.resume_map for call in started.next] == [None, None]


def one_node(node: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("a", node)
    builder.add_edge(START, "a")
    return builder.compile()


# --------------------------------------------------------------------------- words


def test_a_call_comes_back_from_json_as_it_was() -> None:
    import json

    around = NodeCall("sub", ("__pregel_pull", "sub"), True, 25, "", "c0", "e0", False, True, False, True)
    call = NodeCall(
        name="item",
        path=("__pregel_push", 3),
        sole=False,
        stop=25,
        checkpoint_ns="sub:e0",
        checkpoint_id="c1",
        execution_id="e1",
        addressed=True,
        resuming=None,
        replaying=True,
        answered=False,
        cache=CacheAddress(("ns",), "key", 60),
        replay=Replay("c0", ("sub",)),
        root_run_id="r",
        outer=around,
        tries=2,
        since=1.5,
        queue="gpu",
    )

    assert NodeCall.from_dict(json.loads(json.dumps(call.to_dict()))) == call
    assert NodeCall.from_dict({**call.to_dict(), "of a newer release": 1}) == call


class Compared(str):
    """A task's id that counts how often it is compared."""

    times = 0
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return str.__eq__(self, other)

    def __str__(self) -> str:  # LangGraph asks for it, and would get a plain one
        return self


def comparisons_of_an_advance(width: int) -> int:
    builder = StateGraph(State)
    builder.add_node("item", lambda state: {"log": ["x"]})
    builder.add_conditional_edges(START, lambda state: [Send("item", {})] * width, ["item"])
    graph, saver, spec = builder.compile(), InMemorySaver(), spec_of({"log": []})
    calls = run_segment(graph, SegmentRequest("start", spec), saver=saver)
    save(saver, calls.ops)
    for call in calls.next:
        save(saver, [PutWrites("", call.checkpoint_id, call.execution_id, "", (("log", ["x"]),))])
    found = saver.get_tuple(CONFIG)
    assert found is not None
    counted = [(Compared(owner), channel, value) for owner, channel, value in found.pending_writes or ()]
    saver.get_tuple = lambda config: found._replace(pending_writes=list(counted))  # type: ignore[method-assign]
    settled = {call.execution_id: "done" for call in calls.next}

    Compared.times = 0
    result = run_segment(graph, SegmentRequest("advance", spec, calls.next[-1], settled=settled), saver=saver)

    assert result.status == "success"
    return Compared.times


def test_what_an_advance_costs_grows_with_its_siblings_and_not_with_their_square() -> None:
    narrow, wide = comparisons_of_an_advance(20), comparisons_of_an_advance(80)

    assert 0 < wide <= 5 * narrow


# --------------------------------------------------------------------------- ids


def test_a_checkpoint_id_comes_after_its_parent_s_though_the_clock_is_behind() -> None:
    ahead = lg.uuid6()
    parent = str(lg.UUID(int=ahead.int + ((3600 * 10**7 >> 12) << 80), version=6))  # an hour

    ids = [parent]
    for step in range(3):
        ids.append(id_after(ids[-1], step))

    assert ids == sorted(set(ids))
    assert {lg.UUID(one).version for one in ids} == {6}


def test_a_thread_goes_on_from_a_checkpoint_of_a_clock_that_was_ahead() -> None:
    run = Bench(line)
    run.run({"log": ["in"]}, interrupt_before=["b"])
    head = run.saver.get_tuple(CONFIG)
    assert head is not None
    future = str(lg.UUID(int=lg.UUID(head.checkpoint["id"]).int + (1 << 116), version=6))
    run.saver.put(head.config, {**head.checkpoint, "id": future}, head.metadata, head.checkpoint["channel_versions"])

    run.run(None)

    assert run.state().values == {"log": ["in", "a", "b", "c"]}
    assert run.state().config["configurable"]["checkpoint_id"] > future


def test_a_subgraph_goes_on_from_a_checkpoint_of_a_clock_that_was_ahead() -> None:
    sub = one_node(lambda state: {"log": [interrupt("one?"), interrupt("two?")]})
    run = Bench(one_node(sub))
    run.run({"log": []})
    head = next(found for found in run.saver.list(CONFIG) if found.config["configurable"]["checkpoint_ns"])
    future = str(lg.UUID(int=lg.UUID(head.checkpoint["id"]).int + (1 << 116), version=6))
    moved = run.saver.put(
        head.config, {**head.checkpoint, "id": future}, head.metadata, head.checkpoint["channel_versions"]
    )
    for task_id, channel, value in head.pending_writes or []:
        run.saver.put_writes(moved, [(channel, value)], task_id)

    run.run(Command(resume="1"))
    run.run(Command(resume="2"))

    assert run.state().values == {"log": ["1", "2"]}


class LosesItsLease(InMemorySaver):
    """As the farm's, of an execution that was taken over while its node ran."""

    def put(self, config: Any, *args: Any) -> Any:
        if config["configurable"].get("checkpoint_ns"):
            raise FencedOut(execution_id="x")
        return super().put(config, *args)


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_node_that_was_taken_over_ends_in_silence(is_alone: bool) -> None:
    sub = one_node(lambda state: {"log": ["inside"]})
    executed, handled = [], []

    def calls(state: State) -> State:
        executed.append("calls")
        return {"log": sub.invoke({"log": []})["log"]}

    def handler(state: State, error: NodeError) -> State:
        handled.append(error)
        return {"log": ["handled"]}

    builder = StateGraph(State)
    builder.add_node("calls", calls, retry_policy=RetryPolicy(initial_interval=0), error_handler=handler)
    builder.add_edge(START, "calls")
    if not is_alone:
        builder.add_node("other", lambda state: {"log": ["other"]})
        builder.add_edge(START, "other")
    graph = builder.compile()
    saver, told = LosesItsLease(), list[Any]()
    spec = RunSpec("run", "1", "graph", {"log": []}, CONFIG, {"stream_mode": ["tasks", "updates"], "subgraphs": True})
    started = run_segment(graph, SegmentRequest("start", spec), saver=saver)
    save(saver, started.ops)
    call = next(call for call in started.next if call.name == "calls")

    with pytest.raises(LeaseLost):
        run_segment(graph, SegmentRequest("node", spec, call), saver=saver, sink=told.append)

    assert executed == ["calls"]
    assert handled == []
    assert [chunk for chunk in told if "LeaseLost" in repr(chunk) or "FencedOut" in repr(chunk)] == []


# --------------------------------------------------------------------------- what it stands on


def test_a_name_that_langgraph_does_not_use_any_more_fails_at_import() -> None:
    with pytest.raises(ImportError, match="NoSuchLoop"):
        lg.rebind(lg.STREAM, NoSuchLoop=None)


def test_the_engine_loads_no_web_framework_no_queue_and_no_driver() -> None:
    modules = "segment graphs events jsonable contention steps"
    code = "import sys\n" + "\n".join(f"import agentfarm.engine.{name}" for name in modules.split())
    code += "\nprint([m for m in ('django', 'celery', 'kombu', 'redis', 'sqlalchemy', 'psycopg') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
