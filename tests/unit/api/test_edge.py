"""The edge: what holds for every request, before anything of it is understood."""

import json
from typing import Any

import pytest

from agentfarm.api.edge import Edge
from agentfarm.streaming.handoff import Message, Receive, Scope, Send


class Exchange:
    """One request and what came back."""

    def __init__(self, *chunks: bytes) -> None:
        self.sent: list[Message] = []
        self.read = 0
        self._chunks = list(chunks) or [b""]

    async def receive(self) -> Message:
        if not self._chunks:
            return {"type": "http.disconnect"}
        self.read += 1
        return {"type": "http.request", "body": self._chunks.pop(0), "more_body": bool(self._chunks)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def json(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % len(message["body"])})


def scope(method: str = "POST", path: str = "/threads", **headers: str) -> Scope:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": named}


async def ask(exchange: Exchange, asked: Scope, *, origins: tuple[str, ...] = ("*",)) -> Exchange:
    await Edge(echo, max_body_bytes=1000, cors_allow_origins=origins)(asked, exchange.receive, exchange.send)
    return exchange


async def test_a_body_that_says_it_is_too_large_is_refused_unread() -> None:
    exchange = await ask(Exchange(b"x" * 2000), scope(content_length="2000"))

    assert exchange.status == 413
    assert exchange.json["code"] == "too_large"
    assert exchange.read == 0


async def test_a_body_that_does_not_say_is_refused_as_soon_as_it_is_too_large() -> None:
    exchange = await ask(Exchange(*[b"x" * 300] * 100), scope(transfer_encoding="chunked"))

    assert exchange.status == 413
    assert exchange.read == 4
    assert exchange.headers["connection"] == "close"


async def test_a_body_at_the_limit_passes_whole() -> None:
    exchange = await ask(Exchange(b"x" * 500, b"x" * 500), scope())

    assert exchange.status == 200
    assert exchange.json == 1000


@pytest.mark.parametrize(
    "path",
    [
        "/threads/a%2Fb",
        "/threads/..%2f..%2fadmin",
        "/threads/../admin",
        "/threads/./x",
        "/threads//x",
        "/threads/%2e%2e/admin",
        "/threads/a%5Cb",
        "/threads/a\\b",
        "/threads/%00",
        "/threads/x;a=b",
        "/threads/..",
    ],
)
async def test_a_path_that_others_may_read_differently_is_refused(path: str) -> None:
    exchange = await ask(Exchange(), scope(path=path))

    assert exchange.status == 400


@pytest.mark.parametrize(
    "path", ["/static/admin/css/base.css", "/threads/a.b", "/assistants/x/subgraphs/a%7Cb", "/.well-known/x"]
)
async def test_ordinary_paths_pass(path: str) -> None:
    assert (await ask(Exchange(), scope(path=path))).status == 200


async def test_a_request_id_is_given_back_and_a_strange_one_replaced() -> None:
    kept = await ask(Exchange(), scope(x_request_id="trace-1.2_3"))
    replaced = await ask(Exchange(), scope(x_request_id="a\r\nset-cookie: x"))
    refused = await ask(Exchange(), scope(content_length="2000"))

    assert kept.headers["x-request-id"] == "trace-1.2_3"
    assert len(replaced.headers["x-request-id"]) == 32
    assert len(refused.headers["x-request-id"]) == 32


async def test_a_page_of_another_origin_may_ask_and_read_what_sdks_need() -> None:
    exchange = await ask(Exchange(), scope(origin="https://chat.example"))

    assert exchange.headers["access-control-allow-origin"] == "*"
    exposed = exchange.headers["access-control-expose-headers"]
    assert {"content-location", "location", "x-pagination-next", "x-pagination-total"} <= set(exposed.split(", "))
    assert "access-control-allow-credentials" not in exchange.headers


async def test_a_refusal_too_can_be_read_by_a_page() -> None:
    exchange = await ask(Exchange(), scope(origin="https://chat.example", content_length="2000"))

    assert exchange.headers["access-control-allow-origin"] == "*"


async def test_only_the_origins_of_a_list_are_let_in() -> None:
    ours = ("https://chat.example",)
    listed = await ask(Exchange(), scope(origin="https://chat.example"), origins=ours)
    other = await ask(Exchange(), scope(origin="https://evil.example"), origins=ours)

    assert listed.headers["access-control-allow-origin"] == "https://chat.example"
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["vary"] == "origin"


async def test_a_preflight_is_answered_without_a_key_and_for_private_networks() -> None:
    asked = scope(
        "OPTIONS",
        origin="https://studio.example",
        access_control_request_method="POST",
        access_control_request_headers="content-type,x-api-key",
        access_control_request_private_network="true",
    )

    exchange = await ask(Exchange(), asked)

    assert exchange.status == 204
    assert exchange.headers["access-control-allow-headers"] == "content-type,x-api-key"
    assert exchange.headers["access-control-allow-private-network"] == "true"
    assert "PATCH" in exchange.headers["access-control-allow-methods"]


async def test_a_client_that_left_while_sending_is_not_answered() -> None:
    exchange = Exchange()
    exchange._chunks = []

    await ask(exchange, scope())

    assert exchange.sent == []


@pytest.mark.parametrize("can_answer", [True, False])
async def test_a_websocket_is_refused_in_words(can_answer: bool) -> None:
    exchange = Exchange()
    asked: Scope = {"type": "websocket", "extensions": {"websocket.http.response": {}} if can_answer else {}}

    await ask(exchange, asked)

    if can_answer:
        assert exchange.status == 501
        assert "SSE" in exchange.json["detail"] or "sse" in exchange.json["detail"]
    else:
        assert exchange.sent[0]["type"] == "websocket.close"
        assert exchange.sent[0]["code"] == 1003
