"""A graph run by the engine and by stock LangGraph, side by side."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.segment import inline_reason
from agentfarm.engine.steps import RunSpec
from agentfarm.testing.coordinator import OpenRun
from agentfarm.testing.one_process import aexecute_run, execute_run

CONFIG: dict[str, Any] = {"configurable": {"thread_id": "1"}}


@dataclass
class Bench:
    """One thread of one graph, and how its runs are executed."""

    graph: Any
    by: Literal["stock", "engine"] = "engine"
    nested: bool = False
    retry_by_message: float | None = None
    newest_first: bool = False
    stream_mode: Any = "updates"
    saver: InMemorySaver = field(default_factory=InMemorySaver)
    store: Any = None
    chunks: list[Any] = field(default_factory=list)
    last: OpenRun | None = None

    def __post_init__(self) -> None:
        self.loaded = describe_graph("graph", self.graph)
        self.own = self.loaded.graph.copy(update={"checkpointer": self.saver, "store": self.store})

    def run(self, input: Any, config: dict[str, Any] | None = None, *, sink: Any = None, **kwargs: Any) -> list[Any]:
        """The chunks of one run. Raises what the run ended with.

        sink  gets them instead, as they are made
        """
        self.chunks = []
        self.sink = sink or self.chunks.append
        kwargs = {"stream_mode": self.stream_mode, **kwargs}
        (self._run_stock if self.by == "stock" else self._run_engine)(input, config or CONFIG, kwargs)
        return self.chunks

    def _run_engine(self, input: Any, config: dict[str, Any], kwargs: dict[str, Any]) -> None:
        spec = RunSpec(
            run_id="run",
            thread_id=config["configurable"]["thread_id"],
            graph_id="graph",
            input=input,
            config=config,
            kwargs=kwargs,
            inline=inline_reason(kwargs),
            nested=self.nested,
            retry_by_message=self.retry_by_message,
        )
        given: dict[str, Any] = {"saver": self.saver, "store": self.store, "sink": self.sink}
        given["newest_first"] = self.newest_first
        if self.loaded.is_async:
            self.last = asyncio.run(aexecute_run(self.loaded.graph, spec, **given))
        else:
            self.last = execute_run(self.loaded.graph, spec, **given)
        if self.last.error is not None:
            raise self.last.error

    def _run_stock(self, input: Any, config: dict[str, Any], kwargs: dict[str, Any]) -> None:
        async def collect() -> None:
            async for chunk in lg.ASTREAM(self.own, input, config, **kwargs):
                self.chunks.append(chunk)

        if self.loaded.is_async:
            asyncio.run(collect())
        else:
            self.chunks.extend(lg.STREAM(self.own, input, config, **kwargs))

    def state(self) -> Any:
        if self.loaded.is_async:
            return asyncio.run(self.own.aget_state(CONFIG))
        return self.own.get_state(CONFIG)

    def history(self) -> list[tuple[Any, ...]]:
        """Each checkpoint without what differs between two equal runs: ids and times."""
        return [
            (
                snapshot.values,
                snapshot.next,
                snapshot.metadata["step"],
                snapshot.metadata["source"],
                [
                    (t.name, t.path[:2], repr(t.error), t.result, [i.value for i in t.interrupts])
                    for t in snapshot.tasks
                ],
            )
            for snapshot in self.own.get_state_history(CONFIG)
        ]

    def questions(self) -> dict[str, str]:
        """{what an interrupt asks: its id}."""
        return {i.value: i.id for i in self.state().interrupts}


@pytest.fixture(params=["stock", "engine", "engine, subgraphs by messages"])
def bench(request: pytest.FixtureRequest) -> Callable[..., Bench]:
    """What is promised is that nobody can tell the difference: each such test runs on stock LangGraph, too."""

    def make(graph: Any, **options: Any) -> Bench:
        by = "stock" if request.param == "stock" else "engine"
        return Bench(graph, by=by, nested="subgraphs" in request.param, **options)

    return make
