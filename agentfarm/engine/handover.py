"""Where one message ends and others begin: the nodes of a superstep that are to be executed next, as calls."""

from typing import Any

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.levels import has_scalar
from agentfarm.engine.steps import CacheAddress, Carried, NodeCall, Replay


def nodes_to_run(loop: Any) -> tuple[list[Any], list[Any]]:
    """(LangGraph's tasks without writes, error handlers among them that their failed node's message will run)."""
    todo = [task for task in loop.tasks.values() if not task.writes]
    handlers = [task for task in todo if "node_error_handler" in task.path]
    if handlers:
        todo = [task for task in todo if "node_error_handler" not in task.path]
        todo += [task for task in loop.tasks.values() if task.writes and task.writes[0][0] == lg.ERROR]
    return todo, handlers


def next_calls(loop: Any, todo: list[Any], untracked: Carried | None) -> tuple[NodeCall, ...]:
    """The calls of these tasks, which are all of the checkpoint that the loop stands at."""
    level, conf = loop.level, loop.config[lg.CONF]
    replay = conf.get(lg.CONFIG_KEY_REPLAY_STATE)
    may_take = _may_take_the_answer(loop, todo)
    shared = {
        "sole": len(loop.tasks) == 1,
        "stop": loop.stop,
        "checkpoint_ns": conf.get(lg.CONFIG_KEY_CHECKPOINT_NS, ""),
        "checkpoint_id": loop.checkpoint["id"],
        "addressed": _stays_at_an_old_checkpoint(loop),
        "resuming": conf.get(lg.CONFIG_KEY_RESUMING),
        "replaying": loop.is_replaying,
        "replay": Replay(replay.checkpoint_id, tuple(sorted(replay._visited_ns))) if replay else None,
        "root_run_id": loop.segment.root_run_id,
        "root_order": loop.segment.root_order,
        "resume_map": _own_resume_map(loop),
        "untracked": untracked,
        "outer": level.outer.call if level.outer else None,
    }
    return tuple(
        NodeCall(
            name=task.name,
            path=tuple(task.path[:2]),
            execution_id=task.id,
            answered=task.id in may_take,
            cache=CacheAddress(tuple(task.cache_key.ns), task.cache_key.key, task.cache_key.ttl)
            if task.cache_key
            else None,
            queue=queue_of(loop.nodes[task.name]),
            **shared,
        )
        for task in todo
    )


def _may_take_the_answer(loop: Any, todo: list[Any]) -> set[str]:
    """Which of the nodes may take an answer without an id. Stock lets the first `interrupt()` that runs have it; here
    they run apart, so it is for the node that asked, or for the first if none has."""
    ids = {task.id for task in todo}
    if not has_scalar(loop.checkpoint_pending_writes):
        return ids
    asked = {write[0] for write in loop.checkpoint_pending_writes if write[1] == lg.INTERRUPT} & ids
    return asked or {todo[0].id}


def queue_of(node: lg.PregelNode) -> str | None:
    """Where the operator wants this node executed: `add_node("render", f, metadata={"queue": "gpu"})`."""
    queue = (node.metadata or {}).get("queue")
    return queue if isinstance(queue, str) and queue else None


def _stays_at_an_old_checkpoint(loop: Any) -> bool:
    """A replay that did not fork: the thread's head may be elsewhere, so the checkpoint is named."""
    if loop.level.is_nested or loop.level.kind != "start" or loop.checkpoint["id"] != loop._loaded_id:
        return False
    given = loop.segment.run.config.get(lg.CONF, {})
    return bool(given.get(lg.CONFIG_KEY_CHECKPOINT_ID) or given.get(lg.CONFIG_KEY_CHECKPOINT_MAP))


def _own_resume_map(loop: Any) -> dict[str, Any] | None:
    """None where it is that of the run's input, which every message of the run has anyway."""
    current = loop.config[lg.CONF].get(lg.CONFIG_KEY_RESUME_MAP)
    given = lg.resume_map_of(getattr(loop.segment.run.input, "resume", None))
    return None if not current or current == given else current
