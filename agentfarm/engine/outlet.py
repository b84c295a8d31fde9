"""Chunks leave the moment they are made, in order, from whatever thread made them: the sink.

Stock `stream` puts chunks on a queue and yields them between two steps of a waiter, which costs two threads a node.
Here the queue itself formats each chunk and hands it over, and the waiter is left out, so that stock runs a lone node
in the caller's own thread. The sink is called inside the node: it must neither block nor raise.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.levels import Sink


class _Outlet:
    """A stream's queue that hands its chunks to the sink."""

    sink: Sink
    #: Stock's `_output` with this stream's arguments; known once stock has asked for output the first time, which it
    #: does before any node runs.
    format: Callable[[], Iterator[Any]] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._flushing = threading.RLock()

    def flush(self) -> None:
        if self.format is None:
            return
        with self._flushing:
            for chunk in self.format():
                self.sink(chunk)


class SyncOutlet(_Outlet, lg.SyncQueue):  # type: ignore[misc]  # stock's has no types
    def put(self, *args: Any, **kwargs: Any) -> None:
        super().put(*args, **kwargs)
        self.flush()


class AsyncOutlet(_Outlet, lg.AsyncQueue):  # type: ignore[misc]
    def put_nowait(self, item: Any) -> None:
        super().put_nowait(item)
        self.flush()


def output(mode: Any, printed: Any, subgraphs: bool, getter: Any, *rest: Any) -> Iterator[Any]:
    """Stands in for stock's `_output`: there is never anything left to yield."""
    queue = getter.__self__
    queue.format = partial(lg.output, mode, printed, subgraphs, getter, *rest)
    queue.flush()
    return iter(())


class SyncRunner(lg.PregelRunner):
    """Without the waiter, whose work the sink does."""

    def tick(self, tasks: Any, *, get_waiter: Any = None, **kwargs: Any) -> Iterator[None]:
        return super().tick(tasks, get_waiter=None, **kwargs)


class AsyncRunner(lg.PregelRunner):
    """Without the waiter, whose work the sink does."""

    def atick(self, tasks: Any, *, get_waiter: Any = None, **kwargs: Any) -> AsyncIterator[None]:
        if get_waiter is not None and len(tasks) == 1 and kwargs.get("timeout") is None:
            tasks = [replace(task, proc=_LastChunkFirst(task.proc)) for task in tasks]
        return super().atick(tasks, get_waiter=None, **kwargs)


class _LastChunkFirst:
    """A lone async node. Its chunks are put by `call_soon`, its update directly: one turn of the event loop, before
    the node is called done, lets the last chunk out ahead of the update."""

    def __init__(self, proc: Any) -> None:
        self.proc = proc

    async def ainvoke(self, input: Any, config: Any) -> Any:
        try:
            return await self.proc.ainvoke(input, config)
        finally:
            await asyncio.sleep(0)

    async def astream(self, input: Any, config: Any) -> AsyncIterator[Any]:
        try:
            async for chunk in self.proc.astream(input, config):
                yield chunk
        finally:
            await asyncio.sleep(0)
