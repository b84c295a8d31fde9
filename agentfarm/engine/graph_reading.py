"""A graph as one reads the states of its threads by it: what refuses a state when a node is executed does not refuse to
show it.

LangGraph prepares the nodes that are next in order to show a state, and so makes each one's input: a model of pydantic
that does not take the values raises there. A thread that got such an input must stay readable all the same.
"""

from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.graph_loading import AnyPregel

_readable: "WeakKeyDictionary[AnyPregel, AnyPregel]" = WeakKeyDictionary()


def for_reading(graph: AnyPregel) -> AnyPregel:
    """The same graph, made once a process, whose nodes take any state. Not to be run."""
    if (found := _readable.get(graph)) is None:
        nodes: dict[str, lg.PregelNode] = {name: node.copy({"mapper": None}) for name, node in graph.nodes.items()}
        found = _readable[graph] = graph.copy(update={"nodes": nodes})
    return found


def values_with_called(graph: AnyPregel, saver: BaseCheckpointSaver[Any], found: CheckpointTuple) -> Any:
    """The values at a checkpoint with all that nodes have written beside one that asks, also those that a client's
    command has called (`goto`): a run's last `values`.

    A state shows no writes of the latter. LangGraph makes it of the nodes that the checkpoint alone makes ready, and
    looks at the command afterwards; its loop, which runs them, begins with the command.

    graph    as `for_reading` gives it
    found    as the saver returned it; changed
    source   langgraph.pregel._loop: _first, _suppress_interrupt; langgraph 1.2
    """
    checkpoint, pending = found.checkpoint, found.pending_writes or []
    channels, managed = lg.channels_from_checkpoint(graph.channels, checkpoint, saver=saver, config=found.config)
    commands = lg.PregelTaskWrites((), lg.INPUT, [write[1:] for write in pending if write[0] == lg.NULL_TASK_ID], [])
    lg.apply_writes(checkpoint, channels, [commands], saver.get_next_version, graph.trigger_to_nodes)
    step = found.metadata.get("step", -1) + 1
    tasks = lg.prepare_next_tasks(
        checkpoint, pending, graph.nodes, channels, managed, found.config, step, step + 2,
        for_execution=True, store=graph.store, checkpointer=saver, manager=None,
    )  # fmt: skip
    for task_id, status in lg.read_task_statuses(pending).items():
        if task_id in tasks:
            tasks[task_id].writes.extend(status.output)
    lg.apply_writes(checkpoint, channels, [t for t in tasks.values() if t.writes], None, graph.trigger_to_nodes)
    return lg.read_channels(channels, graph.stream_channels_asis)


def have_called(writers: Collection[str]) -> bool:
    """Whether a command has called nodes.

    writers  whose writes wait at a checkpoint, without the nodes that its state shows
    """
    return lg.NULL_TASK_ID in writers and len(writers) > 1
