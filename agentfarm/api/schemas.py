"""Requests as the Agent Server spells them, read and bounded.

The official SDKs send null for what was not given, so null means absent wherever a field is optional. A field that we
do not know is refused by name, never dropped: dropping `webhook` would change what the client asked for.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from agentfarm.api.names import safe_name
from agentfarm.errors import InvalidInput, UnsupportedField
from agentfarm.records import RunRequest, ThreadTtl, UpdateRequest
from agentfarm.run_options import MAX_AHEAD_NODES, MAX_AHEAD_SECONDS, RunAhead, RunChoices

#: Most a list endpoint answers at once, as the Agent Server.
MAX_LIMIT = 1000

#: Rows an offset may skip: what is further needs a filter, not a million rows read and thrown away.
MAX_OFFSET = 100_000


#: A hundred years: what is longer is meant to be for ever, and needs no ttl.
MAX_TTL_MINUTES = 100 * 366 * 24 * 60


class Request(BaseModel):
    """A request's body. `unsupported`: fields of the Agent Server that we lack, by the values that ask for nothing."""

    model_config = ConfigDict(extra="allow", strict=False)
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if v is not None} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _refuse_what_we_do_not_do(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name not in self.unsupported:
                raise UnsupportedField(field=f"The field {safe_name(name)!r}")
            if not any(value == nothing and type(value) is type(nothing) for nothing in self.unsupported[name]):
                raise UnsupportedField(field=f"The field {name!r}")
        return self


class Page(Request):
    limit: int = Field(10, ge=1, le=MAX_LIMIT)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)


# --------------------------------------------------------------------------- assistants

AssistantField = Literal[
    "assistant_id",
    "graph_id",
    "name",
    "description",
    "config",
    "context",
    "created_at",
    "updated_at",
    "metadata",
    "version",
]


class AssistantFilter(Request):
    metadata: dict[str, Any] = Field(default_factory=dict)
    graph_id: str | None = None
    name: str | None = None


class AssistantSearch(AssistantFilter, Page):
    sort_by: Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    select: list[AssistantField] | None = None


# --------------------------------------------------------------------------- threads

ThreadField = Literal[
    "thread_id",
    "created_at",
    "updated_at",
    "state_updated_at",
    "metadata",
    "config",
    "status",
    "values",
    "interrupts",
    "error",
]
Status = Literal["idle", "busy", "interrupted", "error"]


class Send(BaseModel):
    node: str
    input: Any = None


class Command(Request):
    update: dict[str, Any] | list[Any] | None = None
    resume: Any = None
    goto: str | Send | list[str | Send] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What was given; a Send as {node, input}."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        if "goto" in given:
            many = [one.model_dump() if isinstance(one, Send) else one for one in _listed(given["goto"])]
            given["goto"] = many if isinstance(self.goto, list) else many[0]
        return given


class Update(Request):
    """What one node wrote in a superstep, or the command that it returned."""

    values: dict[str, Any] | list[Any] | None = None
    command: Command | None = None
    as_node: str | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.values is not None and self.command is not None:
            raise InvalidInput(where="supersteps", why="an update has values or a command, not both")
        return self

    def to_request(self) -> UpdateRequest:
        command = self.command.to_dict() if self.command else None
        return UpdateRequest(values=self.values, command=command, as_node=self.as_node)


class Superstep(Request):
    updates: list[Update] = Field(min_length=1, max_length=MAX_LIMIT)


class Ttl(Request):
    """How long a thread is kept after its last use."""

    ttl: float = Field(gt=0, le=MAX_TTL_MINUTES)  # minutes
    strategy: Literal["delete", "keep_latest"] = "delete"

    @model_validator(mode="before")
    @classmethod
    def _minutes_alone(cls, value: Any) -> Any:
        return {"ttl": value} if isinstance(value, int | float) and not isinstance(value, bool) else value

    def to_record(self) -> ThreadTtl:
        return ThreadTtl(self.ttl, self.strategy)


class ThreadCreate(Request):
    ttl: Ttl | None = None
    thread_id: UUID | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    if_exists: Literal["raise", "do_nothing"] = "raise"
    supersteps: list[Superstep] = Field(default_factory=list, max_length=MAX_LIMIT)


class ThreadPatch(Request):
    ttl: Ttl | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class ThreadPrune(Request):
    thread_ids: list[UUID] = Field(max_length=MAX_LIMIT)
    strategy: Literal["delete", "keep_latest"] = "delete"


class ThreadFilter(Request):
    unsupported = {"values": ({},), "extract": ({},)}
    ids: list[UUID] = Field(default_factory=list, max_length=MAX_LIMIT)
    metadata: dict[str, Any] = Field(default_factory=dict)
    status: Status | None = None


class ThreadSearch(ThreadFilter, Page):
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    select: list[ThreadField] | None = None


class Checkpoint(Request):
    """Where in a thread. The thread itself is named by the path."""

    thread_id: UUID | None = None
    checkpoint_ns: str = Field("", max_length=2000)
    checkpoint_id: UUID | None = None
    checkpoint_map: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        found = {"checkpoint_ns": self.checkpoint_ns, "checkpoint_map": self.checkpoint_map}
        return {**found, "checkpoint_id": str(self.checkpoint_id) if self.checkpoint_id else None}


class StateUpdate(Request):
    values: dict[str, Any] | list[Any] | None = None
    as_node: str | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_id: UUID | None = None

    def place(self) -> dict[str, Any] | None:
        return place_of(self.checkpoint, self.checkpoint_id)


class StateRequest(Request):
    unsupported = {"select": ([],)}
    checkpoint: Checkpoint
    subgraphs: bool = False


class HistoryRequest(Request):
    unsupported = {"select": ([],)}
    limit: int = Field(10, ge=1, le=MAX_LIMIT)
    before: UUID | dict[str, Any] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    checkpoint: Checkpoint | None = None

    def before_place(self) -> dict[str, Any] | None:
        """`before` as every client sends it: a checkpoint's id, a checkpoint, or a config."""
        before = self.before
        if isinstance(before, dict):
            inner = before.get("configurable", before)
            before = inner.get("checkpoint_id") if isinstance(inner, dict) else None
            if before is None:
                raise InvalidInput(where="before", why="names no checkpoint_id")
        return {"checkpoint_id": str(before)} if before else None


def place_of(checkpoint: Checkpoint | None, checkpoint_id: UUID | None) -> dict[str, Any] | None:
    """A checkpoint given as an object, as an id, or as both; None: the head."""
    if checkpoint is None and checkpoint_id is None:
        return None
    found = checkpoint.to_dict() if checkpoint else {}
    return {**found, **({"checkpoint_id": str(checkpoint_id)} if checkpoint_id else {})}


# --------------------------------------------------------------------------- runs


class Ahead(Request):
    """How far: whichever of the two is reached first, and never farther than the operator lets it."""

    nodes: int | None = Field(None, strict=True, ge=1, le=MAX_AHEAD_NODES)
    seconds: float | None = Field(None, strict=True, gt=0, le=MAX_AHEAD_SECONDS)


class AgentFarm(Request):
    """How the run is executed. What is not said, its assistant's graph says, or else its tenant has chosen."""

    run_ahead: StrictBool | Ahead | None = Field(
        None, description="The worker that has executed a node goes on with the next one while no other work waits."
    )
    persistence: Literal["postgres", "redis"] | None = None

    def to_choices(self) -> RunChoices:
        ahead = self.run_ahead
        return RunChoices(
            run_ahead=RunAhead(ahead.nodes, ahead.seconds) if isinstance(ahead, Ahead) else ahead,
            persistence=self.persistence,
        )


class Config(Request):
    """A RunnableConfig, as far as it can be sent, and what is said to this server beside it."""

    unsupported = {"callbacks": ([],), "run_id": ()}
    tags: list[str] | None = Field(None, max_length=100)
    metadata: dict[str, Any] | None = None
    configurable: dict[str, Any] | None = None
    recursion_limit: int | None = Field(None, ge=1, le=100_000)
    max_concurrency: int | None = Field(None, ge=1, le=10_000)
    run_name: str | None = Field(None, max_length=200)
    agentfarm: AgentFarm = Field(default_factory=AgentFarm)

    def to_dict(self) -> dict[str, Any]:
        """What was given for LangGraph. The values inside stay as they are, nulls too."""
        names = self.model_fields_set - {"agentfarm"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in names}


#: What a client may ask of a run that this server does not do yet. `stream_resumable`: every stream of ours is.
NOT_OF_A_RUN: dict[str, tuple[Any, ...]] = {
    "webhook": ("",),
    "after_seconds": (0, 0.0),
    "feedback_keys": ([],),
    "langsmith_tracer": ({},),
    "strict_resume": (False,),
}


class RunCreate(Request):
    """A run on a thread of the client's."""

    unsupported = {**NOT_OF_A_RUN, "on_completion": ("keep",)}  # the thread is the client's: it is never deleted
    is_stateless: ClassVar[bool] = False

    assistant_id: str = Field(min_length=1, max_length=200)
    input: Any = None
    command: Command | None = None
    config: Config = Field(default_factory=Config)
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    interrupt_before: Literal["*"] | list[str] | None = None
    interrupt_after: Literal["*"] | list[str] | None = None
    stream_mode: str | list[str] = Field(default_factory=list)
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    on_disconnect: Literal["cancel", "continue"] = "continue"
    durability: Literal["sync", "async", "exit"] | None = Field(
        None,
        description="`sync`, and what is not said: each checkpoint is on the database's disk before the next node"
        " begins. `async`: it follows within a second; the run's acknowledgement and its end wait for the disk all the"
        " same. `exit`: one worker executes the whole run and saves its end.",
    )
    checkpoint_during: bool | None = None

    checkpoint: Checkpoint | None = None
    checkpoint_id: UUID | None = None
    multitask_strategy: Literal["reject", "rollback", "interrupt", "enqueue"] = "enqueue"
    if_not_exists: Literal["create", "reject"] = "reject"

    def to_run_request(self, *, streamed: bool) -> RunRequest:
        """As the flow reads it."""
        place = place_of(self.checkpoint, self.checkpoint_id)
        return RunRequest(
            assistant_id=self.assistant_id,
            input=self.input,
            command=self.command.to_dict() if self.command else None,
            config=self.config.to_dict(),
            context=self.context,
            metadata=self.metadata,
            checkpoint=place,
            interrupt_before=self.interrupt_before,
            interrupt_after=self.interrupt_after,
            stream_mode=tuple(_listed(self.stream_mode)),
            stream_subgraphs=self.stream_subgraphs,
            multitask_strategy=self.multitask_strategy,
            if_not_exists=self.if_not_exists,
            on_completion=getattr(self, "on_completion", "keep"),
            durability=self._durability(),
            stateless=self.is_stateless,
            streamed=streamed,
            choices=self.config.agentfarm.to_choices(),
        )

    def _durability(self) -> Literal["sync", "async", "exit"] | None:
        """`checkpoint_during` is what LangGraph called it before."""
        if self.durability is None and self.checkpoint_during is not None:
            return "async" if self.checkpoint_during else "exit"
        return self.durability


class RunCreateStateless(RunCreate):
    """A run on a thread of its own."""

    unsupported = NOT_OF_A_RUN
    is_stateless = True
    on_completion: Literal["delete", "keep"] = "delete"

    @model_validator(mode="before")
    @classmethod
    def _named_twice(cls, values: Any) -> Any:
        """The JavaScript SDK's batch sends `assistantId` beside `assistant_id`."""
        if isinstance(values, dict) and "assistantId" in values and values["assistantId"] == values.get("assistant_id"):
            return {name: value for name, value in values.items() if name != "assistantId"}
        return values

    @model_validator(mode="after")
    def _has_no_past(self) -> Self:
        if self.checkpoint is not None or self.checkpoint_id is not None:
            raise InvalidInput(where="checkpoint", why="a run without a thread has no checkpoint to start from")
        return self


class RunsCancel(Request):
    status: Literal["pending", "running", "all"] | None = None
    thread_id: UUID | None = None
    run_ids: list[UUID] | None = Field(None, min_length=1, max_length=MAX_LIMIT)


# --------------------------------------------------------------------------- store

#: More than a namespace can hold: what is longer is refused by its bytes (persistence/store_keys.py).
MAX_LABELS = 500


class StoreDelete(Request):
    namespace: list[str] = Field(max_length=MAX_LABELS)
    key: str


class StorePut(StoreDelete):
    value: dict[str, Any]
    index: Literal[False] | list[str] | None = None
    ttl: float | None = None


class StoreSearch(Page):
    namespace_prefix: list[str] = Field(default_factory=list, max_length=MAX_LABELS)
    filter: dict[str, Any] | None = None
    query: str | None = None
    refresh_ttl: bool | None = None


class NamespaceList(Page):
    prefix: list[str] = Field(default_factory=list, max_length=MAX_LABELS)
    suffix: list[str] = Field(default_factory=list, max_length=MAX_LABELS)
    max_depth: int | None = Field(None, ge=1, le=MAX_LABELS)
    limit: int = Field(100, ge=1, le=MAX_LIMIT)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
