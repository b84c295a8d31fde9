"""Run one message's part of a run: stock `Pregel.stream` once, over the loop of loop.py.

Pure with respect to stores: the answer says what to save, and what follows. Written at once, through the saver it is
given, are only the results of `@task` calls, the mark of a failed node that has an error handler, the checkpoints of
graphs that a node runs, and all of a run that is executed inline.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langgraph.cache.base import BaseCache
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.pregel import Pregel
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

from agentfarm.engine import _langgraph as lg
from agentfarm.engine import cache_keys as _cache_keys  # noqa: F401  # the default key of a CachePolicy
from agentfarm.engine import children as _children  # noqa: F401  # graphs that nodes run
from agentfarm.engine.callbacks import SEGMENT, async_manager, sync_manager
from agentfarm.engine.levels import Segment, Sink
from agentfarm.engine.loops import AsyncSegmentLoop, SyncSegmentLoop
from agentfarm.engine.node import EXECUTION, Execution
from agentfarm.engine.outlet import AsyncOutlet, AsyncRunner, SyncOutlet, SyncRunner, output
from agentfarm.engine.steps import SegmentRequest, SegmentResult
from agentfarm.errors import LeaseLost, Stale, Unavailable

__all__ = ["SegmentRequest", "SegmentResult", "aexecute", "arun_segment", "execute", "inline_reason", "run_segment"]


#: What ends a segment without deciding anything: the message or this worker is wrong, not the run.
NOT_THE_RUNS = (Stale, LeaseLost, Unavailable, KeyboardInterrupt, asyncio.CancelledError)


def run_segment(
    graph: Pregel[Any, Any, Any, Any],
    request: SegmentRequest,
    *,
    saver: BaseCheckpointSaver[Any],
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    sink: Sink | None = None,
) -> SegmentResult:
    """Execute the part of a run that a message asks for.

    graph   compiled; left unchanged, so that one serves all tenants and threads at once
    saver   bound to this execution; replaces the graph's own. Its `get_tuple` answers the checkpoint of the call
    store   replaces the graph's own, where one is given
    cache   for results of nodes with a CachePolicy; replaces the graph's own, and those of graphs inside of it
    sink    gets every chunk that stock `stream` would have yielded, the moment it is made and from whatever thread;
            must neither block nor raise
    raises  Stale when the checkpoint or the execution is not there; LeaseLost and Unavailable when the saver refused
            a write that could not wait: nothing is decided. Errors of the node and of the run are in the result
    """
    segment = Segment(request, saver=saver, store=store, cache=cache, sink=sink)
    execute(graph, segment)
    return segment.result()


async def arun_segment(
    graph: Pregel[Any, Any, Any, Any],
    request: SegmentRequest,
    *,
    saver: BaseCheckpointSaver[Any],
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    sink: Sink | None = None,
) -> SegmentResult:
    """The same through `astream`, on the running event loop. Cancelled, it raises and nothing is to be saved."""
    segment = Segment(request, saver=saver, store=store, cache=cache, sink=sink)
    await aexecute(graph, segment)
    return segment.result()


def execute(graph: Pregel[Any, Any, Any, Any], segment: Segment) -> None:
    """Run the segment and leave what came of it in it."""
    try:
        for _ in _stream(graph, _input(segment), _config(segment), **segment.run.kwargs):
            raise RuntimeError("a chunk went past the sink")
    except NOT_THE_RUNS:
        raise
    except BaseException as error:  # whatever a node raises ends its run, not the worker: sys.exit() as well
        segment.fail(error)
    finally:
        segment.leave()


async def aexecute(graph: Pregel[Any, Any, Any, Any], segment: Segment) -> None:
    """Run the segment and leave what came of it in it."""
    try:
        async for _ in _astream(graph, _input(segment), _config(segment), **segment.run.kwargs):
            raise RuntimeError("a chunk went past the sink")
    except NOT_THE_RUNS:
        raise
    except BaseException as error:
        segment.fail(error)
    finally:
        segment.leave()


def inline_reason(kwargs: Mapping[str, Any]) -> str | None:
    """Why the state of a run cannot leave the process between two nodes; None when it can."""
    if kwargs.get("durability") == "exit":
        return "durability is 'exit': nothing is saved before the end"
    return None


# --------------------------------------------------------------------------- stock stream, again


def _sync_loop(input: Any, *, config: Any, stream: Any, **kwargs: Any) -> SyncSegmentLoop:
    segment: Segment = config[lg.CONF].pop(SEGMENT)
    stream.__call__.__self__.sink = segment.sink
    return SyncSegmentLoop(segment.top, input, config=config, stream=stream, **kwargs)


def _async_loop(input: Any, *, config: Any, stream: Any, **kwargs: Any) -> AsyncSegmentLoop:
    segment: Segment = config[lg.CONF].pop(SEGMENT)
    stream.__call__.__self__.sink = segment.sink
    return AsyncSegmentLoop(segment.top, input, config=config, stream=stream, **kwargs)


_stream = lg.rebind(
    lg.STREAM,
    SyncPregelLoop=_sync_loop,
    SyncQueue=SyncOutlet,
    PregelRunner=SyncRunner,
    _output=output,
    get_callback_manager_for_config=sync_manager,
)
_astream = lg.rebind(
    lg.ASTREAM,
    AsyncPregelLoop=_async_loop,
    AsyncQueue=AsyncOutlet,
    PregelRunner=AsyncRunner,
    _output=output,
    get_async_callback_manager_for_config=async_manager,
)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _input(segment: Segment) -> Any:
    return segment.run.input if segment.top.kind == "start" else None


def _config(segment: Segment) -> dict[str, Any]:
    """The run's config, with what this message adds. The run's own is shared by its messages and stays as it is."""
    run = segment.run
    conf = {"thread_id": run.thread_id, **run.config.get(lg.CONF, {})}
    config = {**run.config, lg.CONF: conf}
    if segment.top.kind != "start":
        given = conf.pop(lg.CONFIG_KEY_CHECKPOINT_ID, None)
        if given is not None:  # where the run began; nodes and callbacks see it in their metadata, as in stock
            config["metadata"] = {lg.CONFIG_KEY_CHECKPOINT_ID: given, **(config.get("metadata") or {})}
    elif segment.attempt == 1 and (run_id := _uuid(run.run_id)) is not None:
        # The callbacks' id of the whole graph is the run's own, so that a trace is found by it. As the Agent Server
        # does it, not in a second attempt: a tracer may have been told of the first.
        config.setdefault("run_id", run_id)
    conf[lg.CONFIG_KEY_CHECKPOINTER] = segment.saver
    if segment.cache is not None:
        conf[lg.CONFIG_KEY_CACHE] = segment.cache
    if segment.store is not None:
        conf[lg.CONFIG_KEY_RUNTIME] = Runtime(store=segment.store)
    if run.inline and segment.attempt > 1:
        conf[EXECUTION] = Execution(segment.top, task_id="", continues=True)
    conf[SEGMENT] = segment
    return config
