"""Assistants: one of each graph, computed from what this process serves. Making others is not served (absent.py)."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import BaseModel

from agentfarm import clock, ids
from agentfarm.api import documents, graph_views
from agentfarm.api.absent import say_absent
from agentfarm.api.answers import answer, page, project
from agentfarm.api.auth import tenant_of
from agentfarm.api.process import farm
from agentfarm.api.schemas import AssistantFilter, AssistantSearch
from agentfarm.conf import settings
from agentfarm.engine.graphs import LoadedGraph
from agentfarm.errors import GraphLoadFailed, NotFound
from agentfarm.flow.admit import find_graph_id
from agentfarm.flow.graph_use import looking, use_graph

router = Router(tags=["Assistants"])


class GraphQuery(BaseModel):
    xray: bool | int = False


class SubgraphsQuery(BaseModel):
    recurse: bool = False


@router.post("/assistants/search", response=documents.of(list[documents.Assistant]), summary="Search assistants")
def search_assistants(request: HttpRequest, body: AssistantSearch) -> HttpResponse:
    """The assistants that match, page by page."""
    found = _matching(body)
    found.sort(key=lambda one: str(one[body.sort_by]), reverse=body.sort_order == "desc")
    items = found[body.offset : body.offset + body.limit]
    return page(project(items, body.select), offset=body.offset, has_more=len(found) > body.offset + body.limit)


@router.post("/assistants/count", response=documents.of(int), summary="Count assistants")
def count_assistants(request: HttpRequest, body: AssistantFilter) -> HttpResponse:
    return answer(len(_matching(body)))


@router.get("/assistants/{assistant_id}", response=documents.of(documents.Assistant), summary="Get an assistant")
def get_assistant(request: HttpRequest, assistant_id: str) -> HttpResponse:
    """By its id; a graph's name is taken where a run is created, not here."""
    wanted = ids.parse_uuid(assistant_id, what="assistant_id")
    for graph_id in farm().graphs.ids():
        if ids.assistant_id(graph_id) == wanted:
            return answer(render_assistant(graph_id))
    raise NotFound(what="Assistant")


@router.get("/assistants/{assistant_id}/graph", response=documents.of(documents.Drawing), summary="Draw its graph")
def get_graph(request: HttpRequest, assistant_id: str, query: Query[GraphQuery]) -> HttpResponse:
    """Nodes and edges. `xray`: draw subgraphs too, true or so many levels deep."""
    return answer(_look(request, assistant_id, lambda loaded: graph_views.draw(loaded.graph, xray=query.xray)))


@router.get(
    "/assistants/{assistant_id}/schemas", response=documents.of(documents.Schemas), summary="Its graph's schemas"
)
def get_schemas(request: HttpRequest, assistant_id: str) -> HttpResponse:
    """JSON schemas of input, output, state, config and context; null where the graph does not say."""

    def look(loaded: LoadedGraph) -> graph_views.Json:
        return {"graph_id": loaded.graph_id, **graph_views.schemas(loaded.graph)}

    return answer(_look(request, assistant_id, look))


@router.get("/assistants/{assistant_id}/subgraphs", response=documents.of(dict[str, Any]), summary="Its subgraphs")
def get_subgraphs(request: HttpRequest, assistant_id: str, query: Query[SubgraphsQuery]) -> HttpResponse:
    return answer(_subgraphs(request, assistant_id, None, recurse=query.recurse))


@router.get(
    "/assistants/{assistant_id}/subgraphs/{namespace}", response=documents.of(dict[str, Any]), summary="A subgraph"
)
def get_subgraph(request: HttpRequest, assistant_id: str, namespace: str, query: Query[SubgraphsQuery]) -> HttpResponse:
    return answer(_subgraphs(request, assistant_id, namespace, recurse=query.recurse))


say_absent(router, ("PATCH", "DELETE"), "/assistants/{assistant_id}", "Changing assistants")


def render_assistant(graph_id: str) -> dict[str, Any]:
    """The default assistant of a graph. Nobody made it: it is as old as the configuration that names the graph."""
    since = _configured_at()
    return {
        "assistant_id": str(ids.assistant_id(graph_id)),
        "graph_id": graph_id,
        "name": graph_id,
        "description": _description(graph_id),
        "config": {},
        "context": {},
        "metadata": {"created_by": "system"},
        "version": 1,
        "created_at": since,
        "updated_at": since,
    }


def _description(graph_id: str) -> str | None:
    try:
        return farm().graphs.description(graph_id)
    except GraphLoadFailed:
        return None  # /info says why; the assistant is still there


def _subgraphs(request: HttpRequest, assistant_id: str, namespace: str | None, *, recurse: bool) -> graph_views.Json:
    return _look(
        request,
        assistant_id,
        lambda loaded: graph_views.subgraphs(loaded.graph, namespace=namespace, recurse=recurse),
    )


def _look(request: HttpRequest, assistant_id: str, look: Callable[[LoadedGraph], graph_views.Json]) -> graph_views.Json:
    """At the graph of an assistant's id or a graph's name. Raises GraphNotFound, GraphLoadFailed."""
    graph_id = find_graph_id(farm(), assistant_id)
    tenant = tenant_of(request)
    access = partial(looking, "assistants.read", tenant.id, graph_id, store=farm().stores.of(tenant))
    return use_graph(farm(), graph_id, access, look)


def _matching(wanted: AssistantFilter) -> list[dict[str, Any]]:
    every = [render_assistant(graph_id) for graph_id in farm().graphs.ids()]
    return [
        one
        for one in every
        if wanted.graph_id in (None, one["graph_id"])
        and (wanted.name is None or wanted.name.casefold() in one["name"].casefold())
        and _contains(one["metadata"], wanted.metadata)
    ]


def _contains(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in metadata and metadata[key] == value for key, value in wanted.items())


@cache
def _configured_at() -> datetime:
    try:
        return datetime.fromtimestamp(settings().graphs_config.stat().st_mtime, UTC)
    except FileNotFoundError:
        return clock.now()
