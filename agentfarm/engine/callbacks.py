"""One run for the callbacks, however many segments it is executed in.

`on_chain_start` of the graph is told in the start segment only; later segments go on under the same run id, and
`on_chain_end` comes in the segment that ends the run. Handlers come from the worker's environment or from the graph: a
tracer that keeps runs in memory sees the end without the start when they happen in two processes.
"""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks.manager import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    CallbackManager,
    CallbackManagerForChainRun,
)
from langchain_core.utils.uuid import uuid7

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.levels import Segment
from agentfarm.engine.tracers import Traced

#: Where the config brings the segment to the loop and to the callbacks; the loop takes it out. LangGraph keeps keys
#: that begin so out of metadata, events and remote calls.
SEGMENT = "__pregel_agentfarm_segment"


def sync_manager(config: Any) -> CallbackManager:
    """Stands in for stock's `get_callback_manager_for_config` in a segment's own stream."""
    segment: Segment = config[lg.CONF][SEGMENT]
    manager = _bare(CallbackManager, config) or lg.get_callback_manager_for_config(config).copy()
    start = _starting(manager, segment)

    def on_chain_start(*args: Any, **kwargs: Any) -> CallbackManagerForChainRun:
        run: CallbackManagerForChainRun
        if segment.top.kind == "start":
            run = start(*args, **kwargs)
        else:
            run = _continued(CallbackManagerForChainRun, manager, segment, kwargs)
        _note_root(segment, run)
        run.on_chain_end = _only_if(lambda: segment.is_over, run.on_chain_end)  # type: ignore[method-assign]
        run.on_chain_error = _only_if(lambda: _has_failed(segment), run.on_chain_error)  # type: ignore[method-assign]
        return run

    manager.on_chain_start = on_chain_start  # type: ignore[method-assign]
    return manager


def async_manager(config: Any) -> AsyncCallbackManager:
    """Stands in for stock's `get_async_callback_manager_for_config` in a segment's own stream."""
    segment: Segment = config[lg.CONF][SEGMENT]
    manager = _bare(AsyncCallbackManager, config) or lg.get_async_callback_manager_for_config(config).copy()
    start = _starting(manager, segment)

    async def on_chain_start(*args: Any, **kwargs: Any) -> AsyncCallbackManagerForChainRun:
        run: AsyncCallbackManagerForChainRun
        if segment.top.kind == "start":
            run = await start(*args, **kwargs)
        else:
            run = _continued(AsyncCallbackManagerForChainRun, manager, segment, kwargs)
        _note_root(segment, run)
        run.on_chain_end = _only_if_async(lambda: segment.is_over, run.on_chain_end)  # type: ignore[method-assign]
        run.on_chain_error = _only_if_async(lambda: _has_failed(segment), run.on_chain_error)  # type: ignore[method-assign]
        return run

    manager.on_chain_start = on_chain_start  # type: ignore[method-assign]
    return manager


def _starting(manager: Any, segment: Segment) -> Callable[..., Any]:
    """The manager's own `on_chain_start`, with a run id that the handler of events knows beforehand."""
    start: Callable[..., Any] = manager.on_chain_start
    if segment.events is None:
        return start
    events = segment.events
    manager.add_handler(events, inherit=True)

    def told(*args: Any, run_id: UUID | None = None, **kwargs: Any) -> Any:
        run_id = run_id or uuid7()
        events.begin(run_id)
        return start(*args, run_id=run_id, **kwargs)

    return told


def _has_failed(segment: Segment) -> bool:
    """An exception leaves stock `stream`. One node of several settles alone; the others' segments tell the end."""
    return segment.top.decides_run or segment.outcome == "error"


def _bare(cls: Any, config: Any) -> Any:
    """What `configure` comes to where nobody listens, at half its cost; None where somebody may."""
    if lg.listeners_may_exist(config):
        return None
    manager = cls(handlers=[], parent_run_id=None)
    if tags := config.get("tags"):
        manager.add_tags(tags)
    if metadata := config.get("metadata"):
        manager.add_metadata(metadata)
    return manager


def _note_root(segment: Segment, run: Any) -> None:
    """What later segments must know of the run. Also what this one has to give back."""
    segment.root_run_id = str(run.run_id)
    if segment.traced is None and run.handlers:
        segment.traced = Traced(run.handlers, run.run_id)
        segment.root_order = segment.traced.order()


def _continued(cls: Any, manager: Any, segment: Segment, told: Mapping[str, Any]) -> Any:
    """The run that an earlier segment, perhaps in another process, has begun."""
    if segment.root_run_id is None:
        raise RuntimeError("a call came without the callbacks' id of its run")
    root = UUID(segment.root_run_id)
    of_run = {"name": told["name"], "tags": list(manager.tags), "metadata": dict(manager.metadata)}
    if segment.events is not None:
        segment.events.go_on(root, **of_run)
    if segment.root_order is not None:
        segment.traced = Traced(manager.handlers, root)
        segment.traced.lend(segment.root_order, **of_run)
    return cls(
        run_id=root,
        handlers=list(manager.handlers),
        inheritable_handlers=list(manager.inheritable_handlers),
        parent_run_id=manager.parent_run_id,
        tags=list(manager.tags),
        inheritable_tags=list(manager.inheritable_tags),
        metadata=dict(manager.metadata),
        inheritable_metadata=dict(manager.inheritable_metadata),
    )


def _only_if(holds: Callable[[], bool], tell: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: tell(*args, **kwargs) if holds() else None


def _only_if_async(holds: Callable[[], bool], tell: Callable[..., Any]) -> Callable[..., Any]:
    async def told(*args: Any, **kwargs: Any) -> None:
        if holds():
            await tell(*args, **kwargs)

    return told
