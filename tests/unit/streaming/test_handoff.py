"""The hand-off: a stream is sent after its request is finished, and ends with its client or with the server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentfarm.streaming.handoff import Message, Receive, Scope, Send, Stream, StreamHandoff, hand_off

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0"), (b"x-kept", b"1")]}


class Client:
    """The server's side of one request: what was sent, and a way to leave."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self.has_got = asyncio.Event()
        self._body: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive(self) -> Message:
        if self._body:
            return self._body.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message.get("body"):
            self.has_got.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        return self.sent[-1]["type"] == "http.response.body" and not self.sent[-1].get("more_body", False)


def view(stream: Stream | None, *, status: int = 200, log: list[str] | None = None) -> Any:
    """A stand-in for Django: reads the body, hands a stream over, answers, and finishes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if stream is not None:
            hand_off(scope, stream)
        await send({**HEAD, "status": status})
        await send({"type": "http.response.body", "body": b"" if stream and status == 200 else b"plain"})
        if log is not None:
            log.append("request finished")

    return app


async def endless(log: list[str] | None = None) -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"chunk"
            await asyncio.sleep(0)
    finally:
        if log is not None:
            log.append("stream closed")


async def test_an_ordinary_answer_passes_as_it_is() -> None:
    client = Client()

    await StreamHandoff(view(None))({"type": "http"}, client.receive, client.send)

    assert client.sent == [HEAD, {"type": "http.response.body", "body": b"plain"}]


async def test_a_stream_is_sent_after_its_request_is_finished() -> None:
    client, log = Client(), []

    async def body() -> AsyncIterator[bytes]:
        log.append("stream begins")
        yield b"one "
        yield b"two"

    await StreamHandoff(view(Stream(body()), log=log))({"type": "http"}, client.receive, client.send)

    assert log == ["request finished", "stream begins"]
    assert client.body == b"one two"
    assert client.is_complete
    assert client.sent[0]["headers"] == [(b"x-kept", b"1")]


async def test_a_client_that_leaves_ends_its_stream_and_is_reported() -> None:
    client, log = Client(), []

    async def on_gone() -> None:
        log.append("gone")

    app = StreamHandoff(view(Stream(endless(log), on_gone=on_gone)))
    request = asyncio.create_task(app({"type": "http"}, client.receive, client.send))
    await client.has_got.wait()
    assert app.open_streams == 1

    client.left.set()
    await asyncio.wait_for(request, 5)

    assert sorted(log) == ["gone", "stream closed"]
    assert app.open_streams == 0


async def test_a_client_that_left_before_the_view_was_done_is_reported_too() -> None:
    client, log = Client(), []
    client.left.set()

    async def on_gone() -> None:
        log.append("gone")

    await StreamHandoff(view(Stream(endless(), on_gone=on_gone)))({"type": "http"}, client.receive, client.send)

    assert log == ["gone"]


async def test_a_stopping_server_cuts_its_streams_and_reports_nobody_gone() -> None:
    client, log = Client(), []

    async def on_gone() -> None:
        log.append("gone")

    app = StreamHandoff(view(Stream(endless(log), on_gone=on_gone)))
    request = asyncio.create_task(app({"type": "http"}, client.receive, client.send))
    await client.has_got.wait()

    app.end_streams()
    await asyncio.wait_for(request, 5)

    assert not client.is_complete
    assert log == ["stream closed"]


async def test_a_body_that_swallows_a_cancellation_ends_all_the_same() -> None:
    client = Client()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    app = StreamHandoff(view(Stream(body())))
    request = asyncio.create_task(app({"type": "http"}, client.receive, client.send))
    await client.has_got.wait()

    client.left.set()
    await asyncio.wait_for(request, 10)

    assert app.open_streams == 0


async def test_a_stream_that_fails_is_cut() -> None:
    client = Client()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise LookupError

    await StreamHandoff(view(Stream(body())))({"type": "http"}, client.receive, client.send)

    assert client.body == b"one"
    assert not client.is_complete


async def test_a_view_that_fails_after_handing_over_answers_with_its_error() -> None:
    client = Client()

    await StreamHandoff(view(Stream(endless()), status=500))({"type": "http"}, client.receive, client.send)

    assert client.sent[0]["status"] == 500
    assert client.body == b"plain"


async def test_the_view_is_not_told_that_the_client_left() -> None:
    client, seen = Client(), []
    client.left.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        try:
            async with asyncio.timeout(0.05):
                seen.append(await receive())
        except TimeoutError:
            await send({**HEAD})

    await StreamHandoff(app)({"type": "http"}, client.receive, client.send)

    assert [message["type"] for message in seen] == ["http.request"]


def test_a_stream_that_nobody_would_send_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"agentfarm\.asgi"):
        hand_off({"type": "http"}, Stream(endless()))


async def test_what_is_not_http_passes() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    client = Client()
    await StreamHandoff(app)({"type": "lifespan"}, client.receive, client.send)

    assert seen == ["lifespan"]
