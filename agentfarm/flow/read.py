"""Beside the line: a thread's state and history, and changing it by hand, by LangGraph's own code over our saver."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.errors import EmptyInputError, InvalidUpdateError
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from agentfarm.engine.graphs import LoadedGraph
from agentfarm.errors import (
    AgentFarmError,
    GraphLoadFailed,
    GraphNotFound,
    HeadMoved,
    InvalidInput,
    NotFound,
    StateUnreadable,
    ThreadBusy,
)
from agentfarm.flow.farm import Farm
from agentfarm.flow.graph_use import use_graph
from agentfarm.flow.snapshots import (
    access_to,
    bound_to,
    config_of,
    empty_state,
    render_checkpoint,
    render_state,
    snapshot_of,
)
from agentfarm.records import ThreadRow
from agentfarm.tenancy import Tenant

logger = logging.getLogger(__name__)

#: What LangGraph takes for `as_node` besides a node's name.
WRITERS = frozenset({"__start__", "__end__", "__input__", "__copy__"})


def get_state(
    farm: Farm, tenant: Tenant, thread_id: UUID, *, checkpoint: Mapping[str, Any] | None = None, subgraphs: bool = False
) -> dict[str, Any]:
    """The ThreadState at the head, or at a checkpoint. A thread that never ran: values {} and next [].

    raises  NotFound (thread, or checkpoint), GraphNotFound
    """
    row = farm.threads.get(tenant, thread_id)
    if row.graph_id is None:
        return empty_state(row)
    config = config_of(thread_id, checkpoint)

    def look(loaded: LoadedGraph) -> StateSnapshot:
        return snapshot_of(bound_to(farm, tenant, loaded), config, subgraphs=subgraphs)

    snapshot = use_graph(farm, row.graph_id, access_to(farm, tenant, row, "threads.read"), look)
    if checkpoint and checkpoint.get("checkpoint_id") and snapshot.metadata is None:
        raise NotFound(what="Checkpoint")
    return render_state(snapshot)


def get_history(
    farm: Farm,
    tenant: Tenant,
    thread_id: UUID,
    *,
    limit: int = 10,
    before: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """ThreadStates, newest first. Raises NotFound, GraphNotFound."""
    row = farm.threads.get(tenant, thread_id)
    if row.graph_id is None:
        return []

    def look(loaded: LoadedGraph) -> list[StateSnapshot]:
        states = bound_to(farm, tenant, loaded).get_state_history(
            config_of(thread_id, checkpoint),
            filter=dict(metadata) if metadata else None,
            before=config_of(thread_id, before) if before else None,
            limit=limit,
        )
        return list(states)

    states = use_graph(farm, row.graph_id, access_to(farm, tenant, row, "threads.read"), look)
    return [render_state(snapshot) for snapshot in states]


def update_state(
    farm: Farm,
    tenant: Tenant,
    thread_id: UUID,
    *,
    values: Any,
    as_node: str | None = None,
    checkpoint: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write to the state as a node would, on top of the head or of a checkpoint (which forks).

    returns  {"checkpoint": {thread_id, checkpoint_ns, checkpoint_id}} of the new checkpoint
    raises   NotFound, GraphNotFound, InvalidInput (unknown node, values that its channels refuse), ThreadBusy
    """
    row = farm.threads.get(tenant, thread_id)
    if row.graph_id is None:
        raise InvalidInput(where="thread", why="it never ran, so no graph is known; create it with a graph_id first")
    config = config_of(thread_id, checkpoint)

    def ready(loaded: LoadedGraph) -> Pregel[Any, Any, Any, Any]:
        if as_node is not None and as_node not in loaded.graph.nodes and as_node not in WRITERS:
            raise InvalidInput(where="as_node", why=f"names a node that the graph lacks; it has {loaded.nodes_told()}")
        return bound_to(farm, tenant, loaded, to_change=True)

    def change(loaded: LoadedGraph) -> RunnableConfig:
        return ready(loaded).update_state(config, values, as_node)

    async def achange(loaded: LoadedGraph) -> RunnableConfig:
        return await ready(loaded).aupdate_state(config, values, as_node)

    access = access_to(farm, tenant, row, "threads.update")
    try:
        with refusing_updates("values"):
            changed = use_graph(farm, row.graph_id, access, change, achange)
    except HeadMoved as error:  # between our reading and our writing
        raise ThreadBusy(
            hint="It was changed at the same time, and nothing of this update was saved; send it again."
        ) from error
    return {"checkpoint": render_checkpoint(changed), **(changed.get("configurable") or {})}


@contextmanager
def refusing_updates(where: str) -> Iterator[None]:
    """What LangGraph, or the graph's own reducers and branches, say of values that a client sent: InvalidInput."""
    try:
        yield
    except AgentFarmError:
        raise
    except (InvalidUpdateError, EmptyInputError) as error:
        raise InvalidInput(where=where, why="the graph does not take this update here") from error
    except Exception as error:  # a user's code may raise anything, and what it says stays in the log
        logger.info("a graph refuses an update", exc_info=True)
        raise InvalidInput(where=where, why=f"the graph's code raises {type(error).__name__} on this update") from error


def thread_view(farm: Farm, tenant: Tenant, row: ThreadRow, *, with_ttl: bool = False) -> dict[str, Any]:
    """The Thread of the API: the row, with values and interrupts of its head; null where no graph reads them."""
    values: Any = None
    interrupts: dict[str, list[Any]] = {}

    def look(loaded: LoadedGraph) -> StateSnapshot:
        return snapshot_of(bound_to(farm, tenant, loaded), config_of(row.thread_id, None))

    if row.graph_id is not None:
        try:
            snapshot = use_graph(farm, row.graph_id, access_to(farm, tenant, row, "threads.read"), look)
        except (GraphNotFound, GraphLoadFailed, StateUnreadable):
            snapshot = None  # served by another build: the row is still true
        if snapshot is not None and snapshot.metadata is not None:
            values = snapshot.values
            interrupts = {task.id: list(task.interrupts) for task in snapshot.tasks if task.interrupts}
    return {
        "thread_id": str(row.thread_id),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "state_updated_at": row.state_updated_at or row.updated_at,
        "metadata": row.metadata,
        "status": row.status,
        "config": row.config,
        "values": values,
        "interrupts": interrupts,
        "error": row.error,
        **({"ttl": _ttl(row)} if with_ttl else {}),
    }


def _ttl(row: ThreadRow) -> dict[str, Any] | None:
    if row.expires_at is None:
        return None
    return {"strategy": row.ttl_strategy, "ttl_minutes": row.ttl_minutes, "expires_at": row.expires_at}
