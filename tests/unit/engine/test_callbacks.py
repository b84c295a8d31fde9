"""Handlers see one run, whoever executes its nodes."""

import asyncio
import logging
import uuid
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.langchain import LangChainTracer
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.steps import RunSpec
from agentfarm.testing.one_process import aexecute_run, execute_run

from .test_run_events import GRAPHS, config

Told = list[tuple[str, dict[str, Any]]]


class Recorder(BaseCallbackHandler):
    """(what, who) in order; who is {run_id, parent_run_id, name, tags, metadata}, as far as told."""

    run_inline = True

    def __init__(self) -> None:
        self.told: Told = []

    def on_chain_start(self, serialized: Any, inputs: Any, **told: Any) -> None:
        self.told.append(("start", told))

    def on_chain_end(self, outputs: Any, **told: Any) -> None:
        self.told.append(("end", told))

    def on_chain_error(self, error: BaseException, **told: Any) -> None:
        self.told.append(("error", told))

    def of(self, run_id: uuid.UUID) -> list[str]:
        return [what for what, told in self.told if told["run_id"] == run_id]


class FakeLangSmith:
    """What LangSmith's client is asked to send."""

    def __init__(self) -> None:
        self.created: dict[uuid.UUID, dict[str, Any]] = {}
        self.updated: list[dict[str, Any]] = []

    def create_run(self, **run: Any) -> None:
        assert run["id"] not in self.created
        self.created[run["id"]] = run

    def update_run(self, **run: Any) -> None:
        self.updated.append(run)


def run(graph: Any, input: Any, saver: InMemorySaver | None = None, **more: Any) -> uuid.UUID:
    """One run, message by message; the id of it."""
    loaded = describe_graph("g", graph)
    run_id = str(uuid.uuid4())
    spec = RunSpec(run_id, "1", "g", input, config(run_id), {"stream_mode": ["updates"]}, **more)
    if loaded.is_async:
        asyncio.run(aexecute_run(loaded.graph, spec, saver=saver or InMemorySaver()))
    else:
        execute_run(loaded.graph, spec, saver=saver or InMemorySaver())
    return uuid.UUID(run_id)


@pytest.mark.parametrize(
    ("what", "ends"),
    [("line", "end"), ("line, async", "end"), ("node that fails", "error"), ("subgraph", "end"), ("fan-out", "end")],
)
def test_a_run_is_begun_once_and_ended_once(what: str, ends: str) -> None:
    recorder = Recorder()
    graph, (given, *_) = GRAPHS[what]

    root = run(graph.with_config(callbacks=[recorder]), given)

    assert recorder.of(root) == ["start", ends]
    assert recorder.told[0][1]["run_id"] == root
    assert recorder.told[-1][1]["run_id"] == root
    started = {told["run_id"]: told for what, told in recorder.told if what == "start"}
    for told in started.values():
        assert told["parent_run_id"] in started or told["run_id"] == root
        assert "tagged" in told["tags"]
        assert told["metadata"]["about"] == "it"
        assert told["metadata"]["thread_id"] == "1"
    assert started[root]["name"] == "named"


def test_a_question_ends_a_run_and_its_answer_is_another() -> None:
    recorder, saver = Recorder(), InMemorySaver()
    graph = GRAPHS["question and answer"][0].with_config(callbacks=[recorder])

    first = run(graph, {"log": []}, saver)
    second = run(graph, Command(resume="yes"), saver)

    assert recorder.of(first) == ["start", "end"]
    assert recorder.of(second) == ["start", "end"]


@pytest.mark.parametrize("what", ["line", "tokens, async", "subgraph", "fan-out", "node that fails", "loop"])
def test_langsmith_gets_one_tree_although_no_process_knows_it_whole(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeLangSmith()
    tracer = LangChainTracer(client=client, project_name="p")  # type: ignore[arg-type]
    graph, (given, *_) = GRAPHS[what]

    with caplog.at_level(logging.WARNING):
        root = run(graph.with_config(callbacks=[tracer]), given)

    assert caplog.records == []
    order = client.created[root]["dotted_order"]
    for run_id, sent in client.created.items():
        assert sent["trace_id"] == root
        assert sent["dotted_order"].startswith(order)
        parent = sent.get("parent_run_id")
        assert (parent is None) == (run_id == root)
        if parent is not None:
            assert sent["dotted_order"].startswith(client.created[parent]["dotted_order"] + ".")
    (end,) = [sent for sent in client.updated if sent["run_id"] == root]
    assert end["dotted_order"] == order
    assert end.get("inputs") is None
    assert bool(end["error"]) == (what == "node that fails")
    assert end["outputs"] or what == "node that fails"
    assert {sent["run_id"] for sent in client.updated} == set(client.created)
    # Nothing is left in a tracer that lives as long as its process.
    assert tracer.run_map == {}
    assert root not in tracer.order_map


def test_a_tracer_of_one_s_own_is_told_of_each_node_under_its_run(caplog: pytest.LogCaptureFixture) -> None:
    class Tracer(BaseTracer):
        def __init__(self) -> None:
            super().__init__()
            self.persisted: list[Any] = []

        def _persist_run(self, run: Any) -> None:
            self.persisted.append(run)

    tracer = Tracer()
    graph, (given, *_) = GRAPHS["line"]

    with caplog.at_level(logging.WARNING):
        root = run(graph.with_config(callbacks=[tracer]), given)

    assert caplog.records == []
    assert [one.id for one in tracer.persisted] == [root]
    assert tracer.persisted[0].outputs == {"log": ["said", "said"]}


def test_a_second_attempt_of_a_start_is_another_run_for_the_callbacks() -> None:
    """A tracer may have been told of the first: an id that is told twice is refused, and the trace is lost."""
    from agentfarm.engine.segment import run_segment
    from agentfarm.engine.steps import SegmentRequest

    recorder = Recorder()
    graph = GRAPHS["line"][0].with_config(callbacks=[recorder])
    run_id = str(uuid.uuid4())
    spec = RunSpec(run_id, "1", "g", {"log": []}, config(run_id), {"stream_mode": ["updates"]})

    results = [
        run_segment(graph, SegmentRequest("start", spec, attempt=attempt), saver=InMemorySaver()) for attempt in (1, 2)
    ]

    assert results[0].root_run_id == run_id
    assert results[1].root_run_id != run_id
    assert {call.root_run_id for call in results[1].next} == {results[1].root_run_id}
