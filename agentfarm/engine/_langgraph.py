"""Every private name of LangGraph that the engine stands on: one page to read at each upgrade.

Nothing else in the project imports `langgraph.pregel._*` or `langgraph._internal` (the serializer's are in
_langgraph_serde.py). A release that renames one of these fails here, at import, and not in the middle of a run.
Written against langgraph 1.2.24 and langchain-core 1.8.3; `make upstream` runs LangGraph's own tests over it.
"""

from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

from langchain_core.globals import get_debug
from langchain_core.runnables.config import get_executor_for_config
from langchain_core.tracers.context import _configure_hooks, _tracing_v2_is_enabled
from langchain_core.tracers.core import _TracerCore
from langchain_core.tracers.event_stream import _AstreamEventsCallbackHandler
from langchain_core.utils.env import env_var_is_set
from langgraph._internal import _cache
from langgraph._internal._config import (
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    patch_configurable,
)
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CACHE,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_MAP,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_REPLAY_STATE,
    CONFIG_KEY_RESUME_MAP,
    CONFIG_KEY_RESUMING,
    CONFIG_KEY_RUNTIME,
    CONFIG_KEY_TASK_ID,
    ERROR,
    ERROR_SOURCE_NODE,
    INPUT,
    INTERRUPT,
    NULL_TASK_ID,
    RESUME,
    TASKS,
)
from langgraph._internal._queue import AsyncQueue, SyncQueue  # type: ignore[attr-defined]  # it opens with "type: ignore"
from langgraph._internal._replay import ReplayState
from langgraph._internal._runnable import RunnableCallable, RunnableSeq
from langgraph.channels.untracked_value import UntrackedValue
from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.base.id import UUID, uuid6
from langgraph.errors import _mark_invalid_resume, is_invalid_resume
from langgraph.graph.message import add_messages
from langgraph.pregel import main as _main
from langgraph.pregel._algo import (
    PregelTaskWrites,
    _coerce_pending_error,
    apply_writes,
    checkpoint_null_version,
    prepare_next_tasks,
    prepare_single_task,
)
from langgraph.pregel._checkpoint import channels_from_checkpoint, create_checkpoint, put_writes_accepts_task_path
from langgraph.pregel._executor import BackgroundExecutor
from langgraph.pregel._io import read_channels
from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop
from langgraph.pregel._read import PregelNode
from langgraph.pregel._retry import _should_retry_on
from langgraph.pregel._runner import PregelRunner
from langgraph.pregel._task_status import read_task_statuses
from langgraph.pregel._utils import is_xxh3_128_hexdigest
from langgraph.pregel._write import ChannelWrite
from langsmith.run_helpers import get_tracing_context

Pregel = _main.Pregel
AstreamEventsHandler = _AstreamEventsCallbackHandler
TracerCore = _TracerCore

#: Stock, whoever replaces them later (LangGraph's own tests are run that way).
STREAM, ASTREAM = Pregel.stream, Pregel.astream

should_retry_on = _should_retry_on
mark_invalid_resume = _mark_invalid_resume
error_from_write = _coerce_pending_error
coerce_context = _main._coerce_context

#: What the loop's subclass overrides or calls.
_LOOP_METHODS = (
    "_first",
    "_prepare_tasks_and_emit_checkpoint",
    "_put_checkpoint",
    "_reapply_writes_to_succeeded_nodes",
    "_resume_error_handlers_if_applicable",
    "_suppress_interrupt",
    "after_tick",
    "put_writes",
    "tick",
)

#: What run_events.py overrides or calls.
_EVENTS_METHODS = ("_send", "_write_run_start_info", "tap_output_aiter", "tap_output_iter")


def rebind(function: Any, **names: Any) -> Any:
    """The same function, seeing other globals: nobody else's view of the module changes.

    raises  ImportError when the function does not use one of the names any more
    """
    if unused := set(names) - set(_names_in(function.__code__)):
        raise ImportError(f"this langgraph does not use {', '.join(sorted(unused))} in {function.__qualname__}")
    seen = {**function.__globals__, **names}
    new = FunctionType(function.__code__, seen, function.__name__, function.__defaults__, function.__closure__)
    new.__kwdefaults__ = function.__kwdefaults__
    new.__qualname__ = function.__qualname__
    return new


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def output(*args: Any) -> Iterator[Any]:
    """Stock's way from the stream's queue to chunks."""
    return _main._output(*args)


def replace_loops(sync: Callable[..., Any], asynchronous: Callable[..., Any]) -> None:
    """Have every graph of this process ask these for its loop. They answer with the stock one for graphs not ours."""
    _main.__dict__.update(SyncPregelLoop=sync, AsyncPregelLoop=asynchronous)


def replace_freeze(digest_of: Callable[[Any], bytes]) -> None:
    """Have the default key of every CachePolicy of this process made of this function's answers.

    raises  ImportError when the default key is made in another way now
    """
    if "_freeze" not in _cache.default_cache_key.__code__.co_names:
        raise ImportError("this langgraph does not make a CachePolicy's default key by _freeze any more")
    _cache.__dict__.update(_freeze=digest_of)


def listeners_may_exist(config: Mapping[str, Any]) -> bool:
    """Whether `CallbackManager.configure` could find anybody who listens. Tracing can be switched by context, so all
    of it is looked at each time."""
    if config.get("callbacks") or get_debug() or _tracing_v2_is_enabled():
        return True
    if any(var.get() is not None or (env and cls and env_var_is_set(env)) for var, _, cls, env in _configure_hooks):
        return True
    tracing = get_tracing_context()
    return bool(tracing["parent"] or tracing["metadata"] or tracing["tags"])


def resume_map_of(resume: object) -> dict[str, Any] | None:
    """A Command's `resume` if it is {interrupt id: answer}, as LangGraph tells one from a plain dict."""
    if isinstance(resume, dict) and resume and all(is_xxh3_128_hexdigest(key) for key in resume):
        return resume
    return None


def restore_seen(checkpoint: Any, seen: Mapping[str, Any] | None) -> None:
    """Which versions breakpoints count as passed, as it was before stock took an entry for a resumption."""
    if seen is None:
        checkpoint["versions_seen"].pop(INTERRUPT, None)
    else:
        checkpoint["versions_seen"][INTERRUPT] = seen


def _check() -> None:
    missing = [name for name in _LOOP_METHODS if not callable(getattr(PregelLoop, name, None))]
    missing += [name for name in ("SyncPregelLoop", "AsyncPregelLoop") if name not in vars(_main)]
    missing += [] if hasattr(SyncPregelLoop, "match_cached_writes") else ["match_cached_writes"]
    missing += [] if hasattr(AsyncPregelLoop, "amatch_cached_writes") else ["amatch_cached_writes"]
    missing += [
        f"{cls.__name__}._checkpointer_put_after_previous"
        for cls in (SyncPregelLoop, AsyncPregelLoop)
        if "_checkpointer_put_after_previous" not in vars(cls)
    ]
    missing += [name for name in _EVENTS_METHODS if not callable(getattr(AstreamEventsHandler, name, None))]
    if missing:
        raise ImportError(f"this langgraph lacks {', '.join(missing)}")


_check()

__all__ = [
    "ASTREAM",
    "CONF",
    "CONFIG_KEY_CACHE",
    "CONFIG_KEY_CHECKPOINTER",
    "CONFIG_KEY_CHECKPOINT_ID",
    "CONFIG_KEY_CHECKPOINT_MAP",
    "CONFIG_KEY_CHECKPOINT_NS",
    "CONFIG_KEY_REPLAY_STATE",
    "CONFIG_KEY_RESUME_MAP",
    "CONFIG_KEY_RESUMING",
    "CONFIG_KEY_RUNTIME",
    "CONFIG_KEY_TASK_ID",
    "ERROR",
    "ERROR_SOURCE_NODE",
    "INPUT",
    "INTERRUPT",
    "NULL_TASK_ID",
    "RESUME",
    "STREAM",
    "TASKS",
    "UUID",
    "WRITES_IDX_MAP",
    "AstreamEventsHandler",
    "AsyncPregelLoop",
    "AsyncQueue",
    "BackgroundExecutor",
    "ChannelWrite",
    "Pregel",
    "PregelLoop",
    "PregelNode",
    "PregelRunner",
    "PregelTaskWrites",
    "ReplayState",
    "RunnableCallable",
    "RunnableSeq",
    "SyncPregelLoop",
    "SyncQueue",
    "TracerCore",
    "UntrackedValue",
    "add_messages",
    "apply_writes",
    "channels_from_checkpoint",
    "checkpoint_null_version",
    "create_checkpoint",
    "ensure_config",
    "error_from_write",
    "get_async_callback_manager_for_config",
    "get_callback_manager_for_config",
    "get_executor_for_config",
    "is_invalid_resume",
    "listeners_may_exist",
    "mark_invalid_resume",
    "output",
    "patch_configurable",
    "prepare_next_tasks",
    "prepare_single_task",
    "put_writes_accepts_task_path",
    "read_channels",
    "read_task_statuses",
    "rebind",
    "replace_freeze",
    "replace_loops",
    "restore_seen",
    "resume_map_of",
    "should_retry_on",
    "uuid6",
]
