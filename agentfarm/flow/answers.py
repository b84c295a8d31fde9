"""What a client that waited for a run gets: the answer its own, whatever the thread does since."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, DeltaChannelHistory
from langgraph.types import StateSnapshot

from agentfarm.engine.graph_reading import have_called, values_with_called
from agentfarm.engine.graphs import LoadedGraph
from agentfarm.engine.jsonable import to_json
from agentfarm.engine.untracked import names_of_untracked
from agentfarm.errors import NotFound
from agentfarm.flow.farm import Farm
from agentfarm.flow.graph_use import use_graph
from agentfarm.flow.read import get_state
from agentfarm.flow.snapshots import access_to, bound_to, config_of, render_state, snapshot_of
from agentfarm.records import RunEnd
from agentfarm.tenancy import Tenant


def read_answer(farm: Farm, tenant: Tenant, thread_id: UUID, run_id: UUID, *, last_values: bytes | None = None) -> Any:
    """What a client that waited gets: final values, with `__interrupt__`, or {"__error__": …}.

    Of this run, also when the next one has moved the thread on before the client was told.
    last_values  data of the last `values` in the run's stream, where the reader has it: what no checkpoint keeps
                 (UntrackedValue) is read there
    raises       NotFound (thread, run, or the checkpoint at which it ended), GraphNotFound
    """
    run = farm.runs.read_end(tenant, thread_id, run_id)
    if run.error is not None:
        return {"__error__": {key: run.error.get(key) for key in ("error", "message")}}
    if not run.is_over:
        state = get_state(farm, tenant, thread_id)
    elif run.head is None:  # cancelled before the thread's first checkpoint
        return {}
    else:
        state = _state_at_end(farm, tenant, run, run.head, last_values)
    if not state["interrupts"]:
        return state["values"]
    values = state["values"] if isinstance(state["values"], dict) else {}
    return {**values, "__interrupt__": state["interrupts"]}


def _state_at_end(farm: Farm, tenant: Tenant, run: RunEnd, head: UUID, last_values: bytes | None) -> dict[str, Any]:
    def look(loaded: LoadedGraph) -> StateSnapshot:
        bound = bound_to(farm, tenant, loaded, ended=run)
        assert isinstance(bound.checkpointer, BaseCheckpointSaver)  # `_bound` has put it there
        saver, config = _SaverAt(bound.checkpointer, head), config_of(run.thread_id, None)
        snapshot = snapshot_of(bound.copy(update={"checkpointer": saver}), config)
        shown = {task.id for task in snapshot.tasks}
        if snapshot.interrupts and have_called(saver.writers - shown) and (found := saver.get_tuple(config)):
            snapshot = snapshot._replace(values=values_with_called(bound, saver, found))
        untracked = names_of_untracked(bound.channels) if last_values else ()
        return snapshot._replace(values=_with_untracked(snapshot.values, untracked, last_values or b""))

    snapshot = use_graph(farm, run.graph_id, access_to(farm, tenant, run, "threads.read"), look)
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
