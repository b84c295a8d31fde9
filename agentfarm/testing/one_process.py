"""Workers of the coordinator in coordinator.py, and whole runs in this thread or on this event loop."""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from langgraph.cache.base import BaseCache
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore

from agentfarm.engine.levels import Segment, Sink
from agentfarm.engine.segment import aexecute, run_segment
from agentfarm.engine.steps import RunSpec, SegmentRequest
from agentfarm.errors import Stale
from agentfarm.testing.coordinator import Coordinator, Message, OpenRun, Saver


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker process holds: the graph, ways to the stores, and where chunks go."""

    coordinator: Coordinator
    graph: Pregel[Any, Any, Any, Any]
    saver: Saver
    store: BaseStore | None = None
    cache: BaseCache[Any] | None = None
    sink: Sink | None = None

    def work(self, message: Message) -> None:
        """One message: usually one node execution, and the advance if it was the last of its superstep."""
        request = self.coordinator.begin(message)
        while request is not None:
            try:
                result = run_segment(
                    self.graph, request, saver=self.saver, store=self.store, cache=self.cache, sink=self.sink
                )
            except Stale:
                request = self.coordinator.begin(_at_its_checkpoint(request, message))
                continue
            request = self.coordinator.commit(request, result, self.saver)

    async def awork(self, message: Message) -> None:
        """The same on the event loop. Cancelled, it keeps what LangGraph keeps: what was finished; nothing follows."""
        request = self.coordinator.begin(message)
        while request is not None:
            segment = Segment(request, saver=self.saver, store=self.store, cache=self.cache, sink=self.sink)
            try:
                await aexecute(self.graph, segment)
            except Stale:
                request = self.coordinator.begin(_at_its_checkpoint(request, message))
                continue
            except asyncio.CancelledError:
                await _to_the_end(self.coordinator.acommit(request, segment.result(), self.saver, cancelled=True))
                raise
            request = await _to_the_end(self.coordinator.acommit(request, segment.result(), self.saver))


def _at_its_checkpoint(request: SegmentRequest, message: Message) -> Message:
    """The thread's head is not the run's: somebody has updated the state meanwhile. As in stock, the run goes on from
    its own checkpoint.

    raises  Stale when it is not there either
    """
    call = request.call
    if call is None or call.addressed:
        raise Stale(where=f"run {request.run.run_id}")
    outer = replace(call.outer, addressed=True) if call.outer else None
    return replace(message, call=replace(call, addressed=True, outer=outer))


async def _to_the_end(commit: Coroutine[Any, Any, SegmentRequest | None]) -> SegmentRequest | None:
    """A commit is not cut in two by a cancellation."""
    task = asyncio.ensure_future(commit)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def execute_run(
    graph: Pregel[Any, Any, Any, Any],
    spec: RunSpec,
    *,
    saver: Saver,
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    sink: Sink | None = None,
    newest_first: bool = False,
) -> OpenRun:
    """A whole run, message by message, in this thread; returns it when no message is left.

    newest_first  the message published last is worked first
    """
    inbox: deque[Message] = deque()
    coordinator = Coordinator(inbox.append)
    run = coordinator.create(spec)
    worker = Worker(coordinator, graph, saver, store, cache, sink)
    while inbox:
        message = inbox.pop() if newest_first else inbox.popleft()
        time.sleep(message.delay_seconds)
        worker.work(message)
    return run


async def aexecute_run(
    graph: Pregel[Any, Any, Any, Any],
    spec: RunSpec,
    *,
    saver: Saver,
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    sink: Sink | None = None,
    newest_first: bool = False,
) -> OpenRun:
    """The same through `astream`."""
    inbox: deque[Message] = deque()
    coordinator = Coordinator(inbox.append)
    run = coordinator.create(spec)
    worker = Worker(coordinator, graph, saver, store, cache, sink)
    while inbox:
        message = inbox.pop() if newest_first else inbox.popleft()
        await asyncio.sleep(message.delay_seconds)
        await worker.awork(message)
    return run
