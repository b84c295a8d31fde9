"""A graph over a tenant's saver, its states as LangGraph's own code shows them, and those as plain dicts.

Dicts have the Agent Server's shape; values inside are as the graph left them (messages, models), and become JSON at the
edge.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from agentfarm import ids
from agentfarm.engine.graph_access import Access, Purpose
from agentfarm.engine.graph_reading import for_reading
from agentfarm.engine.graphs import LoadedGraph
from agentfarm.errors import AgentFarmError
from agentfarm.flow.farm import Farm
from agentfarm.flow.graph_use import looking
from agentfarm.records import RunEnd, ThreadRow
from agentfarm.tenancy import Tenant

logger = logging.getLogger(__name__)


def access_to(farm: Farm, tenant: Tenant, row: ThreadRow | RunEnd, purpose: Purpose) -> Callable[[], Access]:
    """What a factory is told, if one makes the graph: the config of this run, or else of the thread's newest."""

    def newest_run() -> UUID | None:
        return next((run.run_id for run in farm.runs.list(tenant, row.thread_id, limit=1, offset=0, status=None)), None)

    def access() -> Access:
        assert row.graph_id is not None  # callers have looked
        run_id = row.run_id if isinstance(row, RunEnd) else newest_run()
        found = farm.runs.get(tenant, row.thread_id, run_id, with_spec=True) if run_id else None
        config = found.spec.config if found and found.spec else None
        store = farm.stores.of(tenant)
        return looking(purpose, tenant.id, row.graph_id, config, store=store, thread_id=str(row.thread_id))

    return access


def bound_to(
    farm: Farm, tenant: Tenant, loaded: LoadedGraph, *, to_change: bool = False, ended: RunEnd | None = None
) -> Pregel[Any, Any, Any, Any]:
    """The graph over the tenant's saver and store, to be read by alone where nothing is to be changed.

    ended  a run that is over, of which the answer is read
    """
    made = loaded.graph if loaded.is_made else None
    saver = farm.threads.saver(tenant, loaded.graph_id, guard_idle=to_change, made=made, ended=ended)
    graph = loaded.graph if to_change else for_reading(loaded.graph)
    graph = graph.copy(update={"checkpointer": saver, "store": farm.stores.of(tenant)})
    assert isinstance(graph, Pregel)
    return graph


def snapshot_of(graph: Pregel[Any, Any, Any, Any], config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
    """The state as LangGraph shows it.

    The latest checkpoint is shown with the writes that wait at it, which the graph's own reducers apply. Those that a
    reducer refuses, such as an input that made its run fail, must not make the thread unreadable: then it is shown as
    it was saved.
    """
    try:
        return graph.get_state(config, subgraphs=subgraphs)
    except AgentFarmError:
        raise
    except Exception as error:  # a reducer is a user's code
        saver = graph.checkpointer
        found = saver.get_tuple(config) if isinstance(saver, BaseCheckpointSaver) else None
        if found is None or "checkpoint_id" in config["configurable"]:
            raise
        logger.info("a thread is shown without the writes that wait at it", extra={"why": type(error).__name__})
        return graph.get_state(found.config, subgraphs=subgraphs)


def config_of(thread_id: UUID, checkpoint: Mapping[str, Any] | None) -> RunnableConfig:
    given = checkpoint or {}
    configurable: dict[str, Any] = {"thread_id": str(thread_id), "checkpoint_ns": given.get("checkpoint_ns") or ""}
    if checkpoint_id := given.get("checkpoint_id"):
        configurable["checkpoint_id"] = str(ids.parse_uuid(checkpoint_id, what="checkpoint_id"))
    if checkpoint_map := given.get("checkpoint_map"):
        configurable["checkpoint_map"] = checkpoint_map
    return {"configurable": configurable}


# --------------------------------------------------------------------------- rendering


def render_state(snapshot: StateSnapshot) -> dict[str, Any]:
    """The Agent Server's ThreadState."""
    checkpoint, parent = render_checkpoint(snapshot.config), _find_checkpoint(snapshot.parent_config)
    return {
        "values": snapshot.values,
        "next": list(snapshot.next),
        "tasks": [_task(task) for task in snapshot.tasks],
        "metadata": snapshot.metadata or {},
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": [interrupt for task in snapshot.tasks for interrupt in task.interrupts],
        "checkpoint_id": checkpoint.get("checkpoint_id"),
        "parent_checkpoint_id": parent.get("checkpoint_id") if parent else None,
    }


def _task(task: Any) -> dict[str, Any]:
    state: Any = task.state
    nested = isinstance(state, StateSnapshot)
    return {
        "id": task.id,
        "name": task.name,
        "path": list(task.path),
        "error": repr(task.error) if isinstance(task.error, BaseException) else task.error,
        "interrupts": list(task.interrupts),
        "checkpoint": None if nested or state is None else render_checkpoint(state),
        "state": render_state(state) if nested else None,
        "result": task.result,
    }


def render_checkpoint(config: Mapping[str, Any]) -> dict[str, Any]:
    configurable = config.get("configurable") or {}
    keys: Sequence[str] = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    return {key: configurable[key] for key in keys if key in configurable}


def _find_checkpoint(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return render_checkpoint(config) if config else None


def empty_state(row: ThreadRow) -> dict[str, Any]:
    return {
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": {},
        "created_at": row.created_at,
        "checkpoint": {"thread_id": str(row.thread_id), "checkpoint_ns": "", "checkpoint_id": None},
        "parent_checkpoint": None,
        "interrupts": [],
        "checkpoint_id": None,
        "parent_checkpoint_id": None,
    }
