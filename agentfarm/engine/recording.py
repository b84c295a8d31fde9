"""What the loop would save, recorded: it becomes durable together with everything else that the segment did.

Stock hands its writes and checkpoints to an executor, to be saved in the background. Here they are noted on the spot,
as operations of the segment. Only progress inside of a node is saved at once.
"""

import uuid
import weakref
from collections.abc import Callable
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.channels import DeltaChannel

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.levels import Level, Segment
from agentfarm.engine.steps import PutCheckpoint, PutWrites


class RecordingLoop(lg.PregelLoop):
    """Stands before the stock loop, of which it overrides how things are saved."""

    level: Level
    segment: Segment
    _loading: bool
    _done: Callable[[], Any]

    def record(self) -> None:
        """From now on, saving is recording."""
        # Held here: stock keeps a weak method of `submit`, and the loop must not hold itself.
        self._recorder = _Recorder(self, self.submit)
        self.submit = self._recorder.submit
        self._put_checkpoint_fut = self._done()

    @property
    def checkpointer_put_writes(self) -> Any:
        return self._save_writes if self.segment.run.inline else self._record_writes

    @checkpointer_put_writes.setter
    def checkpointer_put_writes(self, stock: Any) -> None:
        self._save_writes = stock

    def _record_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        # Savers replace a control write only in a list that holds nothing else, so the second
        # `Command(resume=…, update=…)` at a checkpoint would keep the first's answer where the next worker reads it.
        parts = [writes]
        if task_id == lg.NULL_TASK_ID:
            plain = [write for write in writes if write[0] not in lg.WRITES_IDX_MAP]
            parts = [plain, [write for write in writes if write[0] in lg.WRITES_IDX_MAP]]
        conf = config[lg.CONF]
        ns, checkpoint_id = conf[lg.CONFIG_KEY_CHECKPOINT_NS], conf[lg.CONFIG_KEY_CHECKPOINT_ID]
        for part in filter(None, parts):
            self.segment.ops.append(PutWrites(ns, checkpoint_id, task_id, task_path, tuple(part)))

    def _checkpointer_put_after_previous(self, *args: Any) -> Any:
        if self.segment.run.inline:
            return super()._checkpointer_put_after_previous(*args)  # type: ignore[misc]  # None without a saver
        *_waited_for, config, checkpoint, metadata, new_versions = args
        conf = config[lg.CONF]
        parent_id = conf.get(lg.CONFIG_KEY_CHECKPOINT_ID) or None
        ns = conf.get(lg.CONFIG_KEY_CHECKPOINT_NS, "")
        self.segment.ops.append(
            PutCheckpoint(config, checkpoint, metadata, new_versions, parent_id, ns, self._whole_values())
        )
        return None

    def _whole_values(self) -> dict[str, Any]:
        """Of delta channels, for the node that this worker goes on with: else it would replay them once more."""
        if self.level.kind != "start" or self.level.is_nested:
            return {}
        deltas = {name: each for name, each in self.channels.items() if isinstance(each, DeltaChannel)}
        return {name: each.get() for name, each in deltas.items() if each.is_available()}

    def must_save_now(self, config: Any, writes: Any, task_id: str, *_: Any) -> bool:
        """Progress inside of a node that a second attempt must find: results of `@task` calls, and the mark that a
        node's error handler took over. What belongs to a checkpoint that is itself not saved yet goes with it."""
        task = getattr(self, "tasks", {}).get(task_id)
        is_progress = (task is not None and task.path[-1] is True) or any(c == lg.ERROR_SOURCE_NODE for c, _ in writes)
        checkpoint_id = config[lg.CONF][lg.CONFIG_KEY_CHECKPOINT_ID]
        return is_progress and not any(
            isinstance(op, PutCheckpoint) and op.checkpoint["id"] == checkpoint_id for op in self.segment.ops
        )

    def put_writes(self, task_id: str, writes: Any, **kwargs: Any) -> None:
        if self._loading and not self.level.is_sole:
            # `add_messages` gives missing ids when it is applied: here that is later, elsewhere, and to other
            # objects than those that were streamed as this node's update.
            for channel, value in writes:
                if getattr(self.specs.get(channel), "operator", None) is lg.add_messages:
                    _give_ids(value)
        super().put_writes(task_id, writes, **kwargs)


class _Recorder:
    """Stands in for the loop's executor: recording is done on the spot, the rest goes to stock's."""

    def __init__(self, loop: RecordingLoop, stock: Callable[..., Any]) -> None:
        self.loop, self.stock = weakref.ref(loop), stock

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        function, loop = getattr(fn, "__func__", None), self.loop()
        if loop is not None and function is RecordingLoop._record_writes:
            if loop.must_save_now(*args):
                return self.stock(loop._save_writes, *args, **kwargs)
            fn(*args)
            return loop._done()
        if loop is not None and function is RecordingLoop._checkpointer_put_after_previous:
            fn(*args)
            return loop._done()
        return self.stock(fn, *args, **kwargs)


def _give_ids(value: Any) -> None:
    for message in value if isinstance(value, list) else [value]:
        if isinstance(message, BaseMessage) and message.id is None:
            message.id = str(uuid.uuid4())
