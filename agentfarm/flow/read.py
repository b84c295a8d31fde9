"""Beside the line: a thread's state and history, and changing it by hand, by LangGraph's own code over our saver.

Answers are plain dicts in the Agent Server's shape; values inside are as the graph left them (messages, models), and
become JSON at the edge.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, DeltaChannelHistory
from langgraph.errors import EmptyInputError, InvalidUpdateError
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from agentfarm import ids
from agentfarm.engine.graph_access import Access, Purpose
from agentfarm.engine.graph_reading import for_reading, have_called, values_with_called
from agentfarm.engine.graphs import LoadedGraph
from agentfarm.engine.jsonable import to_json
from agentfarm.engine.untracked import names_of_untracked
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
from agentfarm.flow.graph_use import looking, use_graph
from agentfarm.records import RunRow, ThreadRow
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
        return _empty_state(row)
    config = _config(thread_id, checkpoint)

    def look(loaded: LoadedGraph) -> StateSnapshot:
        return _snapshot(_bound(farm, tenant, loaded), config, subgraphs=subgraphs)

    snapshot = use_graph(farm, row.graph_id, _access(farm, tenant, row, "threads.read"), look)
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
        states = _bound(farm, tenant, loaded).get_state_history(
            _config(thread_id, checkpoint),
            filter=dict(metadata) if metadata else None,
            before=_config(thread_id, before) if before else None,
            limit=limit,
        )
        return list(states)

    states = use_graph(farm, row.graph_id, _access(farm, tenant, row, "threads.read"), look)
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
    config = _config(thread_id, checkpoint)

    def ready(loaded: LoadedGraph) -> Pregel[Any, Any, Any, Any]:
        if as_node is not None and as_node not in loaded.graph.nodes and as_node not in WRITERS:
            raise InvalidInput(where="as_node", why="the graph has no such node")
        return _bound(farm, tenant, loaded, to_change=True)

    def change(loaded: LoadedGraph) -> RunnableConfig:
        return ready(loaded).update_state(config, values, as_node)

    async def achange(loaded: LoadedGraph) -> RunnableConfig:
        return await ready(loaded).aupdate_state(config, values, as_node)

    access = _access(farm, tenant, row, "threads.update")
    try:
        with refusing_updates("values"):
            changed = use_graph(farm, row.graph_id, access, change, achange)
    except HeadMoved as error:  # between our reading and our writing
        raise ThreadBusy(
            hint="It was changed at the same time, and nothing of this update was saved; send it again."
        ) from error
    return {"checkpoint": _checkpoint(changed), **(changed.get("configurable") or {})}


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


def read_answer(farm: Farm, tenant: Tenant, thread_id: UUID, run_id: UUID, *, last_values: bytes | None = None) -> Any:
    """What a client that waited gets: final values, with `__interrupt__`, or {"__error__": …}.

    Of this run, also when the next one has moved the thread on before the client was told.
    last_values  data of the last `values` in the run's stream, where the reader has it: what no checkpoint keeps
                 (UntrackedValue) is read there
    raises       NotFound (thread, run, or the checkpoint at which it ended), GraphNotFound
    """
    run = farm.runs.get(tenant, thread_id, run_id)
    if run.error is not None:
        return {"__error__": {key: run.error.get(key) for key in ("error", "message")}}
    state = _state_at_end(farm, tenant, run, last_values)
    if not state["interrupts"]:
        return state["values"]
    values = state["values"] if isinstance(state["values"], dict) else {}
    return {**values, "__interrupt__": state["interrupts"]}


def _state_at_end(farm: Farm, tenant: Tenant, run: RunRow, last_values: bytes | None) -> dict[str, Any]:
    if run.finished_at is None:
        return get_state(farm, tenant, run.thread_id)
    row = farm.threads.get(tenant, run.thread_id)
    if run.ended_head is None:  # cancelled before the thread's first checkpoint
        return _empty_state(row)
    ended_head = run.ended_head

    def look(loaded: LoadedGraph) -> StateSnapshot:
        bound = _bound(farm, tenant, loaded, ended=run.run_id)
        assert isinstance(bound.checkpointer, BaseCheckpointSaver)  # `_bound` has put it there
        saver, config = _SaverAt(bound.checkpointer, ended_head), _config(run.thread_id, None)
        snapshot = _snapshot(bound.copy(update={"checkpointer": saver}), config)
        shown = {task.id for task in snapshot.tasks}
        if snapshot.interrupts and have_called(saver.writers - shown) and (found := saver.get_tuple(config)):
            snapshot = snapshot._replace(values=values_with_called(bound, saver, found))
        untracked = names_of_untracked(bound.channels) if last_values else ()
        return snapshot._replace(values=_with_untracked(snapshot.values, untracked, last_values or b""))

    snapshot = use_graph(farm, run.graph_id, _access(farm, tenant, row, "threads.read", run), look)
    if snapshot.metadata is None:
        raise NotFound(what="Checkpoint")
    return render_state(snapshot)


def _with_untracked(values: Any, untracked: Collection[str], last_values: bytes) -> Any:
    """The values with those of untracked channels that the run's stream told last.

    Unchanged where the stream's last values are not these, as when the stream store has lost its newest events: half an
    answer of another state would be wrong, and one without what is never saved is what a later reader gets anyway.
    """
    if not isinstance(values, dict) or not any(to_json(name) in last_values for name in untracked):
        return values
    told = json.loads(last_values)
    told.pop("__interrupt__", None)
    found = {name: told.pop(name) for name in untracked if name in told}
    return {**values, **found} if told == json.loads(to_json(values)) else values


class _SaverAt(BaseCheckpointSaver[str]):
    """A saver whose latest checkpoint is the one given. Reads only.

    LangGraph shows the latest checkpoint as it is now, with the results of nodes that finished beside one that asks,
    and one that is asked for by its id without them: a run's answer is the former.

    writers  ids of those whose writes wait at what was read
    """

    def __init__(self, saver: BaseCheckpointSaver[str], checkpoint_id: UUID) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._checkpoint_id = checkpoint_id
        self.writers: set[str] = set()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        configurable = {**config.get("configurable", {}), "checkpoint_id": str(self._checkpoint_id)}
        found = self._saver.get_tuple({**config, "configurable": configurable})
        self.writers.update(task_id for task_id, _, _ in (found.pending_writes if found else None) or ())
        return found

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._saver.get_delta_channel_history(config=config, channels=channels)

    def get_next_version(self, current: str | None, channel: None = None) -> str:
        return self._saver.get_next_version(current, channel)


def thread_view(farm: Farm, tenant: Tenant, row: ThreadRow, *, with_ttl: bool = False) -> dict[str, Any]:
    """The Thread of the API: the row, with values and interrupts of its head; null where no graph reads them."""
    values: Any = None
    interrupts: dict[str, list[Any]] = {}

    def look(loaded: LoadedGraph) -> StateSnapshot:
        return _snapshot(_bound(farm, tenant, loaded), _config(row.thread_id, None))

    if row.graph_id is not None:
        try:
            snapshot = use_graph(farm, row.graph_id, _access(farm, tenant, row, "threads.read"), look)
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


# --------------------------------------------------------------------------- LangGraph's side


def _access(
    farm: Farm, tenant: Tenant, row: ThreadRow, purpose: Purpose, run: RunRow | None = None
) -> Callable[[], Access]:
    """What a factory is told, if one makes the thread's graph: the config of this run, or else of the newest."""

    def access() -> Access:
        assert row.graph_id is not None  # callers have looked
        newest = run or next(iter(farm.runs.list(tenant, row.thread_id, limit=1, offset=0, status=None)), None)
        found = newest and farm.runs.get(tenant, row.thread_id, newest.run_id, with_spec=True)
        config = found.spec.config if found and found.spec else None
        store = farm.stores.of(tenant)
        return looking(purpose, tenant.id, row.graph_id, config, store=store, thread_id=str(row.thread_id))

    return access


def _bound(
    farm: Farm, tenant: Tenant, loaded: LoadedGraph, *, to_change: bool = False, ended: UUID | None = None
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


def _snapshot(graph: Pregel[Any, Any, Any, Any], config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
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


def _config(thread_id: UUID, checkpoint: Mapping[str, Any] | None) -> RunnableConfig:
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
    checkpoint, parent = _checkpoint(snapshot.config), _find_checkpoint(snapshot.parent_config)
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
        "checkpoint": None if nested or state is None else _checkpoint(state),
        "state": render_state(state) if nested else None,
        "result": task.result,
    }


def _checkpoint(config: Mapping[str, Any]) -> dict[str, Any]:
    configurable = config.get("configurable") or {}
    keys: Sequence[str] = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    return {key: configurable[key] for key in keys if key in configurable}


def _find_checkpoint(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return _checkpoint(config) if config else None


def _empty_state(row: ThreadRow) -> dict[str, Any]:
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
