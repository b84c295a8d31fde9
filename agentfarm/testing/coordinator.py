"""The whole engine in one process: runs node by node, over a dict where the farm has its database.

The rules are the farm's: who may execute what, who was last in a superstep, what a message finds that comes late or
twice. What it leaves out is what a database is for: leases, fences, recovery of a process that died. LangGraph's own
tests run through it (tests/upstream), and so can a graph's.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver

from agentfarm.engine._langgraph import put_writes_accepts_task_path
from agentfarm.engine.steps import NodeCall, PutCheckpoint, PutWrites, RunSpec, SegmentRequest, SegmentResult

Saver = BaseCheckpointSaver[Any]
Op = PutWrites | PutCheckpoint


@dataclass(frozen=True, slots=True)
class Message:
    """One node execution of a run, or its start (call is None), for some worker."""

    run_id: str
    call: NodeCall | None = None
    attempt: int = 1
    delay_seconds: float = 0.0


@dataclass(slots=True)
class Superstep:
    """The open superstep of the run's graph, or of a subgraph whose nodes are messages.

    head     the checkpoint that it starts from
    parent   the one before: whoever committed it may have died before it published these calls
    call     any of its calls
    open     not settled; published or about to be
    waiting  held back by max_concurrency
    taken    somebody got the answer without an id
    """

    head: str
    parent: str | None
    call: NodeCall
    open: dict[str, NodeCall]
    waiting: list[NodeCall]
    limited: bool
    settled: dict[str, str] = field(default_factory=dict)
    taken: bool = False


@dataclass(slots=True)
class OpenRun:
    """A run and how far it has come.

    supersteps  {checkpoint namespace: its open superstep}
    failed      {checkpoint namespace: why it fails once all its nodes are settled}
    """

    spec: RunSpec
    status: Literal["running", "success", "interrupted", "error", "cancelled"] = "running"
    error: BaseException | None = None
    supersteps: dict[str, Superstep] = field(default_factory=dict)
    failed: dict[str, BaseException] = field(default_factory=dict)


class Coordinator:
    """Decides what a message may do and what follows from it.

    publish  takes a message for some worker; called without a lock held
    """

    def __init__(self, publish: Callable[[Message], None]) -> None:
        self.publish = publish
        self.runs: dict[str, OpenRun] = {}
        self._lock = threading.RLock()

    def create(self, spec: RunSpec) -> OpenRun:
        run = self.runs[spec.run_id] = OpenRun(spec)
        self.publish(Message(spec.run_id))
        return run

    def begin(self, message: Message) -> SegmentRequest | None:
        """What there is to do for this message; None when nothing is left."""
        with self._lock:
            request, again = _decide(self.runs[message.run_id], message)
        self._publish(message.run_id, again)
        return request

    def commit(
        self, request: SegmentRequest, result: SegmentResult, saver: Saver, *, cancelled: bool = False
    ) -> SegmentRequest | None:
        """Save what the segment wrote and decided; the advance, if it was the last of its superstep."""
        run = self.runs[request.run.run_id]
        with self._lock:
            for op in _ops_to_save(run, request, result):
                _save(saver, run.spec, op)
            advance, calls, delay = _apply(run, request, result, cancelled)
        self._publish(run.spec.run_id, calls, delay)
        return advance

    async def acommit(
        self, request: SegmentRequest, result: SegmentResult, saver: Saver, *, cancelled: bool = False
    ) -> SegmentRequest | None:
        """The same with the saver's async methods. Commits of one event loop do not overlap between two awaits that
        matter: what is saved is saved before anything is decided."""
        run = self.runs[request.run.run_id]
        for op in _ops_to_save(run, request, result):
            await _asave(saver, run.spec, op)
        advance, calls, delay = _apply(run, request, result, cancelled)
        self._publish(run.spec.run_id, calls, delay)
        return advance

    def _publish(self, run_id: str, calls: Sequence[NodeCall], delay: float = 0.0) -> None:
        for call in calls:
            self.publish(Message(run_id, call, delay_seconds=delay))


# --------------------------------------------------------------------------- rules


def _decide(run: OpenRun, message: Message) -> tuple[SegmentRequest | None, Sequence[NodeCall]]:
    """(what the message is to do, calls to publish again since who committed them may have died before)."""
    if run.status != "running":
        return None, ()
    call = message.call
    if call is None:
        if not run.supersteps:
            return SegmentRequest("start", run.spec, attempt=message.attempt), ()
        root = run.supersteps[""]
        return None, () if root.parent else tuple(root.open.values())
    for around in call.chain():
        step = run.supersteps.get(around.checkpoint_ns)
        if step is None or step.head != around.checkpoint_id:
            return None, tuple(step.open.values()) if step and step.parent == around.checkpoint_id else ()
        if around.execution_id not in step.open:
            if around is call and not step.open and not step.waiting:
                return _advance(run, call), ()
            return None, tuple(step.open.values()) if step.limited else ()
    if inside := run.supersteps.get(_ns_below(call)):
        # The node is a subgraph that goes on by messages of its own.
        return (None, tuple(inside.open.values())) if inside.open else (_advance(run, inside.call), ())
    return SegmentRequest("node", run.spec, _as_left(run, call), attempt=message.attempt), ()


def _advance(run: OpenRun, call: NodeCall) -> SegmentRequest:
    ns = call.checkpoint_ns
    settled, failed = dict(run.supersteps[ns].settled), run.failed.get(ns)
    return SegmentRequest("advance", run.spec, _as_left(run, call), settled=settled, failed=failed)


def _as_left(run: OpenRun, call: NodeCall) -> NodeCall:
    """The call, without the answer that another node, or an earlier superstep of a subgraph, has got."""
    step = run.supersteps.get(call.checkpoint_ns)
    outer = _as_left(run, call.outer) if call.outer else None
    return replace(call, outer=outer, answered=call.answered and not (step is not None and step.taken))


def _ns_below(call: NodeCall) -> str:
    """The namespace of the subgraph that this node is."""
    return f"{call.checkpoint_ns}|{call.name}:{call.execution_id}".lstrip("|")


def _is_current(run: OpenRun, request: SegmentRequest) -> bool:
    """Not done yet by a worker that got the message as well."""
    if request.call is None:
        return not run.supersteps
    for call in request.call.chain():
        step = run.supersteps.get(call.checkpoint_ns)
        if step is None or step.head != call.checkpoint_id:
            return False
        is_advance = request.kind == "advance" and call is request.call
        if not is_advance and call.execution_id not in step.open:
            return False
    return True


def _ops_to_save(run: OpenRun, request: SegmentRequest, result: SegmentResult) -> Sequence[Op]:
    """Of a node that finished after its run had failed or was cancelled: its writes, so that the next run need not
    repeat it."""
    if not _is_current(run, request):
        return ()
    if run.status == "running":
        return result.ops
    return [op for op in result.ops if request.kind == "node" and isinstance(op, PutWrites)]


def _apply(
    run: OpenRun, request: SegmentRequest, result: SegmentResult, cancelled: bool
) -> tuple[SegmentRequest | None, Sequence[NodeCall], float]:
    """The segment's outcome becomes the run's: (the advance to execute, calls to publish, after how many seconds)."""
    if run.status != "running" or not _is_current(run, request):
        return None, (), 0.0
    for ns in result.taken_at:
        if ns in run.supersteps:
            run.supersteps[ns].taken = True
    if cancelled or result.status is not None or result.outcome == "error":
        run.status = "cancelled" if cancelled else result.status or "error"
        run.error = result.error
        return None, (), 0.0
    if result.next:
        return None, _open_superstep(run, result), 0.0
    call = result.call
    if call is None:
        raise RuntimeError("a segment ended without a decision")
    step = run.supersteps[call.checkpoint_ns]
    if result.outcome == "retry":
        step.open[call.execution_id] = call
        return None, (call,), result.retry_in
    return (*_settle(run, step, call, result), 0.0)


def _open_superstep(run: OpenRun, result: SegmentResult) -> Sequence[NodeCall]:
    calls, ns = result.next, result.next[0].checkpoint_ns
    now = calls[: result.max_concurrency or len(calls)]
    before = run.supersteps.get(ns)
    _forget_below(run, ns)
    run.failed.pop(ns, None)
    run.supersteps[ns] = Superstep(
        head=calls[0].checkpoint_id,
        parent=before.head if before else None,
        call=calls[0],
        open={call.execution_id: call for call in now},
        waiting=list(calls[len(now) :]),
        limited=result.max_concurrency is not None,
    )
    return now


def _settle(
    run: OpenRun, step: Superstep, call: NodeCall, result: SegmentResult
) -> tuple[SegmentRequest | None, Sequence[NodeCall]]:
    below = _ns_below(call)
    _forget_below(run, below)
    run.supersteps.pop(below, None)
    run.failed.pop(below, None)
    del step.open[call.execution_id]
    step.settled[call.execution_id] = result.outcome or "done"
    if result.outcome == "invalid" and result.error is not None:
        run.failed[call.checkpoint_ns] = result.error
    if step.waiting:
        released = step.waiting.pop(0)
        step.open[released.execution_id] = released
        return None, (released,)
    return (None if step.open else _advance(run, call)), ()


def _forget_below(run: OpenRun, ns: str) -> None:
    """Supersteps of subgraphs of this one are over with it."""
    for gone in [k for k in run.supersteps if k != ns and (not ns or k.startswith(ns + "|"))]:
        del run.supersteps[gone]
        run.failed.pop(gone, None)


# --------------------------------------------------------------------------- saving


def _config(spec: RunSpec, op: PutWrites) -> Any:
    ids = {"thread_id": spec.thread_id, "checkpoint_ns": op.checkpoint_ns, "checkpoint_id": op.checkpoint_id}
    return {"configurable": ids}


def _save(saver: Saver, spec: RunSpec, op: Op) -> None:
    if isinstance(op, PutCheckpoint):
        saver.put(op.config, op.checkpoint, op.metadata, op.new_versions)
    else:
        saver.put_writes(_config(spec, op), op.writes, op.task_id, *_path(saver.put_writes, op))


async def _asave(saver: Saver, spec: RunSpec, op: Op) -> None:
    if isinstance(op, PutCheckpoint):
        await saver.aput(op.config, op.checkpoint, op.metadata, op.new_versions)
    else:
        await saver.aput_writes(_config(spec, op), op.writes, op.task_id, *_path(saver.aput_writes, op))


def _path(put_writes: Callable[..., Any], op: PutWrites) -> tuple[str, ...]:
    """Savers written before LangGraph 0.2 take none."""
    return (op.task_path,) if put_writes_accepts_task_path(put_writes) else ()
