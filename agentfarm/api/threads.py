"""Threads, their state and their history."""

from contextlib import suppress
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import BaseModel, Field

from agentfarm import ids
from agentfarm.api import documents
from agentfarm.api.absent import say_absent
from agentfarm.api.answers import answer, nothing, page, project
from agentfarm.api.auth import tenant_of
from agentfarm.api.process import farm
from agentfarm.api.schemas import (
    MAX_LIMIT,
    HistoryRequest,
    StateRequest,
    StateUpdate,
    ThreadCreate,
    ThreadFilter,
    ThreadPatch,
    ThreadPrune,
    ThreadSearch,
    Ttl,
)
from agentfarm.errors import InvalidInput, NotFound
from agentfarm.flow import create, read
from agentfarm.flow.settle import announce
from agentfarm.records import ThreadQuery, ThreadRow, ThreadTtl
from agentfarm.tenancy import Tenant

router = Router(tags=["Threads"])

#: What of a thread comes from its row; the rest is read from its head.
_FROM_HEAD = frozenset({"values", "interrupts"})


class ThreadQueryString(BaseModel):
    include: str = ""

    @property
    def includes_ttl(self) -> bool:
        asked = set(filter(None, self.include.split(",")))
        if asked - {"ttl"}:
            raise InvalidInput(where="include", why="takes 'ttl' alone")
        return bool(asked)


class StateQuery(BaseModel):
    subgraphs: bool = False


class HistoryQuery(BaseModel):
    limit: int = Field(10, ge=1, le=MAX_LIMIT)
    before: UUID | None = None


@router.post("/threads", response=documents.of(documents.Thread), summary="Create a thread")
def create_thread(request: HttpRequest, body: ThreadCreate) -> HttpResponse:
    """With an id of yours or a new one. `if_exists`: "do_nothing" answers the thread that is there, as it is.

    `supersteps`: what nodes of the graph `metadata.graph_id` wrote, superstep by superstep, for instance in another
    deployment. The thread is made with that history, or not at all.
    """
    tenant = tenant_of(request)
    supersteps = [[update.to_request() for update in superstep.updates] for superstep in body.supersteps]
    thread_id = body.thread_id or ids.new_id()
    row = create.create_thread(
        farm(), tenant, thread_id, body.metadata, if_exists=body.if_exists, supersteps=supersteps, ttl=_ttl(body.ttl)
    )
    return answer(read.thread_view(farm(), tenant, row))


@router.post("/threads/search", response=documents.of(list[documents.Thread]), summary="Search threads")
def search_threads(request: HttpRequest, body: ThreadSearch) -> HttpResponse:
    """Newest first unless asked otherwise. `metadata` is contained in the thread's."""
    tenant = tenant_of(request)
    rows, has_more = farm().threads.search(tenant, _query(body))
    needs_head = not body.select or bool(_FROM_HEAD & set(body.select))
    items = [read.thread_view(farm(), tenant, row) if needs_head else _row_view(row) for row in rows]
    return page(project(items, body.select), offset=body.offset, has_more=has_more)


@router.post("/threads/count", response=documents.of(int), summary="Count threads")
def count_threads(request: HttpRequest, body: ThreadFilter) -> HttpResponse:
    query = ThreadQuery(ids=body.ids, metadata=body.metadata, status=body.status)
    return answer(farm().threads.count(tenant_of(request), query))


@router.post("/threads/prune", response=documents.of(documents.Pruned), summary="Delete threads, or their past")
def prune_threads(request: HttpRequest, body: ThreadPrune) -> HttpResponse:
    """`strategy` "delete": with runs and history; "keep_latest": the history before the latest state, and no more.

    Those that do not exist are not counted.
    """
    tenant, pruned = tenant_of(request), 0
    for thread_id in dict.fromkeys(body.thread_ids):
        with suppress(NotFound):
            if body.strategy == "delete":
                announce(farm(), farm().threads.delete(tenant, thread_id))
            else:
                farm().threads.keep_latest(tenant, thread_id)
            pruned += 1
    return answer({"pruned_count": pruned})


@router.post("/threads/{thread_id}/copy", response=documents.of(documents.Thread), summary="Copy a thread")
def copy_thread(request: HttpRequest, thread_id: str) -> HttpResponse:
    """A new thread with the state and the history of this one, and none of its runs."""
    tenant = tenant_of(request)
    row = farm().threads.copy(tenant, _thread_id(thread_id), target=ids.new_id())
    return answer(read.thread_view(farm(), tenant, row))


@router.get("/threads/{thread_id}", response=documents.of(documents.Thread), summary="Get a thread")
def get_thread(request: HttpRequest, thread_id: str, query: Query[ThreadQueryString]) -> HttpResponse:
    """`include=ttl`: and until when it is kept, {strategy, ttl_minutes, expires_at}; null: for ever."""
    tenant = tenant_of(request)
    row = farm().threads.get(tenant, _thread_id(thread_id))
    return answer(read.thread_view(farm(), tenant, row, with_ttl=query.includes_ttl))


@router.patch("/threads/{thread_id}", response=documents.of(documents.Thread), summary="Change a thread's metadata")
def patch_thread(request: HttpRequest, thread_id: str, body: ThreadPatch) -> HttpResponse:
    """Metadata is merged, key by key; `ttl` begins now. With `Prefer: return=minimal` nothing is answered."""
    tenant = tenant_of(request)
    row = farm().threads.update(tenant, _thread_id(thread_id), body.metadata, ttl=_ttl(body.ttl))
    if "return=minimal" in request.headers.get("prefer", ""):
        return nothing()
    return answer(read.thread_view(farm(), tenant, row))


@router.delete("/threads/{thread_id}", response=documents.empty(), summary="Delete a thread")
def delete_thread(request: HttpRequest, thread_id: str) -> HttpResponse:
    """With its runs and its whole history. A run that is not over is ended."""
    announce(farm(), farm().threads.delete(tenant_of(request), _thread_id(thread_id)))
    return nothing()


# --------------------------------------------------------------------------- state


@router.get("/threads/{thread_id}/state", response=documents.of(documents.ThreadState), summary="Get the latest state")
def get_state(request: HttpRequest, thread_id: str, query: Query[StateQuery]) -> HttpResponse:
    """`subgraphs`: the state of subgraphs too, where a node of one waits."""
    return _state(tenant_of(request), thread_id, None, subgraphs=query.subgraphs)


@router.post(
    "/threads/{thread_id}/state/checkpoint", response=documents.of(documents.ThreadState), summary="Get a state"
)
def get_state_at(request: HttpRequest, thread_id: str, body: StateRequest) -> HttpResponse:
    """The state at a checkpoint, which may be a subgraph's."""
    return _state(tenant_of(request), thread_id, body.checkpoint.to_dict(), subgraphs=body.subgraphs)


@router.get(
    "/threads/{thread_id}/state/{checkpoint_id}",
    response=documents.of(documents.ThreadState),
    summary="Get a past state",
)
def get_state_of(request: HttpRequest, thread_id: str, checkpoint_id: str, query: Query[StateQuery]) -> HttpResponse:
    place = {"checkpoint_id": str(ids.parse_uuid(checkpoint_id, what="checkpoint_id"))}
    return _state(tenant_of(request), thread_id, place, subgraphs=query.subgraphs)


@router.post("/threads/{thread_id}/state", response=documents.of(dict[str, Any]), summary="Change the state")
def update_state(request: HttpRequest, thread_id: str, body: StateUpdate) -> HttpResponse:
    """As the node `as_node` would, on top of the latest state or of a checkpoint, which forks the thread there."""
    changed = read.update_state(
        farm(),
        tenant_of(request),
        _thread_id(thread_id),
        values=body.values,
        as_node=body.as_node,
        checkpoint=body.place(),
    )
    return answer(changed)


@router.post(
    "/threads/{thread_id}/history", response=documents.of(list[documents.ThreadState]), summary="Get the history"
)
def post_history(request: HttpRequest, thread_id: str, body: HistoryRequest) -> HttpResponse:
    """Past states, newest first."""
    states = read.get_history(
        farm(),
        tenant_of(request),
        _thread_id(thread_id),
        limit=body.limit,
        before=body.before_place(),
        metadata=body.metadata or None,
        checkpoint=body.checkpoint.to_dict() if body.checkpoint else None,
    )
    return answer(states)


@router.get(
    "/threads/{thread_id}/history", response=documents.of(list[documents.ThreadState]), summary="Get the history"
)
def get_history(request: HttpRequest, thread_id: str, query: Query[HistoryQuery]) -> HttpResponse:
    """Past states, newest first."""
    before = {"checkpoint_id": str(query.before)} if query.before else None
    tenant = tenant_of(request)
    return answer(read.get_history(farm(), tenant, _thread_id(thread_id), limit=query.limit, before=before))


say_absent(router, ("PATCH",), "/threads/{thread_id}/state", "Changing the metadata of a state")


def _state(tenant: Tenant, thread_id: str, checkpoint: dict[str, Any] | None, *, subgraphs: bool) -> HttpResponse:
    state = read.get_state(farm(), tenant, _thread_id(thread_id), checkpoint=checkpoint, subgraphs=subgraphs)
    return answer(state)


def _thread_id(text: str) -> UUID:
    return ids.parse_uuid(text, what="thread_id")


def _ttl(given: Ttl | None) -> ThreadTtl | None:
    return given.to_record() if given else None


def _query(body: ThreadSearch) -> ThreadQuery:
    return ThreadQuery(
        ids=body.ids,
        metadata=body.metadata,
        status=body.status,
        limit=body.limit,
        offset=body.offset,
        sort_by=body.sort_by,
        sort_order=body.sort_order,
    )


def _row_view(row: ThreadRow) -> dict[str, Any]:
    """A thread without what its head holds."""
    return {
        "thread_id": str(row.thread_id),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "state_updated_at": row.state_updated_at or row.updated_at,
        "metadata": row.metadata,
        "status": row.status,
        "config": row.config,
        "error": row.error,
    }
