"""What the stations of the flow and the stores hand to each other: plain values, no behaviour.

Below both, since they never import each other. Times are aware UTC datetimes from Postgres' clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.engine.continuation import Manifest
from agentfarm.engine.steps import NodeCall, PutCheckpoint, PutWrites, RunSpec
from agentfarm.errors import AgentFarmError
from agentfarm.messages import ExecuteNode
from agentfarm.run_options import RunChoices

RunStatus = Literal["pending", "running", "success", "error", "interrupted", "timeout"]
ThreadStatus = Literal["idle", "busy", "interrupted", "error"]
TtlStrategy = Literal["delete", "keep_latest"]
Strategy = Literal["reject", "enqueue", "interrupt", "rollback"]


@dataclass(slots=True)
class Claimed:
    """The right to execute one node execution, with all that it needs. Held by this worker under `fence`.

    saver    bound to this execution: answers from what the claim loaded; its own writes are fenced
    settled  for an advance: {execution id: outcome} of the superstep's node executions
    in_wave  siblings of it may wait without a message (docs/decisions/0014)
    unreadable  why this build cannot read what the run was asked for: there is nothing to execute, the run fails
    """

    message: ExecuteNode
    kind: Literal["start", "node", "advance"]
    thread_id: UUID
    run: RunSpec
    call: NodeCall | None
    fence: int
    attempt: int
    saver: BaseCheckpointSaver[str]
    settled: Mapping[str, str] = field(default_factory=dict)
    failed: BaseException | None = None
    in_wave: bool = False
    unreadable: AgentFarmError | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing to execute. gone: done, cancelled or of a run that is over. busy: a living worker holds it."""

    why: Literal["gone", "busy"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that reached its terminal state just now."""

    tenant_id: UUID
    home: str
    run_id: UUID
    thread_id: UUID
    status: RunStatus
    error: Mapping[str, Any] | None = None
    forget_thread: bool = False  # it was stateless: its thread goes when everyone has read the answer


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit made durable.

    ready    to publish: the next node executions, or the first of the run that waited behind this one
    leased   the next execution, already leased to this worker in the same transaction
    advance  this was the last of a wider superstep: apply it (a claim that no other worker can get)
    ended    the run is over
    """

    ready: tuple[ExecuteNode, ...] = ()
    leased: Claimed | None = None
    advance: Claimed | None = None
    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class Once:
    """How a client named its request, so that it may be sent again. digest: of what it asks for."""

    name: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run as a client asked for it, read and checked."""

    run_id: UUID
    thread_id: UUID
    assistant_id: UUID
    graph_id: str
    spec: RunSpec
    strategy: Strategy = "enqueue"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    create_thread: bool = False  # if_not_exists="create", and every stateless run
    forget_thread: bool = False  # stateless with on_completion="delete"
    is_resume: bool = False  # carries a Command: needs a thread that exists
    fingerprint: str = ""  # of the graph that it is for; "": nobody asked
    manifest: Manifest | None = None
    once: Once | None = None
    goes_on_from: str = (
        ""  # the fingerprint that the thread's last run was begun under, and that this was checked against
    )


@dataclass(frozen=True, slots=True)
class Admitted:
    """The run's row is durable. ready: what to publish now; ended: runs that it stopped or undid.

    Nothing of these where the same request was admitted before: the run is that one's.
    """

    run: "RunRow"
    ready: tuple[ExecuteNode, ...]
    ended: tuple[Ended, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherBuild:
    """Nothing was done: the thread's last run was begun under another build of the graph.

    manifest  that build's; None where it is not known any more
    """

    fingerprint: str
    manifest: Manifest | None


@dataclass(frozen=True, slots=True)
class RunRow:
    run_id: UUID
    thread_id: UUID
    assistant_id: UUID
    graph_id: str
    status: RunStatus
    strategy: Strategy
    metadata: Mapping[str, Any]
    error: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    forget_thread: bool
    announced_at: datetime | None = None  # when its stream was told of its end
    spec: RunSpec | None = None  # None where the list did not ask for it
    ended_head: UUID | None = None  # the thread's head when it ended: its answer is the state there


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended, for who waited for it.

    is_over  False: it is under way, and nothing but its graph is told here
    error    {error, message}, of one that failed
    head     the thread's head when it ended; None: it ended before the thread's first checkpoint
    state    what is stored at that checkpoint, for who reads it (Threads.saver); None: nothing is any more, or the run
             failed
    """

    run_id: UUID
    thread_id: UUID
    graph_id: str
    is_over: bool
    error: Mapping[str, Any] | None = None
    head: UUID | None = None
    state: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """A node execution as operators see it: ids, times and names, no state.

    lost_to  [{worker, attempt, at, how, alone}] of workers that died or fell silent with it, or {…, given_back}
    """

    execution_id: UUID
    checkpoint_id: UUID
    node: str
    status: str
    outcome: str | None
    attempts: int
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    lost_to: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ThreadRow:
    thread_id: UUID
    status: ThreadStatus
    metadata: Mapping[str, Any]
    config: Mapping[str, Any]
    graph_id: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime | None
    ttl_minutes: float | None = None
    ttl_strategy: "TtlStrategy | None" = None
    expires_at: datetime | None = None  # not before; a thread that is used is kept for longer


@dataclass(frozen=True, slots=True)
class ThreadTtl:
    """How long a thread is kept after its last use, and what is left of it then: nothing, or its latest state."""

    minutes: float
    strategy: "TtlStrategy" = "delete"


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """One of a superstep that a new thread begins with: what a node wrote, or the command that it returned."""

    values: Any = None
    command: Mapping[str, Any] | None = None
    as_node: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Checkpoints and writes of a thread that is not there yet, oldest first, and what makes bytes of their values."""

    ops: Sequence[PutCheckpoint | PutWrites]
    serde: SerializerProtocol


@dataclass(frozen=True, slots=True)
class ThreadQuery:
    ids: Sequence[UUID] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: ThreadStatus | None = None
    limit: int = 10
    offset: int = 0
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep of a home found.

    again  to be published once more, and marked as published: whoever has them sends them before anything else
    later  how many were taken over as well, and are published after a delay, since they were lost before
    spent  these have had their attempts, and are to be buried
    """

    again: tuple[ExecuteNode, ...] = ()
    later: int = 0
    spent: tuple[ExecuteNode, ...] = ()


@dataclass(frozen=True, slots=True)
class Buried:
    """A run that was given up with one of its executions. again: the start of the run that waited behind it"""

    ended: Ended
    again: tuple[ExecuteNode, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildUse:
    """What there is of one build (""; of none).

    workers          processes that live
    waiting, leased  node executions that no worker has yet, and that one has
    pending          runs that wait for their thread
    oldest_seconds   since the oldest of those that are due could have been taken
    """

    build: str
    workers: int
    waiting: int
    leased: int
    pending: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Delayed:
    """A node that waits for its next try. due_at: on this process's monotonic clock."""

    tenant_id: UUID
    run_id: UUID
    checkpoint_id: UUID
    execution_id: UUID
    due_at: float


@dataclass(frozen=True, slots=True)
class Late:
    """What of a home's outbox is overdue, published once more just now; and what is due soon, the first first."""

    again: tuple[ExecuteNode, ...] = ()
    soon: tuple[Delayed, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a run's stream.

    id    unique and growing within the run ("milliseconds-sequence"); "" until the log gave it one
    name  as the Agent Server spells it: "values", "updates|child:…", "messages", "custom", "error", "metadata", "end"
    data  JSON
    """

    name: str
    data: bytes
    id: str = ""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run as the Agent Server API spells it, parsed and bounded; None or empty: not given.

    assistant_id  a UUID or a graph's name
    stateless     made by POST /runs…: on a thread of its own, which goes with it unless on_completion is "keep"
    streamed      somebody may read its events, now or later: keep those of stream_mode, or values where none is given
    choices       how it is to be executed (config.agentfarm): not in `config`, which LangGraph sees
    """

    assistant_id: str
    input: Any = None
    command: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] | None = None
    checkpoint_id: str | None = None
    interrupt_before: Literal["*"] | Sequence[str] | None = None
    interrupt_after: Literal["*"] | Sequence[str] | None = None
    stream_mode: Sequence[str] = ()
    stream_subgraphs: bool = False
    multitask_strategy: Strategy = "enqueue"
    if_not_exists: Literal["create", "reject"] = "reject"
    on_completion: Literal["delete", "keep"] = "delete"
    durability: Literal["sync", "async", "exit"] | None = None
    stateless: bool = False
    streamed: bool = False
    choices: RunChoices = field(default_factory=RunChoices)
