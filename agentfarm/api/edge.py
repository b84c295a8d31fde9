"""The outermost ASGI app: what must hold for every request before any of it is understood.

The size of its body (refused before it is read), its path, its request id, one line in the log, and the headers by
which a browser's page on another origin may talk to this server (CORS). The body is read here, so that a client which
sends slowly holds no thread.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Final

import orjson

from agentfarm import clock, ids
from agentfarm.api.facts import FACTS
from agentfarm.errors import AgentFarmError, BadRequest, TooLarge
from agentfarm.streaming.handoff import ASGIApp, Message, Receive, Scope, Send
from agentfarm.telemetry.logs import log_fields

logger = logging.getLogger(__name__)

#: A client's own id is taken over if it cannot break a log line or a header.
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._\-]{1,64}")

#: What a page may read of an answer besides the body.
EXPOSED: Final = b"content-location, location, x-pagination-next, x-pagination-total, x-request-id, retry-after"

METHODS: Final = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"

#: Encoded slashes, backslashes and NULs: in no id and no name of ours, and read differently by every proxy.
_BAD_PATH: Final = re.compile(rb"%(2f|5c|00)|//|\\|;|(^|/)\.\.?(/|$)|%2e", re.IGNORECASE)

#: Asked by probes every few seconds.
QUIET_ROUTES: Final = frozenset({"/ok", "/ready"})

#: Seconds a client has to send its body.
BODY_SECONDS: Final = 60.0


class Edge:
    def __init__(self, app: ASGIApp, *, max_body_bytes: int, cors_allow_origins: Sequence[str]) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._origins = frozenset(origin.encode() for origin in cors_allow_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await _refuse_websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else ids.new_id().hex.encode()
        added = [(b"x-request-id", request_id), *self._cors(headers)]
        facts: dict[str, str] = {}
        status = 0
        began = clock.monotonic_seconds()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        with log_fields(request_id=request_id.decode()):
            try:
                if _is_preflight(scope, headers):
                    await _answer(send_with_headers, 204, b"", self._preflight(headers))
                    return
                body = await self._read(scope, headers, receive)
                inner = {**scope, FACTS: facts}
                await self._app(inner, _replay(body, receive), send_with_headers)
            except AgentFarmError as error:
                await _refuse(send_with_headers, error)
            except ClientLeft:
                pass
            except Exception as error:  # told here, without values; the server's own log line would quote the message
                logger.error("a request failed outside of Django", exc_info=error)  # noqa: TRY400
                if status == 0:
                    await _refuse(send_with_headers, AgentFarmError())
                # else: the answer has begun, and is never completed: the server cuts the connection
            finally:
                took = round((clock.monotonic_seconds() - began) * 1000)
                _log(scope["method"], status, took, facts)

    # ----------------------------------------------------------------------- the body

    async def _read(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body. Raises TooLarge, before more than the limit was read, and BadRequest for an unclear path."""
        if _BAD_PATH.search(scope.get("raw_path") or scope["path"].encode()):
            raise BadRequest(why="its path holds an encoded slash, a dot segment, an empty segment or a semicolon")
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > self._max_body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeft
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise BadRequest(why=f"its body did not come within {BODY_SECONDS:.0f} seconds") from None

    def _too_large(self) -> TooLarge:
        return TooLarge(what="The body", limit_bytes=self._max_body_bytes)

    # ----------------------------------------------------------------------- CORS

    def _cors(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """No credentials: a page sends its key in a header, and cookies (the admin's) are never for other origins."""
        origin = headers.get(b"origin")
        if origin is None:
            return []
        exposed = [(b"access-control-expose-headers", EXPOSED)]
        if b"*" in self._origins:
            return [(b"access-control-allow-origin", b"*"), *exposed]
        allowed = [(b"access-control-allow-origin", origin), *exposed] if origin in self._origins else []
        return [*allowed, (b"vary", b"origin")]

    def _preflight(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        asked = headers.get(b"access-control-request-headers", b"")
        answer = [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", asked or b"*"),
            (b"access-control-max-age", b"600"),
        ]
        if headers.get(b"access-control-request-private-network") == b"true":
            # A page on the internet that talks to a server on this machine (Studio): browsers ask before.
            answer.append((b"access-control-allow-private-network", b"true"))
        return answer


class ClientLeft(Exception):
    """The client left before its request was complete: there is nobody to answer."""


def _log(method: str, status: int, milliseconds: int, facts: dict[str, str]) -> None:
    """One line a request. The route is the pattern: what a client puts into a path may be anything, a key too."""
    level = logging.DEBUG if facts.get("route") in QUIET_ROUTES else logging.INFO
    logger.log(level, "request", extra={"method": method, "status": status, "milliseconds": milliseconds, **facts})


def _is_preflight(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    return scope["method"] == "OPTIONS" and b"access-control-request-method" in headers


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then whatever comes after it from the server."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


async def _refuse(send: Send, error: AgentFarmError) -> None:
    body = orjson.dumps({"detail": str(error), "code": error.code})
    # What was not read of the body is still on the connection: it cannot be used again.
    await _answer(send, error.http_status, body, [(b"content-type", b"application/json"), (b"connection", b"close")])


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())] if body else headers
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """There is no WebSocket here. Where the server can, the handshake is answered in words."""
    await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        detail = "WebSocket is not served by this version of AgentFarm; use server-sent events (transport='sse')."
        body = orjson.dumps({"detail": detail, "code": "not_implemented"})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "websocket.http.response.start", "status": 501, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1003, "reason": "WebSocket is not served; use SSE"})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
