"""Chunks of LangGraph's stream as events, named and shaped as the Agent Server does.

    values, updates, custom, tasks, checkpoints, debug    as LangGraph has them; of a subgraph "updates|child:<id>"
    events                                                LangChain's, as `astream_events(version="v2")` has them
    messages                                              for stream mode "messages-tuple": [message chunk, metadata]
    messages/metadata, messages/partial, messages/complete    for stream mode "messages": the message so far

An interrupt is told in `updates` and in `values` as `__interrupt__`; a client that asked for neither still gets it,
as `values`.
"""

from collections.abc import Collection, Mapping
from typing import Any

from langchain_core.messages import BaseMessage, BaseMessageChunk, convert_to_messages, message_chunk_to_message

INTERRUPT = "__interrupt__"

Event = tuple[str, Any]


class EventRenderer:
    """Renders the chunks of one segment, in order. Keeps the messages that are still growing.

    modes      the Agent Server's stream modes that the run keeps events of
    subgraphs  the stream was asked for those of subgraphs: chunks carry a namespace
    """

    def __init__(self, modes: Collection[str], *, subgraphs: bool = False) -> None:
        self.modes, self.subgraphs = frozenset(modes), subgraphs
        self._growing: dict[str, BaseMessage] = {}

    def render(self, chunk: Any) -> list[Event]:
        """(name, payload) of what the client is to see of this chunk.

        chunk  as stock `stream` yields it for a list of modes: (mode, payload), or (namespace, mode, payload)
        """
        namespace, mode, payload = chunk if self.subgraphs else ((), *chunk)
        where = "|".join(("", *namespace))
        if mode == "events":
            return [(mode, payload)] if _is_for_clients(payload) else []
        if mode == "messages":
            return self._messages(where, payload)
        if mode in self.modes:
            return [(mode + where, _for_clients(mode, payload))]
        if mode == "updates" and "values" not in self.modes and _asks(payload):
            return [("values" + where, payload)]
        return []

    def _messages(self, where: str, payload: tuple[Any, Mapping[str, Any]]) -> list[Event]:
        if "messages-tuple" in self.modes:
            return [("messages" + where, list(payload))]
        if "messages" not in self.modes:
            return []
        given, metadata = payload
        message = given if isinstance(given, BaseMessage) else convert_to_messages([given])[0]
        key = message.id or ""
        events: list[Event] = []
        before = self._growing.get(key)
        if before is None:
            events.append(("messages/metadata", {key: {"metadata": metadata}}))
        if isinstance(message, BaseMessageChunk):
            whole = before + message if isinstance(before, BaseMessageChunk) else message
            self._growing[key] = whole
            events.append(("messages/partial", [message_chunk_to_message(whole)]))
        else:
            self._growing[key] = message
            events.append(("messages/complete", [message]))
        return events


def _is_for_clients(event: Mapping[str, Any]) -> bool:
    """As the Agent Server: not what LangGraph hides, nor the run's own chunks, which come by their modes."""
    hidden = "langsmith:hidden" in (event.get("tags") or ())
    return not hidden and not (event["event"] == "on_chain_stream" and not event["parent_ids"])


def _asks(payload: Any) -> bool:
    """Whether nodes ask something. A breakpoint stops the run too, and asks nothing."""
    return isinstance(payload, dict) and bool(payload.get(INTERRUPT))


def _for_clients(mode: str, payload: Any) -> Any:
    """Checkpoints are named by {thread_id, checkpoint_ns, checkpoint_id}, not by a RunnableConfig."""
    if mode == "checkpoints":
        return _checkpoint_event(payload)
    if mode == "debug" and payload.get("type") == "checkpoint":
        return {**payload, "payload": _checkpoint_event(payload["payload"])}
    return payload


def _checkpoint_event(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **payload,
        "checkpoint": _checkpoint(payload.get("config")),
        "parent_checkpoint": _checkpoint(payload.get("parent_config")),
        "tasks": [_task(task) for task in payload.get("tasks", ())],
    }


def _task(task: Mapping[str, Any]) -> Mapping[str, Any]:
    state = task.get("state")
    if not (isinstance(state, Mapping) and state.get("configurable")):
        return task
    return {**{key: value for key, value in task.items() if key != "state"}, "checkpoint": _checkpoint(state)}


def _checkpoint(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    conf = (config or {}).get("configurable") or {}
    if "thread_id" not in conf:
        return None
    keys = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    return {key: conf[key] for key in keys if conf.get(key) is not None}
