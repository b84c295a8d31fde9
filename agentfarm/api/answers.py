"""Answers as the Agent Server gives them: JSON bodies, the headers its SDKs read, and the hand-off of streams."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse

from agentfarm.engine.jsonable import to_json
from agentfarm.errors import BadRequest
from agentfarm.records import Event, RunRow
from agentfarm.streaming import sse
from agentfarm.streaming.handoff import Stream, hand_off

Headers = Mapping[str, str]


def answer(value: Any, *, status: int = 200, headers: Headers | None = None) -> HttpResponse:
    """Values as the graph left them (messages, models) become JSON here."""
    return HttpResponse(to_json(value), status=status, content_type="application/json", headers=dict(headers or {}))


def nothing(*, status: int = 204) -> HttpResponse:
    response = HttpResponse(status=status)
    del response["content-type"]
    return response


def page(items: Sequence[Any], *, offset: int, has_more: bool) -> HttpResponse:
    """A page of a list, with the headers by which SDKs turn it. The total is a lower bound where there is more."""
    end = offset + len(items)
    headers = {"x-pagination-total": str(end + 1 if has_more else end)}
    if has_more:
        headers["x-pagination-next"] = str(end)
    return answer(items, headers=headers)


def project(items: Iterable[Mapping[str, Any]], select: Sequence[str] | None) -> list[Mapping[str, Any]]:
    """Only these fields of each; all when none are named."""
    if not select:
        return list(items)
    return [{key: value for key, value in item.items() if key in select} for item in items]


def run_headers(run: RunRow, *, reconnect: str | None = None) -> dict[str, str]:
    """By Content-Location an SDK learns the run's ids, by Location where to come back to: "stream" or "join"."""
    place = f"/threads/{run.thread_id}/runs/{run.run_id}"
    return {"content-location": place, **({"location": f"{place}/{reconnect}"} if reconnect else {})}


def stream_events(
    request: HttpRequest,
    events: AsyncIterator[Event | None],
    *,
    headers: Headers | None = None,
    on_gone: Callable[[], Awaitable[None]] | None = None,
) -> HttpResponse:
    """Server-sent events, sent after this request is finished."""
    _hand_off(request, Stream(sse.render_events(events), on_gone=on_gone))
    fixed = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return HttpResponse(content_type=sse.CONTENT_TYPE, headers={**fixed, **(headers or {})})


def stream_json(
    request: HttpRequest,
    body: AsyncIterator[bytes],
    *,
    headers: Headers | None = None,
    on_gone: Callable[[], Awaitable[None]] | None = None,
) -> HttpResponse:
    """A JSON document whose last bytes come late."""
    _hand_off(request, Stream(body, on_gone=on_gone))
    return HttpResponse(content_type="application/json", headers={"x-accel-buffering": "no", **(headers or {})})


def check_holds_open(request: HttpRequest) -> None:
    """Before anything is admitted. Raises BadRequest under WSGI."""
    if not hasattr(request, "scope"):
        raise BadRequest(why="this server speaks WSGI, which holds no stream open; ask one that serves agentfarm.asgi")


def _hand_off(request: HttpRequest, stream: Stream) -> None:
    check_holds_open(request)
    hand_off(vars(request)["scope"], stream)
