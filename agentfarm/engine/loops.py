"""The loop of loop.py over LangGraph's sync and async ones, and what stock makes anew in every loop made once.

A message costs about what a superstep of stock does in process: it is one loop a message, so what a loop makes when it
is entered counts.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.checkpoint_ids import create_checkpoint
from agentfarm.engine.loop import SegmentLoop

_takes_path: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def _put_writes_takes_path(put_writes: Callable[..., Any]) -> bool:
    """Stock asks `inspect.signature` in every loop (0.1 ms); it is the same for all savers of a class."""
    function = getattr(put_writes, "__func__", None)
    if function is None:
        return lg.put_writes_accepts_task_path(put_writes)
    if function not in _takes_path:
        _takes_path[function] = lg.put_writes_accepts_task_path(put_writes)
    return _takes_path[function]


class _LazyExecutor(lg.BackgroundExecutor):
    """The thread pool is made when something is submitted: for a lone node, never."""

    def __init__(self, config: Any) -> None:
        self._config, self._making = config, threading.Lock()
        self._pool: Any = None
        self.stack, self.tasks = contextlib.ExitStack(), {}

    @property
    def executor(self) -> Any:  # type: ignore[override]  # stock sets it, and reads it only
        with self._making:
            if self._pool is None:
                self._pool = self.stack.enter_context(lg.get_executor_for_config(self._config))
        return self._pool


_NOTHING_TO_WAIT_FOR: concurrent.futures.Future[None] = concurrent.futures.Future()
_NOTHING_TO_WAIT_FOR.set_result(None)

#: Stock's, with ids that never go back.
put_checkpoint = lg.rebind(lg.SyncPregelLoop._put_checkpoint, create_checkpoint=create_checkpoint)


class SyncSegmentLoop(SegmentLoop, lg.SyncPregelLoop):
    _stock_init = lg.rebind(lg.SyncPregelLoop.__init__, put_writes_accepts_task_path=_put_writes_takes_path)
    __enter__ = lg.rebind(lg.SyncPregelLoop.__enter__, BackgroundExecutor=_LazyExecutor)
    _put_checkpoint = put_checkpoint

    def _done(self) -> Any:
        return _NOTHING_TO_WAIT_FOR

    def match_cached_writes(self) -> Any:
        # Of a node that was just loaded, the cache was asked before it was handed over.
        loaded, self._just_loaded = self._just_loaded, False
        return self._after_match(() if loaded else super().match_cached_writes())


class AsyncSegmentLoop(SegmentLoop, lg.AsyncPregelLoop):
    _stock_init = lg.rebind(lg.AsyncPregelLoop.__init__, put_writes_accepts_task_path=_put_writes_takes_path)
    _put_checkpoint = put_checkpoint

    def _done(self) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def amatch_cached_writes(self) -> Any:
        loaded, self._just_loaded = self._just_loaded, False
        return self._after_match(() if loaded else await super().amatch_cached_writes())
