"""Shapes of answers, for /openapi.json. The answers themselves are rendered from plain dicts (answers.py)."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

Json = dict[str, Any]


class Problem(BaseModel):
    detail: str | list[Json]
    code: str


class Assistant(BaseModel):
    assistant_id: UUID
    graph_id: str
    name: str
    description: str | None
    config: Json
    context: Json
    metadata: Json
    version: int
    created_at: datetime
    updated_at: datetime


class Drawing(BaseModel):
    nodes: list[Json]
    edges: list[Json]


class Schemas(BaseModel):
    graph_id: str
    input_schema: Json | None
    output_schema: Json | None
    state_schema: Json | None
    config_schema: Json | None
    context_schema: Json | None


class Thread(BaseModel):
    thread_id: UUID
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime
    metadata: Json
    status: Literal["idle", "busy", "interrupted", "error"]
    config: Json
    values: Any
    interrupts: dict[str, list[Json]]
    error: str | None
    ttl: Json | None = Field(None, description="Only with include=ttl; null: it is kept for ever.")


class Pruned(BaseModel):
    pruned_count: int


class ThreadState(BaseModel):
    values: Any
    next: list[str]
    tasks: list[Json]
    metadata: Json
    created_at: datetime | None
    checkpoint: Json
    parent_checkpoint: Json | None
    interrupts: list[Json]
    checkpoint_id: str | None
    parent_checkpoint_id: str | None


class Run(BaseModel):  # type: ignore[no-redef]  # the plugin takes the alias of a field for **kwargs
    run_id: UUID
    thread_id: UUID
    assistant_id: UUID
    created_at: datetime
    updated_at: datetime
    status: Literal["pending", "running", "error", "success", "timeout", "interrupted"]
    metadata: Json
    asked: Json = Field(alias="kwargs")
    multitask_strategy: Literal["reject", "rollback", "interrupt", "enqueue"]


class StoreItem(BaseModel):
    namespace: list[str]
    key: str
    value: Json
    created_at: datetime
    updated_at: datetime


class FoundItem(StoreItem):
    score: float | None


class StoreItems(BaseModel):
    items: list[FoundItem]


class Namespaces(BaseModel):
    namespaces: list[list[str]]


class Info(BaseModel):
    version: str
    langgraph_py_version: str
    flags: dict[str, bool]
    host: Json
    graphs: Json


def of(shape: Any, *, status: int = 200) -> dict[Any, Any]:
    """`response=` of an endpoint: its shape, and that of its errors."""
    return {status: shape, frozenset({400, 401, 404, 409, 413, 422, 503}): Problem}


def empty(*, status: int = 204) -> dict[Any, Any]:
    return of(None, status=status)
