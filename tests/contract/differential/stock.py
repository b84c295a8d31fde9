"""A scenario by stock LangGraph, in this process, with its own saver.

The saver is given the product's serializer: stock's own gives tuples back as lists and loses more, of which the farm
promises the contrary (tests/contract/test_serde_values.py). What nodes hand to each other is never serialized here.

What a server adds to a run is added here by hand: the configurable and the metadata that the Agent Server documents,
its names of events, the shape of its ThreadState. None of it is the product's code, but the JSON that values become
(agentfarm.engine.jsonable, which has tests of its own), which graphs are async, and the id of a graph's assistant.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessageChunk, message_chunk_to_message
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import EmptyInputError, InvalidUpdateError
from langgraph.types import Command, Send, StateSnapshot

from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.jsonable import to_json
from agentfarm.ids import assistant_id
from agentfarm.persistence.serde import serde_of
from tests.contract.differential.scenario import (
    NOTHING,
    AnyGraph,
    Record,
    Run,
    Scenario,
    StepRecord,
    Update,
    find_interrupts,
)

#: The farm's tenant stands here.
USER = str(uuid.uuid4())


def drive(scenario: Scenario) -> Record:
    """The whole scenario. Raises what no server would: an error of the scenario itself."""
    return _Drive(scenario).record()


class _Drive:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.saver = InMemorySaver(serde=serde_of(scenario.graph))
        self.graph: AnyGraph = scenario.graph.copy(update={"checkpointer": self.saver})
        # Stock shows no state at all that a model of pydantic refuses as the input of the node that is next.
        nodes = {name: node.copy({"mapper": None}) for name, node in self.graph.nodes.items()}
        self.readable: AnyGraph = self.graph.copy(update={"nodes": nodes})
        self.is_async = describe_graph(scenario.name, scenario.graph).is_async
        self.thread_id = str(uuid.uuid4())
        self.assistant_id = str(assistant_id(scenario.name))
        self.ids = {self.thread_id: "thread", self.assistant_id: "assistant", USER: "user"}
        self.thread_status = "idle"

    def record(self) -> Record:
        steps = [self._run(step) if isinstance(step, Run) else self._update(step) for step in self.scenario.steps]
        history = [plain(thread_state(snapshot)) for snapshot in self._history()]
        return Record(self.ids, steps, history, stored(self.saver, self.thread_id))

    # ----------------------------------------------------------------------- steps

    def _run(self, step: Run) -> StepRecord:
        run_id = str(uuid.uuid4())
        self.ids[run_id] = f"run {sum(name.startswith('run') for name in self.ids.values()) + 1}"
        wanted = [*dict.fromkeys("messages" if mode == "messages-tuple" else mode for mode in step.modes)]
        # What a run answers is the last of its values; a question is told in updates.
        modes = [*wanted, *(mode for mode in ("values", "updates") if mode not in wanted)]
        options: dict[str, Any] = {
            "stream_mode": modes,
            "subgraphs": step.subgraphs,
            "durability": step.durability or "async",
            "context": _context(step, self.graph),
        }
        for name in ("interrupt_before", "interrupt_after"):
            if (nodes := getattr(step, name)) is not None:
                options[name] = nodes if nodes == "*" else list(nodes)
        chunks: list[Any] = []
        error: BaseException | None = None
        given, config = self._input(step), self._config(step, run_id)
        try:
            if self.is_async:
                asyncio.run(_collect(self.graph.astream(given, config, **options), chunks))
            else:
                chunks.extend(self.graph.stream(given, config, **options))
        except Exception as raised:
            error = raised
        snapshot = self._snapshot()
        run_status = "error" if error else "interrupted" if snapshot.next else "success"
        self.thread_status = {"success": "idle"}.get(run_status, run_status)
        chunks = chunks if step.subgraphs else [((), *chunk) for chunk in chunks]
        events = list(_events(chunks, step.modes))
        told = None
        if error is not None:
            told = {"error": type(error).__name__, "message": str(error)}
            events.append(["error", told])
        answer = {"__error__": told} if told else _answer(chunks, snapshot)
        return StepRecord(plain(events), plain(answer), run_status, self.thread_status, plain(thread_state(snapshot)))

    def _update(self, step: Update) -> StepRecord:
        config = self._place(step.at)
        try:
            if self.is_async:
                asyncio.run(self.graph.aupdate_state(config, step.values, step.as_node))
            else:
                self.graph.update_state(config, step.values, step.as_node)
            status = "updated"
        except (InvalidUpdateError, EmptyInputError):
            status = "refused"
        snapshot = self._snapshot()
        # How a thread is was decided by its last run; a change by hand leaves that as it is.
        return StepRecord([], None, status, self.thread_status, plain(thread_state(snapshot)))

    def _input(self, step: Run) -> Any:
        command: dict[str, Any] = {}
        if step.resume is not NOTHING:
            command["resume"] = step.resume
        if step.answers is not None:
            asked = [one for task in self._snapshot().tasks for one in task.interrupts]
            command["resume"] = find_interrupts(step.answers, plain(asked))
        if step.update is not None:
            command["update"] = step.update
        if step.goto is not None:
            command["goto"] = _goto(step.goto)
        return Command(**command) if command else json.loads(json.dumps(step.input))

    def _config(self, step: Run, run_id: str) -> Any:
        """As the Agent Server makes it of a request's."""
        given: dict[str, Any] = dict(step.config)
        configurable = {
            **given.get("configurable", {}),
            **(step.context or {}),
            **self._place(step.at)["configurable"],
            "run_id": run_id,
            "graph_id": self.scenario.name,
            "assistant_id": self.assistant_id,
            "langgraph_auth_user_id": USER,
        }
        configurable.pop("checkpoint_ns")
        metadata = {
            **given.get("metadata", {}),
            "run_id": run_id,
            "graph_id": self.scenario.name,
            "assistant_id": self.assistant_id,
        }
        return {**given, "configurable": configurable, "metadata": metadata}

    # ----------------------------------------------------------------------- the thread

    def _place(self, at: int | None) -> Any:
        configurable = {"thread_id": self.thread_id, "checkpoint_ns": ""}
        if at is not None:
            configurable["checkpoint_id"] = self._history()[at].config["configurable"]["checkpoint_id"]
        return {"configurable": configurable}

    def _snapshot(self) -> StateSnapshot:
        """As far as reducers take the writes that wait; else as it was saved."""
        config = self._place(None)
        try:
            return self.readable.get_state(config, subgraphs=True)
        except Exception:
            found = self.saver.get_tuple(config)
            if found is None:
                raise
            return self.readable.get_state(found.config, subgraphs=True)

    def _history(self) -> list[StateSnapshot]:
        return [*self.readable.get_state_history(self._place(None))][::-1]


async def _collect(chunks: AsyncIterator[Any], into: list[Any]) -> None:
    async for chunk in chunks:
        into.append(chunk)  # noqa: PERF401  # what came before an error is kept


def _context(step: Run, graph: AnyGraph) -> Any:
    """A graph with a context schema gets the configurable where no context was sent."""
    if step.context is None and graph.context_schema is not None:
        return dict(step.config.get("configurable", {}))
    return None if step.context is None else dict(step.context)


def _goto(goto: Any) -> Any:
    if isinstance(goto, list):
        return [_goto(one) for one in goto]
    return goto if isinstance(goto, str) else Send(goto["node"], goto["input"])


def _answer(chunks: list[Any], snapshot: StateSnapshot) -> Any:
    """As `invoke` returns it: the last values, with what is asked."""
    values = [payload for ns, mode, payload in chunks if mode == "values" and not ns]
    last = values[-1] if values else snapshot.values
    asked = [one for task in snapshot.tasks for one in task.interrupts]
    if not asked:
        return last
    return {**(last if isinstance(last, dict) else {}), "__interrupt__": asked}


# --------------------------------------------------------------------------- the Agent Server's shapes


def _events(chunks: Iterable[Any], modes: tuple[str, ...]) -> Iterable[list[Any]]:
    """Chunks as the Agent Server names them: mode|namespace|…"""
    growing: dict[str, Any] = {}
    for ns, mode, payload in chunks:
        where = "".join(f"|{part}" for part in ns)
        if mode == "messages":
            yield from _message_events(where, payload, modes, growing)
        elif mode in modes:
            yield [mode + where, _named_checkpoints(mode, payload)]
        elif mode == "updates" and "values" not in modes and isinstance(payload, dict) and payload.get("__interrupt__"):
            yield ["values" + where, payload]  # a question reaches everybody


def _message_events(where: str, payload: Any, modes: tuple[str, ...], growing: dict[str, Any]) -> Iterable[list[Any]]:
    if "messages-tuple" in modes:
        yield ["messages" + where, list(payload)]
    elif "messages" in modes:
        message, metadata = payload
        if message.id not in growing:
            yield ["messages/metadata", {message.id: {"metadata": metadata}}]
        if isinstance(message, BaseMessageChunk):
            before = growing.get(message.id)
            growing[message.id] = before + message if isinstance(before, AIMessageChunk) else message
            yield ["messages/partial", [message_chunk_to_message(growing[message.id])]]
        else:
            growing[message.id] = message
            yield ["messages/complete", [message]]


def _named_checkpoints(mode: str, payload: Any) -> Any:
    if mode == "debug" and payload["type"] == "checkpoint":
        return {**payload, "payload": _named_checkpoints("checkpoints", payload["payload"])}
    if mode != "checkpoints":
        return payload
    parent = payload["parent_config"]
    named = {
        "checkpoint": _checkpoint(payload["config"]),
        "parent_checkpoint": _checkpoint(parent) if parent else None,
        "tasks": [_named_task(task) for task in payload["tasks"]],
    }
    return {**payload, **named}


def _named_task(task: Mapping[str, Any]) -> Mapping[str, Any]:
    if not task.get("state"):
        return task
    return {**{key: value for key, value in task.items() if key != "state"}, "checkpoint": _checkpoint(task["state"])}


def _checkpoint(config: Mapping[str, Any]) -> dict[str, Any]:
    configurable = config["configurable"]
    keys = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    return {key: configurable[key] for key in keys if configurable.get(key) is not None}


def thread_state(snapshot: StateSnapshot) -> dict[str, Any]:
    """The Agent Server's ThreadState."""
    checkpoint = _checkpoint(snapshot.config)
    parent = _checkpoint(snapshot.parent_config) if snapshot.parent_config else None
    return {
        "values": snapshot.values,
        "next": list(snapshot.next),
        "tasks": [
            {
                "id": task.id,
                "name": task.name,
                "path": list(task.path),
                "error": repr(task.error) if isinstance(task.error, BaseException) else task.error,
                "interrupts": list(task.interrupts),
                "checkpoint": _checkpoint(task.state) if isinstance(task.state, dict) else None,
                "state": thread_state(task.state) if isinstance(task.state, StateSnapshot) else None,
                "result": task.result,
            }
            for task in snapshot.tasks
        ],
        "metadata": snapshot.metadata or {},
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": [one for task in snapshot.tasks for one in task.interrupts],
        "checkpoint_id": checkpoint.get("checkpoint_id"),
        "parent_checkpoint_id": parent.get("checkpoint_id") if parent else None,
    }


def stored(saver: Any, thread_id: str) -> dict[str, list[CheckpointTuple]]:
    """All that a saver holds of a thread, {checkpoint namespace: its checkpoints, oldest first}."""
    found: dict[str, list[CheckpointTuple]] = {}
    for one in saver.list({"configurable": {"thread_id": thread_id}}):
        found.setdefault(one.config["configurable"]["checkpoint_ns"], []).insert(0, one)
    return found


def plain(value: Any) -> Any:
    """As a client of the farm reads it."""
    return json.loads(to_json(value))
