"""The store: what a tenant's graphs remember across threads, read and written by its clients."""

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse
from langgraph.store.base import NOT_PROVIDED, BaseStore, Item
from ninja import Query, Router
from pydantic import BaseModel

from agentfarm.api import documents
from agentfarm.api.answers import answer, nothing
from agentfarm.api.auth import tenant_of
from agentfarm.api.process import farm
from agentfarm.api.schemas import NamespaceList, StoreDelete, StorePut, StoreSearch
from agentfarm.errors import InvalidInput

router = Router(tags=["Store"])


class ItemQuery(BaseModel):
    namespace: str = ""
    key: str
    refresh_ttl: bool | None = None


@router.put("/store/items", response=documents.empty(), summary="Put an item")
def put_item(request: HttpRequest, body: StorePut) -> HttpResponse:
    """Made, or written over. `ttl`: minutes from the last write or read on. `index`: what of it a search by meaning
    finds: paths, false for nothing, null for what the server's configuration says."""
    ttl: Any = NOT_PROVIDED if body.ttl is None else body.ttl
    namespace = _namespace(body.namespace, needed=True)
    if namespace[0] == "langgraph":
        raise InvalidInput(where="namespace", why="begins with 'langgraph', which is LangGraph's own")
    _store(request).put(namespace, body.key, body.value, body.index, ttl=ttl)
    return nothing()


@router.get("/store/items", response=documents.of(documents.StoreItem | None), summary="Get an item")
def get_item(request: HttpRequest, query: Query[ItemQuery]) -> HttpResponse:
    """null where there is none. `namespace`: its labels, joined by dots."""
    namespace = _namespace(query.namespace.split("."))
    return answer(_item(_store(request).get(namespace, query.key, refresh_ttl=query.refresh_ttl)))


@router.delete("/store/items", response=documents.empty(), summary="Delete an item")
def delete_item(request: HttpRequest, body: StoreDelete) -> HttpResponse:
    """Also where there is none."""
    _store(request).delete(_namespace(body.namespace, needed=True), body.key)
    return nothing()


@router.post("/store/items/search", response=documents.of(documents.StoreItems), summary="Search items")
def search_items(request: HttpRequest, body: StoreSearch) -> HttpResponse:
    """In a namespace and below it, compared label by label; what was changed last comes first.

    `filter`: {field: value}, or {field: {"$gt": value}} with $eq $ne $gt $gte $lt $lte. `query`: by meaning, the likest
    first with its `score`, where the server has an index.
    """
    found = _store(request).search(
        _namespace(body.namespace_prefix),
        query=body.query,
        filter=body.filter,
        limit=body.limit,
        offset=body.offset,
        refresh_ttl=body.refresh_ttl,
    )
    return answer({"items": [_item(item) for item in found]})


@router.post("/store/namespaces", response=documents.of(documents.Namespaces), summary="List namespaces")
def list_namespaces(request: HttpRequest, body: NamespaceList) -> HttpResponse:
    """In which items are. `*` in `prefix` or `suffix` stands for any one label."""
    found = _store(request).list_namespaces(
        prefix=_namespace(body.prefix) or None,
        suffix=_namespace(body.suffix) or None,
        max_depth=body.max_depth,
        limit=body.limit,
        offset=body.offset,
    )
    return answer({"namespaces": found})


def _store(request: HttpRequest) -> BaseStore:
    return farm().stores.of(tenant_of(request))


def _namespace(labels: Sequence[str], *, needed: bool = False) -> tuple[str, ...]:
    """Refused here in a sentence of ours: LangGraph's repeats what was sent.

    needed  of an item that is changed, which no item without a label is
    """
    if not all(label and "." not in label for label in labels):
        raise InvalidInput(where="namespace", why="is of labels that are not empty and have no dot")
    if needed and not labels:
        raise InvalidInput(where="namespace", why="has at least one label")
    return tuple(labels)


def _item(item: Item | None) -> dict[str, Any] | None:
    return None if item is None else item.dict()
