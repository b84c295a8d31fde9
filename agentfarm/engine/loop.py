"""LangGraph's own loop, cut at the message: one node, then stop where the next would start.

A subclass of the stock loop, run by stock `stream`. It loads the checkpoint that the call names instead of applying
input (`_first`), executes one node of the superstep (`tick`), records what it would save (recording.py), and names the
nodes that are next instead of running them (handover.py). Superstep semantics, retries, timeouts, error handlers,
caching, interrupts and delta channels stay LangGraph's. Knows nothing of queues and stores; what it overrides is listed
in _langgraph.py.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from langgraph.constants import START
from langgraph.errors import GraphBubbleUp, GraphInterrupt

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.continuation import check_nodes, is_resumed, next_nodes
from agentfarm.engine.handover import next_calls, nodes_to_run
from agentfarm.engine.levels import Level, has_scalar
from agentfarm.engine.node import RetryLater, prepare
from agentfarm.engine.recording import RecordingLoop
from agentfarm.engine.untracked import CannotTravel, has_untracked, may_leave, pack, unpack
from agentfarm.errors import Stale


class HandedOver(GraphBubbleUp):
    """A subgraph stopped where its next nodes are other workers' business."""


class SegmentLoop(RecordingLoop):
    """What the two loops of loops.py share. Stands before the stock loop in both."""

    _stock_init: Callable[..., None]

    def __init__(self, level: Level, input: Any, *, config: Any, **kwargs: Any) -> None:
        self.level, self.segment = level, level.segment
        #: Until the superstep that the call names is applied.
        self._loading = level.kind != "start"
        self._just_loaded = False
        self._handed_over = False
        self._own_stream = kwargs["stream"]
        if self._loading and level.is_nested:
            config = lg.patch_configurable(config, {lg.CONFIG_KEY_REPLAY_STATE: None})
        self._stock_init(input, config=config, **kwargs)
        if self._loading:
            # None: the head. Naming it would make LangGraph read it twice.
            call = level.named
            addressed = {lg.CONFIG_KEY_CHECKPOINT_ID: call.checkpoint_id if call.addressed else None}
            self.checkpoint_config = lg.patch_configurable(self.checkpoint_config, addressed)

    # -- entering

    def _first(self, *, input_keys: Any, updated_channels: Any) -> Any:
        if self._loading or is_resumed(self):
            # Of a superstep's nodes each has a message of its own, which looks for its own alone.
            is_node = self._loading and self.level.kind == "node"
            wanted = [self.level.named.name] if is_node else next_nodes(self.checkpoint)
            check_nodes(self.segment.run.graph_id, wanted, self.nodes)
        if self.segment.run.inline:
            return super()._first(input_keys=input_keys, updated_channels=updated_channels)
        self.record()
        if self._loading:
            return self._enter_again(input_keys, updated_channels)
        self._loaded_id = self.checkpoint["id"]
        return super()._first(input_keys=input_keys, updated_channels=updated_channels)

    def _enter_again(self, input_keys: Any, updated_channels: Any) -> Any:
        """Let stock code do what it does when a checkpoint is entered again (apply the run's own writes, delta
        bookkeeping), then take back what belongs only to the moment when a run resumes: the pass over breakpoints,
        the events, the flags."""
        call = self.level.named
        if self.checkpoint["id"] != call.checkpoint_id:
            raise Stale(where=f"checkpoint {call.checkpoint_id}")
        seen = self.checkpoint["versions_seen"].get(lg.INTERRUPT)
        seen = None if seen is None else dict(seen)
        if call.untracked:
            unpack(self, call.untracked)
        self.config[lg.CONF][lg.CONFIG_KEY_RESUMING] = True
        with self._muted():
            updated_channels = super()._first(input_keys=input_keys, updated_channels=updated_channels)
        self._graph_lifecycle_events.clear()
        if not call.resuming:
            lg.restore_seen(self.checkpoint, seen)
        self._set_flags()
        if self.level.is_nested and "values" in self._own_stream.modes:
            # A subgraph's result is the last values its stream gave: maybe in an earlier segment, if the nodes of
            # this one change nothing.
            values = lg.read_channels(self.channels, self.output_keys)
            self._own_stream((self.checkpoint_ns, "values", values))
        return updated_channels

    def _set_flags(self) -> None:
        """As they were when the node was handed over."""
        call, last = self.level.named, self.segment.last.call
        replay = (last and last.replay) or call.replay
        state = None
        if replay:
            state = lg.ReplayState(replay.checkpoint_id)
            state._visited_ns = set(replay.visited)
        self.config = lg.patch_configurable(self.config, {lg.CONFIG_KEY_REPLAY_STATE: state})
        conf = self.config[lg.CONF]
        conf.pop(lg.CONFIG_KEY_RESUMING)
        if call.resuming is not None:
            conf[lg.CONFIG_KEY_RESUMING] = call.resuming
        if resume_map := self.level.resume_map:
            conf[lg.CONFIG_KEY_RESUME_MAP] = resume_map
        self.is_replaying = call.replaying and self.level.kind == "node"
        self.stop = call.stop

    @contextlib.contextmanager
    def _muted(self) -> Any:
        stream, self.stream = self.stream, None
        try:
            yield
        finally:
            self.stream = stream

    # -- one superstep

    def tick(self) -> bool:
        if self._handed_over:
            if self.level.is_nested:
                raise HandedOver
            return False
        if self._loading:
            self._just_loaded = True
            if self.level.kind == "node":
                self._load_node()
            else:
                self._load_superstep()
            return True
        more: bool = super().tick()
        if not more and not self.level.is_nested and self.status == "done":
            self.segment.status = "success"
        return more

    def _load_node(self) -> None:
        if not self.level.is_nested:
            self.segment.max_concurrency = self.config.get("max_concurrency")
        if not self.level.named.answered:
            self.checkpoint_pending_writes = [
                write for write in self.checkpoint_pending_writes if write[:2] != (lg.NULL_TASK_ID, lg.RESUME)
            ]
        if has_scalar(self.checkpoint_pending_writes):
            self.level.scalar_in = self.checkpoint_pending_writes
        task = prepare(self, self.level)
        self.tasks = {task.id: task}
        if self.checkpoint_pending_writes and not self.is_replaying:
            self._errors_as_errors()
            self._resume_error_handlers_if_applicable()

    def _errors_as_errors(self) -> None:
        """A handler whose worker died is called again with what was saved of the error, its text. A handler is promised
        an exception. In place: the node's scratchpad takes answers out of this very list."""
        self.checkpoint_pending_writes[:] = [
            (owner, channel, lg.error_from_write(value)) if channel == lg.ERROR else (owner, channel, value)
            for owner, channel, value in self.checkpoint_pending_writes
        ]

    def _load_superstep(self) -> None:
        """Stock `tick` hands the stored writes back to the executions that made them."""
        control, self.control = self.control, None
        with self._muted():
            super().tick()
        self.control = control
        handlers = {t.id: t for t in self.tasks.values() if "node_error_handler" in t.path and not t.writes}
        if handlers:
            self._reapply_writes_to_succeeded_nodes(handlers)
        settled = self.segment.settled
        for execution_id, outcome in settled.items():
            if outcome == "invalid":
                raise self.segment.failed or self._stored_error(execution_id)
        asked = [t.id for t in self.tasks.values() if settled.get(t.id) == "interrupt"]
        if asked:
            stored = {(tid, chan): value for tid, chan, value in self.checkpoint_pending_writes}
            raise GraphInterrupt(tuple(i for tid in asked for i in stored.get((tid, lg.INTERRUPT), ())))

    def _prepare_tasks_and_emit_checkpoint(self) -> None:
        if not self._loading:
            super()._prepare_tasks_and_emit_checkpoint()
            return
        # An advance executes none of these tasks. Stock looks through all writes for each one's answers: with 2,000
        # siblings that took 2 s.
        stored, self.checkpoint_pending_writes = self.checkpoint_pending_writes, []
        super()._prepare_tasks_and_emit_checkpoint()
        self.checkpoint_pending_writes = stored

    def _stored_error(self, execution_id: str) -> BaseException:
        """What an execution on another machine failed with, as far as it was saved."""
        saved = [w[2] for w in self.checkpoint_pending_writes if w[:2] == (execution_id, lg.ERROR)]
        error = lg.error_from_write(saved[-1] if saved else "an answer did not fit its interrupt")
        lg.mark_invalid_resume(error)
        return error

    def _after_match(self, matched: Any) -> Any:
        """Stock has asked the cache for this superstep: what has no writes now would be executed next."""
        if not self._loading and not self.segment.run.inline:
            self._hand_over()
        return matched

    def _hand_over(self) -> None:
        todo, handlers = nodes_to_run(self)
        if not todo or all(task.name == START for task in todo):
            return
        if self.is_replaying and self._has_results_of(todo):
            # Nodes are executed again whose first results are stored under the same ids. Savers keep the first, so
            # the second must not go through them: this superstep is executed here.
            return
        carried = None
        if has_untracked(self.channels):
            if not may_leave(self):
                return
            try:
                carried = pack(self)
            except CannotTravel:
                return
        self.segment.hand_over(next_calls(self, todo, carried), self.config.get("max_concurrency"))
        gone = {task.id for task in (*todo, *handlers)}
        self.tasks = {id_: task for id_, task in self.tasks.items() if id_ not in gone}
        self._handed_over = True

    def _has_results_of(self, todo: Any) -> bool:
        control = (lg.INTERRUPT, lg.RESUME, lg.ERROR, lg.ERROR_SOURCE_NODE)
        with_results = {write[0] for write in self.checkpoint_pending_writes if write[1] not in control}
        return any(task.id in with_results for task in todo)

    def after_tick(self) -> None:
        if self._handed_over:
            return
        if self._loading and self.level.kind == "node" and not self.level.is_sole:
            self.segment.decide(self.level, "done")
            self._handed_over = True
            return
        self._loading = False
        super().after_tick()

    # -- leaving

    def _suppress_interrupt(self, exc_type: Any, exc: Any, traceback: Any) -> bool | None:
        nested = self.level.is_nested
        if isinstance(exc, HandedOver):
            return not nested
        if isinstance(exc, RetryLater):
            self.segment.decide(self.level, "retry", exc.__cause__)
            self.segment.retry_in, self.segment.tries = exc.seconds, exc.tries
            if nested:
                raise HandedOver
            return True
        if exc is not None and not self.level.decides_run:
            return self._settle_one_of_several(exc)
        suppressed: bool | None = super()._suppress_interrupt(exc_type, exc, traceback)
        if isinstance(exc, GraphInterrupt) and not nested:
            self.segment.status = "interrupted"
            self.segment.interrupts = tuple(
                (execution_id, status.pending_interrupts)
                for execution_id, status in lg.read_task_statuses(self.checkpoint_pending_writes).items()
                if status.pending_interrupts
            )
        return suppressed

    def _settle_one_of_several(self, exc: BaseException) -> bool:
        """The run goes on until all of the superstep are settled. An invalid answer fails it, but cuts nobody off."""
        asked, invalid = isinstance(exc, GraphInterrupt), lg.is_invalid_resume(exc)
        if asked:
            self.segment.decide(self.level, "interrupt")
        elif invalid:
            self.segment.decide(self.level, "invalid", exc)
        elif not self.level.is_nested:
            self.segment.decide(self.level, "error", exc)
        if (asked or invalid) and self.level.is_nested:
            raise HandedOver
        return asked or invalid
