"""What a stock stream yields, as events of the Agent Server's wire: (name, payload).

    values, updates, custom, tasks, checkpoints, debug     the payload as LangGraph made it
    messages                                               stream mode messages-tuple: [message or chunk, metadata]
    messages/metadata, messages/partial, messages/complete stream mode messages: the message so far, a list of one

A subgraph's events carry where they are from: `updates|child:id|grandchild:id`. Payloads are Python values; jsonable.py
makes bytes of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, BaseMessageChunk

Rendered = tuple[str, Any]


class EventRenderer:
    """Renders one segment's chunks, in order. Keeps the messages that are being streamed, so: one a segment.

    modes      the Agent Server's stream modes that were asked for
    subgraphs  whether chunks come as (namespace, mode, payload) instead of (mode, payload)
    """

    def __init__(self, modes: Sequence[str], *, subgraphs: bool = False) -> None:
        self.modes = frozenset(modes)
        self.subgraphs = subgraphs
        self._messages: dict[str, BaseMessage] = {}

    def render(self, chunk: Any) -> Iterator[Rendered]:
        """The events of a chunk: none for a mode that nobody asked for."""
        namespace, mode, payload = chunk if self.subgraphs else ((), *chunk)
        if mode == "messages":
            yield from self._render_message(namespace, *payload)
        elif mode in self.modes:
            yield _named(mode, namespace), payload

    def _render_message(
        self, namespace: Sequence[str], message: BaseMessage, metadata: dict[str, Any]
    ) -> Iterator[Rendered]:
        if "messages-tuple" in self.modes:
            yield _named("messages", namespace), [message, metadata]
        if "messages" not in self.modes:
            return
        key = message.id or ""
        if key not in self._messages:
            yield _named("messages/metadata", namespace), {key: {"metadata": metadata}}
        so_far = self._messages.get(key)
        if isinstance(message, BaseMessageChunk):
            if isinstance(so_far, BaseMessageChunk):
                message = so_far + message
            self._messages[key] = message
            yield _named("messages/partial", namespace), [message]
        else:
            self._messages[key] = message
            yield _named("messages/complete", namespace), [message]


def _named(name: str, namespace: Sequence[str]) -> str:
    return "|".join((name, *namespace))
