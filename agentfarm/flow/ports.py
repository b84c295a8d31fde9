"""All that the flow needs from outside, on one page.

`persistence`, `queueing` and `streaming` fit these without importing them; `wiring` joins them. Every call names its
tenant: there is no call for "all of them" but the healer's, which sees ids and times and never state.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from langgraph.cache.base import BaseCache
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore

from agentfarm.engine.continuation import Manifest
from agentfarm.engine.steps import SegmentResult
from agentfarm.messages import ExecuteNode
from agentfarm.records import (
    Admitted,
    BuildUse,
    Buried,
    Claimed,
    Committed,
    Delayed,
    Ended,
    Event,
    ExecutionRow,
    History,
    Late,
    NewRun,
    OtherBuild,
    Refused,
    RunEnd,
    RunRow,
    RunStatus,
    Sweep,
    ThreadQuery,
    ThreadRow,
    ThreadTtl,
)
from agentfarm.tenancy import Tenant


class Executions(Protocol):
    """persistence/executions.py. Two round trips a node: the claim answers with all it needs, the commit is one."""

    def claim(self, message: ExecuteNode) -> Claimed | Refused:
        """Take the lease, fence + 1. Raises StoreUnavailable."""

    def commit(
        self, claimed: Claimed, result: SegmentResult, *, lease_next: bool = False, wake: int | None = None
    ) -> Committed:
        """Make a segment durable, or nothing of it.

        lease_next  lease the first of the next executions to this worker, if it is of the same queue (a start and its
                    first node are one message). In a wave: the next sibling that has no message; if not, another worker
                    is to be asked for it (Committed.ready)
        wake        with lease_next: the next executions are a wave, of which so many beside the leased one are in
                    Committed.ready; the others wait for whoever has settled one (docs/decisions/0014)
        raises      LeaseLost: nothing was written. ValueLost and its like: the same, an error may be committed instead.
                    StoreUnavailable: it may have been written, and what was not is given back
        """

    def know_types(self, claimed: Claimed, graph: Pregel[Any, Any, Any, Any]) -> None:
        """The graph was made for this claim: its values are read and written as the classes that this graph names."""

    def release(self, claimed: Claimed) -> None:
        """Give a claim back without a commit: another worker may have it at once. Never raises."""

    def rest_of_wave(self, claimed: Claimed, most: int = 1) -> tuple[ExecuteNode, ...]:
        """So many siblings of this execution that wait without a message, which are to have one now; each is named
        once. () where it is in no wave. Raises StoreUnavailable."""

    def open_at_head(self, message: ExecuteNode) -> tuple[ExecuteNode, ...]:
        """The ready executions of a run, for a message delivered again after its own was done."""


class Runs(Protocol):
    """persistence/runs.py."""

    def admit(self, tenant: Tenant, new: NewRun) -> Admitted | OtherBuild:
        """One transaction under the thread's lock: thread (made if asked), run row, first execution, the strategy.

        returns OtherBuild, and did nothing, where the thread's last run was begun under another build of the graph
                than this run was checked against (goes_on_from)
        returns the run of the same request, where that was admitted before (new.once)
        raises NotFound (no such thread), ThreadBusy (reject, or too many wait), AlreadyExists, NameReused, Conflict
               (the run of the same request is deleted), StoreUnavailable
        """

    def find_manifest(self, tenant: Tenant, graph_id: str, fingerprint: str) -> Manifest | None:
        """Of a build under which this tenant has had a run; None where it is not known any more."""

    def get(self, tenant: Tenant, thread_id: UUID, run_id: UUID, *, with_spec: bool = False) -> RunRow: ...
    def read_end(self, tenant: Tenant, thread_id: UUID, run_id: UUID) -> RunEnd:
        """How it ended, with the state there. Raises NotFound, as `get`."""

    def find(self, tenant: Tenant, run_id: UUID) -> RunRow | None: ...
    def list(
        self, tenant: Tenant, thread_id: UUID, *, limit: int, offset: int, status: RunStatus | None
    ) -> Sequence[RunRow]:
        """Newest first. Raises NotFound for a thread that does not exist."""

    def cancel(
        self, tenant: Tenant, thread_id: UUID, run_id: UUID, *, rollback: bool
    ) -> tuple[Ended, tuple[ExecuteNode, ...]]:
        """Fence out what is open and end the run as interrupted (rollback: undo, delete it); start who waits."""

    def retry(self, tenant: Tenant, thread_id: UUID, run_id: UUID) -> Admitted:
        """A failed run goes on from its checkpoint, as a new run with input None."""

    def dismiss(self, tenant: Tenant, run_id: UUID) -> None:
        """Somebody has seen to what was buried with this run; a retry does so too. Raises NotFound."""

    def delete(self, tenant: Tenant, thread_id: UUID, run_id: UUID) -> None: ...
    def executions(self, tenant: Tenant, run_id: UUID) -> Sequence[ExecutionRow]:
        """In order of creation."""

    def mark_announced(self, ended: Ended) -> None: ...


class Threads(Protocol):
    """persistence/threads.py."""

    def create(
        self,
        tenant: Tenant,
        thread_id: UUID,
        metadata: Mapping[str, Any],
        *,
        if_exists: str,
        history: History | None = None,
        ttl: ThreadTtl | None = None,
    ) -> ThreadRow:
        """A new thread, with its history in the same transaction; or ("do_nothing") the one that is there, as it is.

        raises  AlreadyExists, ValueLost
        """

    def get(self, tenant: Tenant, thread_id: UUID) -> ThreadRow:
        """Raises NotFound: the same for a thread of another tenant."""

    def update(
        self, tenant: Tenant, thread_id: UUID, metadata: Mapping[str, Any], *, ttl: ThreadTtl | None = None
    ) -> ThreadRow:
        """Metadata is merged, key by key; a ttl begins now."""

    def copy(self, tenant: Tenant, thread_id: UUID, *, target: UUID) -> ThreadRow:
        """A new thread with the state and the history of this one, and none of its runs. Raises NotFound."""

    def expire(self, tenant: Tenant, thread_id: UUID) -> None:
        """Delete a thread whose time is over, or its past, as it is told to; one that was used meanwhile is kept on.

        Nothing happens to a thread that is gone, or whose time is not over.
        """

    def keep_latest(self, tenant: Tenant, thread_id: UUID) -> None:
        """Forget the history before the latest state, but for what a run under way may return to. Raises NotFound."""

    def delete(self, tenant: Tenant, thread_id: UUID) -> tuple[Ended, ...]:
        """With its runs, checkpoints, blobs, writes and executions. An active run is fenced out first."""

    def forget(self, tenant: Tenant, thread_id: UUID) -> bool:
        """Delete the thread of stateless runs that are over, unless another run has come to it. Answers whether it did.

        Nothing happens to a thread that is gone.
        """

    def search(self, tenant: Tenant, query: ThreadQuery) -> tuple[Sequence[ThreadRow], bool]:
        """(rows, whether there are more)."""

    def count(self, tenant: Tenant, query: ThreadQuery) -> int: ...

    def outline(self, tenant: Tenant, thread_id: UUID, checkpoint_id: str | None) -> Checkpoint | None:
        """A checkpoint of the thread, else its head, whatever build wrote it: values may be plain data. None: there is
        none."""

    def saver(
        self,
        tenant: Tenant,
        graph_id: str | None,
        *,
        guard_idle: bool = False,
        made: Pregel[Any, Any, Any, Any] | None = None,
        ended: RunEnd | None = None,
    ) -> BaseCheckpointSaver[str]:
        """LangGraph's saver for this tenant, outside of any execution: state, history, update_state.

        made        the graph, where a factory made it for this request: whose classes the values are of
        guard_idle  a put raises ThreadBusy when a run of the thread is not over, in the same transaction
        ended       a run that is over: where it ended, the checkpoint is answered with the writes that it had then
        """


class Stores(Protocol):
    """persistence/store.py."""

    def of(self, tenant: Tenant) -> BaseStore:
        """LangGraph's store over this tenant's items, for its graphs and its clients; cheap to make, and to be shared.

        Its methods raise InvalidNamespaceError (LangGraph's), InvalidInput, TooLarge, StoreUnavailable.
        """

    def sweep(self, tenant: Tenant, *, limit: int) -> int:
        """Remove items whose time is over, so many at most. Returns how many there were."""


class Healing(Protocol):
    """persistence/healing.py: one home, as role farm_ops. Safe to run several at once; bounded work a call.

    What a call answers with to be sent is marked as sent. A thread that somebody has is left to the next sweep.
    """

    def sweep(self, *, limit: int = 500) -> Sweep:
        """Executions of dead or silent workers are ready again (fence + 1), at once or later; or spent."""

    def bury(self, spent: ExecuteNode) -> Buried | None:
        """Give up what has had its attempts, with its run. None: there is nothing to bury, or not now."""

    def lost(self, queue_lengths: Callable[[str], int | None], *, limit: int = 500) -> Late:
        """Ready and published long ago, though the queue is short. And what is due soon, which is not published."""

    def waiting(self, *, limit: int = 500) -> Sequence[tuple[UUID, UUID]]:
        """(tenant, thread) where runs wait and none runs."""

    def start_waiting(self, tenant_id: UUID, thread_id: UUID) -> tuple[ExecuteNode, ...]:
        """Begin the run whose turn it is on such a thread. (): there is none any more, or not now."""

    def due(self, delayed: Sequence[Delayed]) -> tuple[ExecuteNode, ...]:
        """Messages for the next tries of these nodes, now that their delay is over."""

    def stalled(self, *, limit: int = 100) -> Sweep:
        """Advance messages for supersteps that are complete and that nobody moved on; or spent, as executions are."""

    def in_redis(self, queue_lengths: Callable[[str], int | None], *, limit: int = 2000) -> tuple[ExecuteNode, ...]:
        """Messages to send again of runs that Redis moves. What stands still there goes on in Postgres, and is told."""

    def unannounced(self, *, limit: int = 100) -> tuple[Ended, ...]:
        """Runs that are over for more than a moment and whose stream nobody closed."""

    def forgettable(self, *, grace_seconds: float = 60.0, limit: int = 100) -> tuple[Ended, ...]:
        """Stateless runs that were over that long ago: their threads may go."""

    def builds(self) -> Sequence[BuildUse]:
        """What waits for each build's workers, by the build's name."""

    def unserved(self) -> Sequence[BuildUse]:
        """Builds of which work waits though no worker lives; only a look every few seconds, () in between."""

    def move_build(self, gone: str, to: str) -> tuple[int, int]:
        """What waits for one build's workers is another's from now on. (runs, node executions) that were moved. Rows
        that somebody holds right now stay: whoever has to be sure asks again."""

    def expired(self, *, limit: int = 500) -> tuple[Tenant, ...]:
        """Whose store holds items that are over; of the so many most overdue."""

    def forget_names(self, *, limit: int = 500) -> int:
        """Remove names of requests (records.Once) that are too old to be looked for. Returns how many there were."""

    def expired_threads(self) -> Sequence[tuple[UUID, str, UUID]]:
        """(tenant, home, thread) of threads whose time may be over: a small batch, as often as there is to look."""


class Publisher(Protocol):
    """queueing/publisher.py."""

    def publish(self, messages: Sequence[ExecuteNode]) -> None:
        """Raises BrokerUnavailable; what was not taken stays in the outbox."""

    def queue_length(self, queue: str) -> int | None:
        """Messages that wait in the broker; None where it cannot be told."""


class Backlog(Protocol):
    """queueing/backlog.py: whether work waits for this worker, so that it is not to go on by itself."""

    @property
    def is_ending(self) -> bool:
        """This process is told to end."""

    def has_work(self, queue: str) -> bool:
        """Whether somebody waits for a worker of this queue, as far as is known cheaply."""


class NodeCaches(Protocol):
    """persistence/node_cache.py: results of nodes with a CachePolicy, shared by all workers."""

    def of(
        self, tenant_id: UUID, graph_id: str, *, fingerprint: str = "", made: Pregel[Any, Any, Any, Any] | None = None
    ) -> BaseCache[Any]:
        """The cache of one graph for one tenant. Its `clear` raises CacheUnavailable, nothing else of it raises.

        fingerprint  of the graph: results of one with other nodes or channels are not this one's
        made         the graph, where a factory made it for this request: whose classes the results are of
        """

    def clear(self, tenant_id: UUID, graph_id: str | None = None) -> None:
        """Of one graph, in whatever shape it was, or of all graphs. Raises CacheUnavailable."""


class EventLog(Protocol):
    """streaming/log.py: a Redis Stream a run."""

    def append(self, tenant_id: UUID, run_id: UUID, event: Event) -> None:
        """Hand over to this process's writer: never blocks, never raises. In order."""

    def flush(self, *, seconds: float = 5.0) -> None:
        """Wait until all that was appended before by this process is in Redis. Raises StreamUnavailable."""

    def close_run(self, tenant_id: UUID, run_id: UUID, events: Sequence[Event]) -> None:
        """Append the last events ("error", "end") and let the stream expire. Idempotent. Raises StreamUnavailable."""

    def ping(self) -> None:
        """Raises StreamUnavailable when Redis does not answer."""

    def follow(self, tenant_id: UUID, run_id: UUID, *, after: str) -> AsyncIterator[Event | None]:
        """Events after `after` ("0-0": all), then new ones as they come; None each heartbeat; ends after "end".

        Holds no thread and no connection of its own: one subscription a process serves all followers.
        """
