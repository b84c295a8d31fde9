"""Threads that are made: empty, or with a history that a client brings along.

The history is what LangGraph's own bulk update makes of the client's supersteps, over a saver in memory: the graph's
code (reducers, branches) runs while no transaction is open. Then thread and history become durable in one transaction:
all of it, or no thread.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import StateUpdate

from agentfarm.engine.graphs import LoadedGraph
from agentfarm.engine.steps import PutCheckpoint, PutWrites
from agentfarm.errors import InvalidInput
from agentfarm.flow.admit import parse_command
from agentfarm.flow.farm import Farm
from agentfarm.flow.graph_use import looking, use_graph
from agentfarm.flow.read import WRITERS, refusing_updates
from agentfarm.records import History, ThreadRow, ThreadTtl, UpdateRequest
from agentfarm.tenancy import Tenant


def create_thread(
    farm: Farm,
    tenant: Tenant,
    thread_id: UUID,
    metadata: Mapping[str, Any],
    *,
    if_exists: str,
    supersteps: Sequence[Sequence[UpdateRequest]] = (),
    ttl: ThreadTtl | None = None,
) -> ThreadRow:
    """A new thread; or, with if_exists "do_nothing", the one that is there, to which nothing is applied.

    raises  AlreadyExists; GraphNotFound, GraphLoadFailed and InvalidInput (no graph, an unknown node, values that its
            channels refuse) for supersteps
    """
    history = _history(farm, tenant, thread_id, metadata.get("graph_id"), supersteps) if supersteps else None
    return farm.threads.create(tenant, thread_id, metadata, if_exists=if_exists, history=history, ttl=ttl)


def _history(
    farm: Farm, tenant: Tenant, thread_id: UUID, graph_id: Any, supersteps: Sequence[Sequence[UpdateRequest]]
) -> History:
    if not isinstance(graph_id, str):
        raise InvalidInput(where="supersteps", why="need metadata.graph_id: the graph that they are of")
    updates = [[_parse_update(update) for update in superstep] for superstep in supersteps]
    config: RunnableConfig = {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": ""}}

    def over(loaded: LoadedGraph) -> tuple[_Notebook, Any]:
        _check_nodes(loaded, updates)
        made = loaded.graph if loaded.is_made else None
        notebook = _Notebook(farm.threads.saver(tenant, graph_id, made=made))
        return notebook, loaded.graph.copy(update={"checkpointer": notebook})

    def apply(loaded: LoadedGraph) -> History:
        notebook, graph = over(loaded)
        with refusing_updates("supersteps"):
            graph.bulk_update_state(config, updates)
        return notebook.history

    async def aapply(loaded: LoadedGraph) -> History:
        notebook, graph = over(loaded)
        with refusing_updates("supersteps"):
            await graph.abulk_update_state(config, updates)
        return notebook.history

    store = farm.stores.of(tenant)
    access = partial(looking, "threads.update", tenant.id, graph_id, store=store, thread_id=str(thread_id))
    return use_graph(farm, graph_id, access, apply, aapply)


def _parse_update(update: UpdateRequest) -> StateUpdate:
    values: Any = update.values if update.command is None else parse_command(update.command)
    return StateUpdate(values, update.as_node)


def _check_nodes(loaded: LoadedGraph, supersteps: Sequence[Sequence[StateUpdate]]) -> None:
    for place, superstep in enumerate(supersteps):
        for update in superstep:
            if update.as_node is not None and update.as_node not in loaded.graph.nodes.keys() | WRITERS:
                why = f"names a node that the graph lacks; it has {loaded.nodes_told()}"
                raise InvalidInput(where=f"supersteps[{place}].as_node", why=why)


class _Notebook(InMemorySaver):
    """Notes what is saved, in order, with the serializer and the versions of the saver that it stands in for."""

    def __init__(self, real: BaseCheckpointSaver[str]) -> None:
        super().__init__(serde=real.serde)
        self._real = real
        self._noted: list[PutCheckpoint | PutWrites] = []

    @property
    def history(self) -> History:
        return History(tuple(self._noted), self.serde)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        saved = super().put(config, checkpoint, metadata, new_versions)
        place = config["configurable"]
        parent_id, ns = place.get("checkpoint_id"), place.get("checkpoint_ns", "")
        self._noted.append(PutCheckpoint(config, checkpoint, metadata, new_versions, parent_id, ns))
        return saved

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        super().put_writes(config, writes, task_id, task_path)
        place = config["configurable"]
        ns, checkpoint_id = place.get("checkpoint_ns", ""), place["checkpoint_id"]
        self._noted.append(PutWrites(ns, checkpoint_id, task_id, task_path, tuple(writes)))

    def get_next_version(self, current: str | None, channel: None = None) -> str:
        return self._real.get_next_version(current, channel)
