"""A segment while it runs: what it was asked for, what it has recorded so far, and the chain of graphs it is in.

A segment is one run of stock `Pregel.stream` for one message. Usually it has one level, the run's graph. Where nodes of
a subgraph are messages too (RunSpec.nested), there is a level for each graph from the run's down to the one whose node
the message is about.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from langgraph.cache.base import BaseCache
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore
from langgraph.types import Interrupt

from agentfarm import clock
from agentfarm.engine import run_events
from agentfarm.engine._langgraph import NULL_TASK_ID, RESUME, resume_map_of
from agentfarm.engine.run_events import RunEvents
from agentfarm.engine.steps import (
    Kind,
    NodeCall,
    Outcome,
    PutCheckpoint,
    PutWrites,
    RunSpec,
    SegmentRequest,
    SegmentResult,
    Status,
)
from agentfarm.engine.tracers import Traced

Sink = Callable[[Any], None]


def nowhere(_chunk: object) -> None:
    """The sink of a segment whose chunks nobody wants."""


def _put_event(sink: Sink, run: RunSpec, event: Any) -> None:
    sink(((), run_events.MODE, event) if run.kwargs.get("subgraphs") else (run_events.MODE, event))


def _tell_twice(events: RunEvents, sink: Sink, chunk: Any) -> None:
    events.tell_chunk(chunk)
    sink(chunk)


class Segment:
    """What the levels of one message share: they write here, and `result` reads it off."""

    def __init__(
        self,
        request: SegmentRequest,
        *,
        saver: BaseCheckpointSaver[Any],
        store: BaseStore | None = None,
        cache: BaseCache[Any] | None = None,
        sink: Sink | None = None,
    ) -> None:
        self.run, self.attempt = request.run, request.attempt
        self.settled, self.failed = request.settled, request.failed
        self.saver, self.store, self.cache, self.sink = saver, store, cache, sink or nowhere
        self.events: RunEvents | None = None
        if run_events.MODE in self.run.modes:
            self.events = RunEvents(partial(_put_event, self.sink, self.run), self.run.input)
            self.sink = partial(_tell_twice, self.events, self.sink)
        self.started_at = clock.now().timestamp()
        self.levels: list[Level] = []
        if request.call is None:
            self.enter("start", None)
        else:
            *around, own = request.call.chain()
            for call in around:
                self.enter("node", call)
            self.enter(request.kind, own)
        self.root_run_id = request.call.root_run_id if request.call else None
        self.root_order = request.call.root_order if request.call else None
        self.traced: Traced | None = None
        # What came of it.
        self.ops: list[PutWrites | PutCheckpoint] = []
        self.outcome: Outcome | None = None
        self.decided: NodeCall | None = None
        self.retry_in, self.tries = 0.0, 0
        self.next: tuple[NodeCall, ...] = ()
        self.max_concurrency: int | None = None
        self.status: Status | None = None
        self.error: BaseException | None = None
        self.interrupts: tuple[tuple[str, tuple[Interrupt, ...]], ...] = ()

    def enter(self, kind: Kind, call: NodeCall | None) -> "Level":
        level = Level(self, kind, call, outer=self.levels[-1] if self.levels else None)
        self.levels.append(level)
        return level

    @property
    def top(self) -> "Level":
        """The run's own graph."""
        return self.levels[0]

    @property
    def last(self) -> "Level":
        """The graph whose node the message is about."""
        return self.levels[-1]

    @property
    def is_over(self) -> bool:
        return self.status is not None

    def decide(self, level: "Level", outcome: Outcome, error: BaseException | None = None) -> None:
        """How the level's node came out. It settles that node, also when the message was about one inside of it."""
        self.outcome, self.decided, self.error = outcome, level.call, error

    def hand_over(self, calls: tuple[NodeCall, ...], max_concurrency: int | None) -> None:
        self.next, self.max_concurrency = calls, max_concurrency

    def fail(self, error: BaseException) -> None:
        """Stock `stream` raised: it is the run's error, or the node's if others of its superstep are still open."""
        self.next = ()
        if self.top.decides_run:
            self.status, self.error = "error", error
        else:
            self.decide(self.top, "error", error)

    def leave(self) -> None:
        """Stock `stream` is over, however it ended."""
        if self.traced is not None:
            self.traced.give_back()

    def result(self) -> SegmentResult:
        call = self.decided
        if self.outcome == "retry" and call is not None:
            call = call.retried(self.tries, self.started_at)
        # A node that is tried again finds the answer where it was.
        taken = tuple(level.ns for level in self.levels if level.took_scalar) if self.outcome != "retry" else ()
        return SegmentResult(
            ops=self.ops,
            outcome=self.outcome,
            call=call,
            status=self.status,
            next=self.next,
            max_concurrency=self.max_concurrency,
            error=self.error,
            retry_in=self.retry_in,
            root_run_id=self.root_run_id,
            took_scalar=bool(taken),
            taken_at=taken,
            interrupts=self.interrupts,
        )


class Level:
    """One graph of the chain, and the node of it that the message is about or leads through."""

    def __init__(self, segment: Segment, kind: Kind, call: NodeCall | None, outer: "Level | None") -> None:
        self.segment, self.kind, self._call, self.outer = segment, kind, call, outer
        self.inner: Level | None = None
        if outer is not None:
            outer.inner = self
        #: The node's pending writes, if the answer without an id is among them.
        self.scalar_in: list[Any] | None = None

    @property
    def is_nested(self) -> bool:
        return self.outer is not None

    @property
    def call(self) -> NodeCall | None:
        return self._call

    @property
    def named(self) -> NodeCall:
        """The call, which every level has but that of a start."""
        if self._call is None:
            raise RuntimeError("a start segment is about no node")
        return self._call

    @property
    def ns(self) -> str:
        return self._call.checkpoint_ns if self._call else ""

    @property
    def is_sole(self) -> bool:
        return self.kind == "node" and self.named.sole

    @property
    def decides_run(self) -> bool:
        """Whether an exception here is the run's: nothing else of the superstep is open."""
        return self.kind != "node" or self.named.sole

    @property
    def took_scalar(self) -> bool:
        """LangGraph takes the answer out of the list when an `interrupt()` gets it."""
        return self.scalar_in is not None and not has_scalar(self.scalar_in)

    @property
    def resume_map(self) -> dict[str, Any] | None:
        """Answers by interrupt id that this level's nodes may take."""
        return (self._call and self._call.resume_map) or resume_map_of(getattr(self.segment.run.input, "resume", None))


def has_scalar(pending_writes: list[Any]) -> bool:
    """Whether `Command(resume=value)` is there, not yet taken."""
    return any(write[0] == NULL_TASK_ID and write[1] == RESUME for write in pending_writes)
