"""A stream outlives the request that authorised it, and keeps neither its thread nor its database connection.

Django keeps an OS thread for as long as a request is open, and a view that asked the database keeps that connection
too: 5,000 open streams would be 5,000 threads. So a view that wants to stream calls `hand_off(request.scope, …)` and
returns an empty response with the headers. This outer ASGI app sends those, lets Django finish with the request, and
only then sends the stream, on the event loop alone.

A stream that ends before its body does (the server stops, the stream store is lost) is cut, never completed: half of it
must not look whole. SDKs come back to the response's Location with the last id they have; after a clean end they would
only ask whether the run is over, and lose what it said in between.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_BOX: Final = "agentfarm.stream"

OK: Final = 200


@dataclass(frozen=True, slots=True)
class Stream:
    """A body to be sent after the view has returned.

    body     the bytes, chunk by chunk; closed in any case
    on_gone  called when the client left before the end (not when the server stops)
    """

    body: AsyncIterator[bytes]
    on_gone: Callable[[], Awaitable[None]] | None = None


def hand_off(scope: Scope, stream: Stream) -> None:
    """Have `stream` sent as the body of the response that the view is about to return.

    raises  RuntimeError when the server has no StreamHandoff around Django, so that nobody would send it
    """
    if _BOX not in scope:
        raise RuntimeError("streams need the ASGI application agentfarm.asgi:application")
    scope[_BOX].append(stream)


class StreamHandoff:
    """The outer app. `end_streams()` ends all that are open, for a server that stops."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._stopping = asyncio.Event()
        self.open_streams = 0

    def end_streams(self) -> None:
        """Cut every stream, those too that begin from now on. Call on the event loop."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        box: list[Stream] = []
        head: Message | None = None

        async def send_head(message: Message) -> None:
            """Pass on what Django answers; where that is the empty response of a stream, keep it."""
            nonlocal head
            if box and message["type"] == "http.response.start" and message["status"] == OK:
                headers = [header for header in message["headers"] if header[0].lower() != b"content-length"]
                head = {**message, "headers": headers}
            elif head is None:
                await send(message)

        await self._app({**scope, _BOX: box}, receive_once(receive), send_head)
        if head is not None:
            await self._send_stream(box[0], head, receive, send)

    async def _send_stream(self, stream: Stream, head: Message, receive: Receive, send: Send) -> None:
        self.open_streams += 1
        pump = asyncio.create_task(_pump(stream, head, send), name="stream-pump")
        gone = asyncio.create_task(_gone(receive), name="stream-gone")
        stopping = asyncio.create_task(self._stopping.wait(), name="stream-stopping")
        try:
            await asyncio.wait({pump, gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not pump.done() and stream.on_gone is not None:
                await stream.on_gone()
        finally:
            self.open_streams -= 1
            await _end(pump, gone, stopping)


async def _pump(stream: Stream, head: Message, send: Send) -> None:
    try:
        await send(head)
        async for chunk in stream.body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except (
        Exception
    ) as error:  # the status has gone out; that the response is never completed is what can still be told
        logger.warning("a stream was cut", extra={"error": type(error).__name__})
        return
    finally:
        if (aclose := getattr(stream.body, "aclose", None)) is not None:
            await aclose()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel them until they have ended: a library may swallow a cancellation, and a pump must not outlive it."""
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=1.0)
    for failure in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(failure, Exception):
            logger.warning("a stream did not end well", exc_info=failure)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def receive_once(receive: Receive) -> Receive:
    """The request's body, and then nothing for ever.

    Django drops its answer when it learns that the client has left, while the view, in its thread, goes on: a run may
    be admitted whose `on_disconnect` nobody would carry out. So Django is not told: its requests are short.
    """
    is_read = False

    async def receive_body() -> Message:
        nonlocal is_read
        if is_read:
            await asyncio.Event().wait()
        message = await receive()
        is_read = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return receive_body
