"""Events as bytes of a text/event-stream, as the Agent Server spells them: CRLF; event, data, id; heartbeats."""

from collections.abc import AsyncIterator
from typing import Final

from agentfarm.records import Event

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"

#: Clients learn the gap between heartbeats, and come back when they stop.
HEARTBEAT: Final = b": heartbeat\r\n\r\n"

_LINE_ENDS: Final = {ord("\r"): " ", ord("\n"): " "}


def render_event(event: Event) -> bytes:
    """One event. A line end in its name (a node may be called anything) cannot start a field of its own."""
    lines = [b"event: " + event.name.translate(_LINE_ENDS).encode()]
    lines += [b"data: " + line for line in event.data.splitlines() or [b""]]
    if event.id:
        lines.append(b"id: " + event.id.encode())
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def render_events(events: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    """The stream's body: what is handed to `StreamHandoff`."""
    async for event in events:
        yield HEARTBEAT if event is None else render_event(event)
