"""Station 1: a client asks for a run, in the background, waiting for its answer, or reading its events. And what one
does with a run that is there: look, join, cancel, delete.

A run is durable before any of these answers. Who waits or reads does so by the hand-off: without a thread and without a
connection to the database.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from django.http import HttpRequest, HttpResponse
from langgraph.types import Command
from ninja import Body, Header, Query, Router
from pydantic import BaseModel, Field

from agentfarm import ids
from agentfarm.api import documents
from agentfarm.api.answers import answer, check_holds_open, nothing, project, run_headers, stream_events, stream_json
from agentfarm.api.auth import tenant_of
from agentfarm.api.process import farm
from agentfarm.api.schemas import MAX_LIMIT, MAX_OFFSET, RunCreate, RunCreateStateless, RunsCancel
from agentfarm.errors import BadRequest, InvalidInput, NotFound, UnsupportedField
from agentfarm.flow.admit import ALL_MODES, admit_run, build_run
from agentfarm.flow.answers import read_answer
from agentfarm.flow.cancel import cancel_run
from agentfarm.flow.watch import stream_run, wait_run
from agentfarm.records import NewRun, Once, RunRow, RunStatus
from agentfarm.tenancy import Tenant

router = Router(tags=["Runs"])

#: Runs that one request may create.
MAX_BATCH = 100

_EVENT_ID = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")

#: Where a stream that is joined begins. Without an id: from now on, as the Agent Server does.
FROM_NOW, FROM_THE_START = "$", "0-0"

Action = Literal["interrupt", "rollback"]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same request with the same key is the same run for 24 hours: answered, waited for or streamed"
        " again, and begun once. Another request with it is refused (422). Printable ASCII without spaces, of the"
        " tenant's own.",
    ),
]
RunField = Literal[
    "run_id",
    "thread_id",
    "assistant_id",
    "created_at",
    "updated_at",
    "status",
    "metadata",
    "kwargs",
    "multitask_strategy",
]


class RunsQuery(BaseModel):
    limit: int = Field(10, ge=1, le=MAX_LIMIT)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)
    status: RunStatus | None = None
    select: list[RunField] = Field(default_factory=list)


class JoinQuery(BaseModel):
    cancel_on_disconnect: bool = False
    stream_mode: list[str] = Field(default_factory=list)


class CancelQuery(BaseModel):
    wait: bool = False
    action: Action = "interrupt"


# --------------------------------------------------------------------------- on a thread


@router.post(
    "/threads/{thread_id}/runs", response=documents.of(documents.Run), summary="Create a run in the background"
)
def create_run(
    request: HttpRequest, thread_id: str, body: RunCreate, idempotency_key: IdempotencyKey = None
) -> HttpResponse:
    """Answers as soon as the run is durable."""
    return _background(_admit(request, body, _thread_id(thread_id), idempotency_key, streamed=True))


@router.post(
    "/threads/{thread_id}/runs/wait", response=documents.of(Any), summary="Create a run and wait for its answer"
)
def wait_for_run(
    request: HttpRequest, thread_id: str, body: RunCreate, idempotency_key: IdempotencyKey = None
) -> HttpResponse:
    """The final values; with `__interrupt__` where the run waits for a human; `{"__error__": …}` where it failed."""
    return _wait(request, body, _thread_id(thread_id), idempotency_key)


@router.post("/threads/{thread_id}/runs/stream", response=documents.of(Any), summary="Create a run and read its events")
def stream_new_run(
    request: HttpRequest, thread_id: str, body: RunCreate, idempotency_key: IdempotencyKey = None
) -> HttpResponse:
    """Server-sent events. After a lost connection, join the run's stream with the last id you have."""
    return _stream(request, body, _thread_id(thread_id), idempotency_key)


# --------------------------------------------------------------------------- on a thread of its own


@router.post("/runs", response=documents.of(documents.Run), summary="Create a run without a thread")
def create_stateless_run(
    request: HttpRequest, body: RunCreateStateless, idempotency_key: IdempotencyKey = None
) -> HttpResponse:
    return _background(_admit(request, body, ids.new_id(), idempotency_key, streamed=True))


@router.post("/runs/wait", response=documents.of(Any), summary="Create a run without a thread and wait for its answer")
def wait_for_stateless_run(
    request: HttpRequest, body: RunCreateStateless, idempotency_key: IdempotencyKey = None
) -> HttpResponse:
    return _wait(request, body, ids.new_id(), idempotency_key)


@router.post("/runs/stream", response=documents.of(Any), summary="Create a run without a thread and read its events")
def stream_stateless_run(
    request: HttpRequest, body: RunCreateStateless, idempotency_key: IdempotencyKey = None
) -> HttpResponse:
    return _stream(request, body, ids.new_id(), idempotency_key)


@router.post("/runs/batch", response=documents.of(list[documents.Run]), summary="Create runs without threads")
def create_runs(
    request: HttpRequest, body: Body[Annotated[list[RunCreateStateless], Field(min_length=1, max_length=MAX_BATCH)]]
) -> HttpResponse:
    """All are checked before the first is created."""
    tenant = tenant_of(request)
    new = [_build(tenant, one, ids.new_id(), streamed=False) for one in body]
    return answer([render_run(admit_run(farm(), tenant, one)) for one in new])


@router.post("/runs/cancel", response=documents.empty(), summary="Cancel runs")
def cancel_runs(request: HttpRequest, body: RunsCancel, action: Action = "interrupt") -> HttpResponse:
    """Those named by `run_ids`, or those of the thread that are not over. One that is over meanwhile is no error."""
    tenant = tenant_of(request)
    if body.thread_id is None:
        raise UnsupportedField(field="Cancelling without a thread_id")
    if (body.run_ids is None) == (body.status is None):
        raise InvalidInput(where="body", why="give run_ids, or a status: pending, running or all")
    if body.run_ids is not None:
        wanted = [farm().runs.get(tenant, body.thread_id, run_id).run_id for run_id in body.run_ids]
    else:
        wanted = _open_runs(tenant, body.thread_id, body.status)
    for run_id in wanted:
        _cancel_quietly(tenant, body.thread_id, run_id, action)
    return nothing()


# --------------------------------------------------------------------------- runs that are there


@router.get("/threads/{thread_id}/runs", response=documents.of(list[documents.Run]), summary="List a thread's runs")
def list_runs(request: HttpRequest, thread_id: str, query: Query[RunsQuery]) -> HttpResponse:
    """Newest first."""
    rows = farm().runs.list(
        tenant_of(request), _thread_id(thread_id), limit=query.limit, offset=query.offset, status=query.status
    )
    return answer(project([render_run(row) for row in rows], query.select))


@router.get("/threads/{thread_id}/runs/{run_id}", response=documents.of(documents.Run), summary="Get a run")
def get_run(request: HttpRequest, thread_id: str, run_id: str) -> HttpResponse:
    row = farm().runs.get(tenant_of(request), _thread_id(thread_id), _run_id(run_id), with_spec=True)
    return answer(render_run(row))


@router.delete("/threads/{thread_id}/runs/{run_id}", response=documents.empty(), summary="Delete a run")
def delete_run(request: HttpRequest, thread_id: str, run_id: str) -> HttpResponse:
    farm().runs.delete(tenant_of(request), _thread_id(thread_id), _run_id(run_id))
    return nothing()


@router.get("/threads/{thread_id}/runs/{run_id}/join", response=documents.of(Any), summary="Wait for a run's answer")
def join_run(request: HttpRequest, thread_id: str, run_id: str, query: Query[JoinQuery]) -> HttpResponse:
    tenant = tenant_of(request)
    row = farm().runs.get(tenant, _thread_id(thread_id), _run_id(run_id))
    body = wait_run(farm(), tenant, row.thread_id, row.run_id)
    on_gone = _cancelling(tenant, row) if query.cancel_on_disconnect else None
    return stream_json(request, body, headers=run_headers(row, reconnect="join"), on_gone=on_gone)


@router.get("/threads/{thread_id}/runs/{run_id}/stream", response=documents.of(Any), summary="Read a run's events")
def join_stream(request: HttpRequest, thread_id: str, run_id: str, query: Query[JoinQuery]) -> HttpResponse:
    """From now on; with the header `Last-Event-ID` what came after that id; with "0-0" or "-1" from the start."""
    tenant = tenant_of(request)
    row = farm().runs.get(tenant, _thread_id(thread_id), _run_id(run_id))
    events = stream_run(farm(), tenant, row.run_id, after=_after(request), modes=_modes(query.stream_mode))
    on_gone = _cancelling(tenant, row) if query.cancel_on_disconnect else None
    return stream_events(request, events, headers=run_headers(row, reconnect="stream"), on_gone=on_gone)


@router.post("/threads/{thread_id}/runs/{run_id}/cancel", response=documents.empty(status=202), summary="Cancel a run")
def cancel(request: HttpRequest, thread_id: str, run_id: str, query: Query[CancelQuery]) -> HttpResponse:
    """Its finished steps stay (interrupt), or are undone with the run (rollback). `wait=1` answers what it came to."""
    tenant, thread, run = tenant_of(request), _thread_id(thread_id), _run_id(run_id)
    cancel_run(farm(), tenant, thread, run, action=query.action)  # it is over when this returns
    if not query.wait:
        return nothing(status=202)
    return answer(read_answer(farm(), tenant, thread, run) if query.action == "interrupt" else None)


# --------------------------------------------------------------------------- the three ways to be answered


def _admit(request: HttpRequest, body: RunCreate, thread_id: UUID, key: str | None, *, streamed: bool) -> RunRow:
    tenant = tenant_of(request)
    once = None if key is None else Once(key, _digest(body, thread_id))
    return admit_run(farm(), tenant, _build(tenant, body, thread_id, streamed=streamed, once=once))


def _build(tenant: Tenant, body: RunCreate, thread_id: UUID, *, streamed: bool, once: Once | None = None) -> NewRun:
    return build_run(farm(), tenant, body.to_run_request(streamed=streamed), thread_id=thread_id, once=once)


def _digest(body: RunCreate, thread_id: UUID) -> bytes:
    """Of what is asked for, however its JSON is written; a stateless run's thread is not the client's choice."""
    asked = [None if body.is_stateless else str(thread_id), body.model_dump(exclude_unset=True)]
    return sha256(json.dumps(asked, sort_keys=True, default=str).encode()).digest()


def _background(row: RunRow) -> HttpResponse:
    return answer(render_run(row), headers=run_headers(row))


def _wait(request: HttpRequest, body: RunCreate, thread_id: UUID, key: str | None) -> HttpResponse:
    check_holds_open(request)
    tenant, row = tenant_of(request), _admit(request, body, thread_id, key, streamed=False)
    # Under a key it may be the run of an earlier request.
    chunks = wait_run(farm(), tenant, row.thread_id, row.run_id, is_new=key is None)
    on_gone = _cancelling(tenant, row) if body.on_disconnect == "cancel" else None
    return stream_json(request, chunks, headers=run_headers(row, reconnect="join"), on_gone=on_gone)


def _stream(request: HttpRequest, body: RunCreate, thread_id: UUID, key: str | None) -> HttpResponse:
    check_holds_open(request)
    tenant, row = tenant_of(request), _admit(request, body, thread_id, key, streamed=True)
    events = stream_run(farm(), tenant, row.run_id, is_new=key is None)
    on_gone = _cancelling(tenant, row) if body.on_disconnect == "cancel" else None
    return stream_events(request, events, headers=run_headers(row, reconnect="stream"), on_gone=on_gone)


def _cancelling(tenant: Tenant, row: RunRow) -> Callable[[], Awaitable[None]]:
    """What happens when the client of this run leaves."""

    async def on_gone() -> None:
        await asyncio.to_thread(_cancel_quietly, tenant, row.thread_id, row.run_id, "interrupt")

    return on_gone


def _cancel_quietly(tenant: Tenant, thread_id: UUID, run_id: UUID, action: Action) -> None:
    with suppress(NotFound):  # it came to its end by itself a moment before: what was asked for holds
        cancel_run(farm(), tenant, thread_id, run_id, action=action)


def _open_runs(tenant: Tenant, thread_id: UUID, status: Literal["pending", "running", "all"] | None) -> list[UUID]:
    """Waiting ones first, so that none begins while the running one is stopped."""
    statuses: tuple[RunStatus, ...] = ("pending", "running") if status == "all" else (status or "pending",)
    return [
        row.run_id
        for one in statuses
        for row in farm().runs.list(tenant, thread_id, limit=MAX_LIMIT, offset=0, status=one)
    ]


# --------------------------------------------------------------------------- reading and rendering


def render_run(row: RunRow) -> dict[str, Any]:
    """The Agent Server's Run. `kwargs` is what it was asked for, where the row was read with it."""
    return {
        "run_id": str(row.run_id),
        "thread_id": str(row.thread_id),
        "assistant_id": str(row.assistant_id),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "metadata": row.metadata,
        "status": row.status,
        "kwargs": _kwargs(row),
        "multitask_strategy": row.strategy,
    }


def _kwargs(row: RunRow) -> dict[str, Any]:
    if row.spec is None:
        return {}
    given = row.spec.input
    command = (
        {"update": given.update, "resume": given.resume, "goto": given.goto} if isinstance(given, Command) else None
    )
    return {
        "input": None if command else given,
        "command": command,
        "config": {**row.spec.config, "agentfarm": asdict(row.spec.options)},
        "stream_mode": list(row.spec.modes),
        **{
            name: row.spec.kwargs.get(name)
            for name in ("subgraphs", "interrupt_before", "interrupt_after", "durability")
        },
    }


def _after(request: HttpRequest) -> str:
    last = request.headers.get("last-event-id", "").strip()
    if not last:
        return FROM_NOW
    if last == "-1":
        return FROM_THE_START
    if not _EVENT_ID.fullmatch(last):
        raise BadRequest(why="Last-Event-ID is no id of an event; those look like 1795416286670-0")
    return last


def _modes(given: list[str]) -> list[str] | None:
    """Repeated, or one JSON list, as SDKs send it (empty: not given); None where all are wanted."""
    given = [mode for mode in given if mode]
    if len(given) == 1 and given[0].startswith("["):
        try:
            given = orjson.loads(given[0])
        except orjson.JSONDecodeError:
            raise InvalidInput(where="stream_mode", why="is neither a mode nor a JSON list of modes") from None
    unknown = [mode for mode in given if mode not in ALL_MODES]
    if unknown:
        raise InvalidInput(where="stream_mode", why=f"may be {', '.join(ALL_MODES)}")
    return given or None


def _thread_id(text: str) -> UUID:
    return ids.parse_uuid(text, what="thread_id")


def _run_id(text: str) -> UUID:
    return ids.parse_uuid(text, what="run_id")
