"""What executions.py asks of the store that holds a run while it is under way: its tier.

Every run is in Postgres from its admission to its end. Between the two it may be moved by Redis, commit by commit
(redis_tier/), as fast as a conversation wants it; the story of a commit is the same, so it is written once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from agentfarm.engine.steps import NodeCall, SegmentResult
from agentfarm.persistence.bodies import Head, WriteRow
from agentfarm.persistence.leases import Held
from agentfarm.persistence.segment_rows import SegmentRows

if TYPE_CHECKING:
    from agentfarm.persistence.execution_saver import ExecutionSaver


@dataclass(frozen=True, slots=True)
class Finished:
    """next_run      the run that waited behind this one, which is over; started in the same transaction
    leased_fence  of the first of the next executions, which is leased to this worker
    is_told       False: somebody else tells of the run's end, and publishes who waited for it
    """

    forget: bool = False
    next_run: UUID | None = None
    next_graph: str = ""
    next_queue: str = ""
    leased_fence: int | None = None
    is_told: bool = True


@dataclass(frozen=True, slots=True)
class Taken:
    """A sibling that this worker goes on with. is_answered: the answer without an id is gone."""

    execution_id: UUID
    fence: int
    spec: bytes
    is_answered: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """released       (execution, node, queue) of a sibling that is to have a message now: it was held, or waited in a
                   wave that this worker leaves
    advance_fence  this was the last: the advance of the superstep is leased to this worker
    """

    released: tuple[UUID, str, str] | None = None
    taken: Taken | None = None
    advance_fence: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """All that the advance of a superstep needs. settled: {execution id: outcome}."""

    head: Head
    writes: Sequence[WriteRow]
    settled: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Finishing:
    """How a segment is finished.

    build        of the run: whose workers are to execute what is next
    leases_next  lease the first of the next executions to this worker
    sent         a wave: which of them have a message; None: each
    error        of the run, if this ends it so
    waits        until it is on the disk. What ends a run does so anyway
    """

    build: str
    leases_next: bool
    sent: Sequence[bool] | None
    error: dict[str, Any] | None
    waits: bool


@dataclass(frozen=True, slots=True)
class Settling:
    """How one of several siblings is settled.

    are_held   siblings are held back (max_concurrency): let one go
    take_next  of a wave: lease the next ready one of the same queue that has no message to this worker
    stops      of a wave: this worker takes none; release one that has no message
    waits      until it is on the disk
    """

    are_held: bool
    take_next: bool
    stops: bool
    waits: bool


class Tier(Protocol):
    """Each call is one round trip, and all of it is committed or nothing.

    raises  LeaseLost, HeadMoved, StoreFailed: nothing was written; StoreUnavailable: it may have been
    """

    def finish(self, saver: "ExecutionSaver", result: SegmentResult, rows: SegmentRows, how: Finishing) -> Finished:
        """The segment decides what is next, or ends the run."""

    def settle(self, saver: "ExecutionSaver", result: SegmentResult, rows: SegmentRows, how: Settling) -> Settled:
        """One of several siblings is settled."""

    def rest_of_wave(self, saver: "ExecutionSaver", most: int) -> Sequence[tuple[UUID, str, str]]:
        """(execution, node, queue) of so many siblings that wait without a message. Each is named once."""

    def load_step(self, saver: "ExecutionSaver", held: Held) -> Step:
        """For the advance that `settle` leased to this worker as `held`. `saver` is the last sibling's."""

    def retry_later(self, saver: "ExecutionSaver", result: SegmentResult, call: NodeCall) -> None:
        """The node is executed again after a delay, as this call. Nothing is saved but that."""
