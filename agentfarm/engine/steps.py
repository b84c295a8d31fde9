"""The words of the engine: a run, a node execution, what a segment is asked for and what it answers.

Plain values. Who keeps them (a row, a dict) and how they travel is for others to decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.types import Interrupt

from agentfarm.run_options import RunOptions

Kind = Literal["start", "node", "advance"]
Outcome = Literal["done", "interrupt", "invalid", "error", "retry"]
Status = Literal["success", "interrupted", "error"]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What all messages of a run share. Never changes, so that workers may cache it by run id.

    input             what `stream` gets: an input, a Command or None
    config            the RunnableConfig as given; no private keys in `configurable`
    kwargs            for `stream`: stream_mode (a list), subgraphs, interrupt_before, interrupt_after, durability,
                      context
    inline            why one worker executes the whole run in one message, or None (segment.inline_reason)
    retry_by_message  a RetryPolicy's delay of so many seconds or more is a new message after that delay, not a worker
                      that sleeps; None: all are slept (docs/decisions/0007)
    nested            nodes of a subgraph that is itself a node are messages, too (docs/decisions/0004)
    modes             the Agent Server's stream modes whose events are kept
    fingerprint       of the graph that it was asked for; "": nobody knows
    options           how it is executed. Nothing of it concerns the engine
    """

    run_id: str
    thread_id: str
    graph_id: str
    input: Any
    config: dict[str, Any]
    kwargs: dict[str, Any]
    inline: str | None = None
    retry_by_message: float | None = None
    nested: bool = False
    modes: tuple[str, ...] = ()
    fingerprint: str = ""
    options: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True, slots=True)
class CacheAddress:
    """Where a node's CachePolicy keeps its result.

    Travels with the call: LangGraph's default key pickles the input, and equal values loaded anew pickle differently.
    """

    ns: tuple[str, ...]
    key: str
    ttl: int | None


@dataclass(frozen=True, slots=True)
class Carried:
    """Values of UntrackedValue channels as the run's serializer makes them (untracked.py)."""

    kind: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that began at an older checkpoint: where its subgraphs take theirs from, and which of them have."""

    checkpoint_id: str
    visited: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeCall:
    """What one node execution needs beyond its run. Saved with the execution.

    path          LangGraph's, ("__pregel_pull", name) or ("__pregel_push", index)
    sole          it is alone in its superstep, so that its segment applies it and saves the next checkpoint
    stop          the superstep at which the recursion limit is reached
    execution_id  LangGraph's task id: the same on every worker and in every attempt
    addressed     the checkpoint is to be loaded by its id, since it is not the thread's head
    resuming      what LangGraph tells subgraphs about a run that goes on; None: nothing
    replaying     the node is executed although its result is stored (time travel)
    answered      an answer without an id (`Command(resume=value)`) is for this node, and nobody has taken it yet
    root_run_id   the callbacks' id of the whole graph
    root_order    where LangSmith's tracer puts it in time; None: nobody traces
    resume_map    answers by interrupt id, where they are not those of the run's own input
    outer         the call whose node is the subgraph that this node belongs to
    tries, since  failures before this message that a RetryPolicy has answered; Unix seconds of the first try
    queue         from the node's metadata; None: the graph's default
    untracked     what channels hold that no checkpoint keeps; None: nothing
    """

    name: str
    path: tuple[str | int, ...]
    sole: bool
    stop: int
    checkpoint_ns: str
    checkpoint_id: str
    execution_id: str
    addressed: bool
    resuming: bool | None
    replaying: bool
    answered: bool
    cache: CacheAddress | None = None
    replay: Replay | None = None
    root_run_id: str | None = None
    root_order: str | None = None
    resume_map: dict[str, Any] | None = None
    outer: Self | None = None
    tries: int = 0
    since: float | None = None
    queue: str | None = None
    untracked: Carried | None = None

    @property
    def packet(self) -> int | None:
        """The place of the Send that it executes among all of the checkpoint; None where it is no Send."""
        place = self.path[1]
        return place if isinstance(place, int) else None

    def chain(self) -> tuple[Self, ...]:
        """The calls around this one, outermost first, and then itself."""
        return (*(self.outer.chain() if self.outer else ()), self)

    def retried(self, tries: int, since: float) -> Self:
        """The same node for its next try, after so many failed ones."""
        return replace(self, tries=tries, since=self.since or since)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; only `resume_map` may hold a user's. `from_dict` reads it back, from JSON as well unless
        something is untracked, which is bytes."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        told["path"] = list(self.path)
        if self.cache:
            told["cache"] = [list(self.cache.ns), self.cache.key, self.cache.ttl]
        if self.replay:
            told["replay"] = [self.replay.checkpoint_id, list(self.replay.visited)]
        if self.untracked:
            told["untracked"] = [self.untracked.kind, self.untracked.data]
        if self.outer:
            told["outer"] = self.outer.to_dict()
        return told

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Keys that this build does not know are left out, so that a newer worker's rows can be read."""
        known = {f.name: told[f.name] for f in fields(cls) if f.name in told}
        known["path"] = tuple(told["path"])
        if cache := told.get("cache"):
            known["cache"] = CacheAddress(tuple(cache[0]), cache[1], cache[2])
        if replay := told.get("replay"):
            known["replay"] = Replay(replay[0], tuple(replay[1]))
        if untracked := told.get("untracked"):
            known["untracked"] = Carried(untracked[0], untracked[1])
        if outer := told.get("outer"):
            known["outer"] = cls.from_dict(outer)
        return cls(**known)


@dataclass(frozen=True, slots=True)
class PutWrites:
    """A call of the saver's `put_writes`, to be made durable with the rest of its segment."""

    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    writes: tuple[tuple[str, Any], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PutCheckpoint:
    """A call of the saver's `put`, with exactly the arguments that LangGraph gave.

    parent_id  the checkpoint that this one follows; None for the first of its namespace
    whole      of a start: values of the channels that the checkpoint leaves out, as they stand (DeltaChannel)
    """

    config: RunnableConfig = field(repr=False)
    checkpoint: Checkpoint = field(repr=False)
    metadata: CheckpointMetadata = field(repr=False)
    new_versions: ChannelVersions
    parent_id: str | None
    checkpoint_ns: str
    whole: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """What a message asks for.

    kind     start: apply the input (resume, fork). node: execute `call`. advance: apply a superstep that is complete;
             `call` is any of its executions
    attempt  1, and one more for each worker that was lost over it or gave it back. A RetryPolicy's tries are none
    settled  for advance: {execution id: outcome} of the superstep
    failed   for advance: the error of an execution that settled as "invalid", where it is still at hand
    """

    kind: Kind
    run: RunSpec
    call: NodeCall | None = None
    attempt: int = 1
    settled: Mapping[str, str] = field(default_factory=dict)
    failed: BaseException | None = None


@dataclass(slots=True)
class SegmentResult:
    """What a segment wrote and decided. Nothing of it is saved yet.

    ops              in order; to be made durable with the decision, all or nothing
    outcome          of a node that is not alone in its superstep. "invalid": an answer did not fit its interrupt; it
                     settles the node like "interrupt", and the advance fails the run. "retry": again, in `retry_in`
                     seconds, since it failed with `error`
    call             whose outcome it is: the request's call, or (nested) one around it; for "retry" the next try's call
    status           the run is over
    next             the executions of the next superstep, all of one checkpoint
    max_concurrency  how many of them, or of the siblings of what is settled, at a time: the run's, or its graph's
    error            of the node or the run
    took_scalar      the node got the answer without an id; taken_at: in which checkpoint namespaces
    interrupts       when the run ended as interrupted: (execution id, what it asks), as far as nodes asked
    """

    ops: list[PutWrites | PutCheckpoint] = field(default_factory=list)
    outcome: Outcome | None = None
    call: NodeCall | None = None
    status: Status | None = None
    next: tuple[NodeCall, ...] = ()
    max_concurrency: int | None = None
    error: BaseException | None = None
    retry_in: float = 0.0
    root_run_id: str | None = None
    took_scalar: bool = False
    taken_at: tuple[str, ...] = ()
    interrupts: tuple[tuple[str, tuple[Interrupt, ...]], ...] = ()
