"""UntrackedValue: a value of one run that no checkpoint keeps. Runs are cut into nodes and give what stock gives."""

import operator
import threading
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langgraph.channels.untracked_value import UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from agentfarm.engine.segment import inline_reason, run_segment
from agentfarm.engine.steps import NodeCall, RunSpec, SegmentRequest, SegmentResult
from agentfarm.engine.untracked import MAX_BYTES
from agentfarm.testing.coordinator import Coordinator, Message
from agentfarm.testing.one_process import Worker

from .conftest import CONFIG, Bench

MakeBench = Callable[..., Bench]


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    scratch: Annotated[Any, UntrackedValue]
    either: Annotated[Any, UntrackedValue(object, guard=False)]


def line(**nodes: Any) -> Any:
    builder = StateGraph(State)
    names = [START, *nodes]
    for before, name in zip(names, nodes, strict=False):
        builder.add_node(name, nodes[name])
        builder.add_edge(before, name)
    return builder.compile()


def tell(state: State) -> State:
    return {"log": [state.get("scratch"), state.get("either")]}


def messages_of(graph: Any, input: Any) -> list[str]:
    """The nodes that were messages of their own, in order."""
    inbox: list[Message] = []
    coordinator = Coordinator(inbox.append)
    coordinator.create(RunSpec("run", "1", "graph", input, CONFIG, {"stream_mode": []}))
    worker, seen = Worker(coordinator, graph, InMemorySaver()), []
    while inbox:
        message = inbox.pop(0)
        seen.append(message.call.name if message.call else "start")
        worker.work(message)
    return seen


def test_a_value_goes_from_node_to_node_and_ends_with_its_run(bench: MakeBench) -> None:
    run = bench(line(a=tell, b=lambda s: {"scratch": {"n": s["scratch"]["n"] + 1}}, c=tell))

    run.run({"log": [], "scratch": {"n": 1}})
    assert run.state().values == {"log": [{"n": 1}, None, {"n": 2}, None]}

    run.run({"log": [], "scratch": {"n": 5}})
    assert run.state().values["log"][4:] == [{"n": 5}, None, {"n": 6}, None]
    assert all("scratch" not in values for values, *_ in run.history())


def test_each_node_is_a_message() -> None:
    graph = line(a=tell, b=tell)

    assert inline_reason({}) is None
    assert messages_of(graph, {"log": [], "scratch": "x"}) == ["start", "a", "b"]


def test_a_run_does_not_find_the_value_of_the_run_before(bench: MakeBench) -> None:
    run = bench(line(a=tell))

    run.run({"log": [], "scratch": 1})
    run.run({"log": []})

    assert run.state().values["log"] == [1, None, None, None]


def test_a_value_is_gone_when_a_human_answers(bench: MakeBench) -> None:
    run = bench(line(a=tell, b=lambda s: {"log": [interrupt("sure?")]}, c=tell))

    run.run({"log": [], "scratch": 1})
    run.run(Command(resume="yes", update={"either": 2}))

    assert run.state().values["log"] == [1, None, "yes", None, 2]


def test_what_a_node_changes_in_place_is_what_the_next_one_finds(bench: MakeBench) -> None:
    def count(state: State) -> State:
        state["scratch"]["n"] += 1
        return {"log": [state["scratch"]["n"]]}

    run = bench(line(a=count, b=count, c=count))
    run.run({"log": [], "scratch": {"n": 0}})

    assert run.state().values["log"] == [1, 2, 3]


def test_what_several_nodes_write_at_once_is_applied(bench: MakeBench) -> None:
    builder = StateGraph(State)
    for name in ("left", "right"):
        builder.add_node(name, lambda s, name=name: {"log": [name], "either": name})
        builder.add_edge(START, name)
    builder.add_node("end", tell)
    builder.add_edge(["left", "right"], "end")
    graph = builder.compile()
    run = bench(graph)

    run.run({"log": [], "scratch": 7})

    assert run.state().values["log"] == ["left", "right", 7, "right"]
    assert messages_of(graph, {"log": []}) == ["start", "end"]


def test_a_sent_node_finds_the_keys_that_no_checkpoint_keeps(bench: MakeBench) -> None:
    builder = StateGraph(State)
    builder.add_node("a", lambda s: {})
    builder.add_node("b", tell)
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda s: [Send("b", {"scratch": "sent"})], ["b"])
    run = bench(builder.compile())

    run.run({"log": []})

    assert run.state().values["log"] == ["sent", None]


def test_a_live_object_keeps_the_run_with_its_worker(bench: MakeBench) -> None:
    def use(state: State) -> State:
        with state["scratch"]:
            return {"log": ["used"]}

    graph = line(
        before=tell, opens=lambda s: {"scratch": threading.Lock()}, x=use, close=lambda s: {"scratch": 0}, y=tell
    )
    run = bench(graph)
    run.run({"log": []})

    assert run.state().values["log"] == [None, None, "used", 0, None]
    assert messages_of(graph, {"log": []}) == ["start", "before", "opens", "y"]


def test_what_is_big_is_not_written_with_every_node() -> None:
    graph = line(a=tell, b=tell)

    assert messages_of(graph, {"log": [], "scratch": "x" * (MAX_BYTES - 100)}) == ["start", "a", "b"]
    assert messages_of(graph, {"log": [], "scratch": "x" * (MAX_BYTES + 1)}) == ["start"]


def test_a_second_attempt_finds_what_the_first_one_found() -> None:
    graph, saver = line(a=tell, b=tell), InMemorySaver()
    spec = RunSpec("run", "1", "graph", {"log": [], "scratch": {"n": 1}}, CONFIG, {"stream_mode": []})
    started = run_segment(graph, SegmentRequest("start", spec), saver=saver)
    save_checkpoints(saver, started)
    call = NodeCall.from_dict(started.next[0].to_dict())
    assert call == started.next[0]

    for attempt in (1, 2):
        result = run_segment(graph, SegmentRequest("node", spec, call, attempt=attempt), saver=saver)

        assert result.ops[0].writes[0] == ("log", [{"n": 1}, None])


def save_checkpoints(saver: InMemorySaver, result: SegmentResult) -> None:
    for op in result.ops:
        if hasattr(op, "checkpoint"):
            saver.put(op.config, op.checkpoint, op.metadata, op.new_versions)


def test_a_value_reaches_a_subgraph_and_comes_back(bench: MakeBench) -> None:
    sub = line(x=lambda s: {"scratch": s["scratch"] + 1}, y=tell)
    run = bench(line(a=lambda s: {"scratch": 1}, sub=sub, c=tell))

    run.run({"log": []})

    assert run.state().values["log"] == [2, None, 2, None]
