"""Graphs that nodes run: stock, but for three things that only exist because a node is a message.

    the subgraph that a node *is* goes on by messages, where the run wants that (RunSpec.nested)
    a graph that an earlier attempt of the node had begun, on a worker that died, is continued and never mistaken:
    one that keeps its history from call to call (`checkpointer=True`) may hold an older call's end
    its checkpoints are saved after the one that its caller stands at, as each graph's own are saved in their order:
    a worker that dies between the two would leave checkpoints that no later attempt finds

The loop is the one thing of LangGraph that is replaced for the whole process; for any other graph it is stock's.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.continuation import check_nodes, is_resumed, next_nodes
from agentfarm.engine.loops import AsyncSegmentLoop, SyncSegmentLoop, put_checkpoint
from agentfarm.engine.node import EXECUTION, Execution


class _ChildLoop:
    """A graph run by one of our node executions. Its ids go on from its last checkpoint's, whoever's clock made it."""

    #: What this loop, of its kind, can wait for until its caller's checkpoint is saved.
    _waiting_for: Callable[[Any], Any]

    def _first(self, *, input_keys: Any, updated_channels: Any) -> Any:
        conf = self.config[lg.CONF]  # type: ignore[attr-defined]
        continues = conf[EXECUTION].continues
        if continues and not self._was_begun_here():
            # Its last checkpoint is of an earlier call, or there is none: this call's input is applied.
            conf.pop(lg.CONFIG_KEY_RESUMING, None)
            continues = False
        if is_resumed(self):
            check_nodes(conf[EXECUTION].level.segment.run.graph_id, next_nodes(self.checkpoint), self.nodes)  # type: ignore[attr-defined]
        versions_seen = self.checkpoint["versions_seen"]  # type: ignore[attr-defined]
        seen = versions_seen.get(lg.INTERRUPT)
        seen = None if seen is None else dict(seen)
        updated = super()._first(input_keys=input_keys, updated_channels=updated_channels)  # type: ignore[misc]
        if continues:
            # To stock, who resumes has been stopped before; nobody was: a breakpoint it comes to is still one.
            lg.restore_seen(self.checkpoint, seen)  # type: ignore[attr-defined]
        return updated

    def _was_begun_here(self) -> bool:
        """Whether its last checkpoint was made under the very checkpoints that its callers stand at now."""
        parents = self.config[lg.CONF].get(lg.CONFIG_KEY_CHECKPOINT_MAP, {})  # type: ignore[attr-defined]
        return bool(self.checkpoint_metadata.get("parents") == parents)  # type: ignore[attr-defined]

    def _put_checkpoint(self, metadata: Any) -> None:
        saving = self.config[lg.CONF][EXECUTION].saving  # type: ignore[attr-defined]
        ns = self.config[lg.CONF].get(lg.CONFIG_KEY_CHECKPOINT_NS, "")  # type: ignore[attr-defined]
        if not hasattr(self, "_put_checkpoint_fut") and (callers := saving.get(self._callers_ns(ns))) is not None:
            self._put_checkpoint_fut = self._waiting_for(callers)
        put_checkpoint(self, metadata)
        saving[ns] = getattr(self, "_put_checkpoint_fut", None)

    def _callers_ns(self, ns: str) -> str:
        """Of the graph whose node calls this one: the longest of those above."""
        parents = self.config[lg.CONF].get(lg.CONFIG_KEY_CHECKPOINT_MAP, {})  # type: ignore[attr-defined]
        return max((parent for parent in parents if parent != ns), key=len, default="")


class _SyncChildLoop(_ChildLoop, lg.SyncPregelLoop):
    @staticmethod
    def _waiting_for(saved: Any) -> Any:
        # What an event loop saves is not waited for: the node that calls this graph may be what the loop waits for.
        return None if asyncio.isfuture(saved) else saved


class _AsyncChildLoop(_ChildLoop, lg.AsyncPregelLoop):
    @staticmethod
    def _waiting_for(saved: Any) -> Any:
        if not asyncio.isfuture(saved):
            return asyncio.wrap_future(saved)
        return saved if saved.get_loop() is asyncio.get_running_loop() else None


def _choose(stock: Callable[..., Any], child: Callable[..., Any], segment: Callable[..., Any]) -> Callable[..., Any]:
    def loop(input: Any, *, config: Any, nodes: Any, **kwargs: Any) -> Any:
        conf = config[lg.CONF]
        execution: Execution | None = conf.get(EXECUTION)
        if execution is None:
            return stock(input, config=config, nodes=nodes, **kwargs)
        if execution.nodes is not nodes or not _is_called_by(execution, conf):
            return child(input, config=config, nodes=nodes, **kwargs)
        execution.nodes = None
        level = execution.level.inner or execution.level.segment.enter("start", None)
        return segment(level, input, config=config, nodes=nodes, **kwargs)

    return loop


def _is_called_by(execution: Execution, conf: Any) -> bool:
    ns: str = conf.get(lg.CONFIG_KEY_CHECKPOINT_NS, "")
    return conf.get(lg.CONFIG_KEY_TASK_ID) == execution.task_id and ns.endswith(f":{execution.task_id}")


lg.replace_loops(
    _choose(lg.SyncPregelLoop, _SyncChildLoop, SyncSegmentLoop),
    _choose(lg.AsyncPregelLoop, _AsyncChildLoop, AsyncSegmentLoop),
)
