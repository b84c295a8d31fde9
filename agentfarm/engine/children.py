"""Graphs that nodes run: stock, but for two things that only exist because a node is a message.

    the subgraph that a node *is* goes on by messages, where the run wants that (RunSpec.nested)
    a graph that an earlier attempt of the node had begun, on a worker that died, is continued and never mistaken:
    one that keeps its history from call to call (`checkpointer=True`) may hold an older call's end

The loop is the one thing of LangGraph that is replaced for the whole process; for any other graph it is stock's.
"""

from collections.abc import Callable
from typing import Any

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.continuation import check_nodes, is_resumed, next_nodes
from agentfarm.engine.loops import AsyncSegmentLoop, SyncSegmentLoop, put_checkpoint
from agentfarm.engine.node import EXECUTION, Execution


class _ChildLoop:
    """A graph run by one of our node executions. Its ids go on from its last checkpoint's, whoever's clock made it."""

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


class _SyncChildLoop(_ChildLoop, lg.SyncPregelLoop):
    _put_checkpoint = put_checkpoint


class _AsyncChildLoop(_ChildLoop, lg.AsyncPregelLoop):
    _put_checkpoint = put_checkpoint


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
