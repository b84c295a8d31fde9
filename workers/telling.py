"""Tells Flower of nodes that are executed without a message of their own, as Celery tells it of those that have one.

Each has an id of its own, and its message's as parent. With threads, what is told goes out with all that the worker
says, in its batches. A prefork child has no part in that, and says it itself: one publish a node.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final, Protocol
from uuid import uuid4

from celery import Celery, Task
from celery.events import EventDispatcher
from celery.worker import state
from kombu.exceptions import KombuError

from agentfarm import clock
from agentfarm.flow.step import Outcome, Tell
from agentfarm.messages import ExecuteNode

logger = logging.getLogger(__name__)

#: A broker that could not be told is left alone for so long: nodes must not wait for it one after the other.
PAUSE_SECONDS: Final = 8.0


class Sender(Protocol):
    def send(self, type: str, **fields: Any) -> object:
        """One event. Never raises."""

    def flush(self) -> None:
        """Who looks now is to see what was sent."""


@contextmanager
def telling(task: "Task[Any, Any]") -> Iterator[Tell]:
    """For one message. The events are sent when this is left, at the latest."""
    sender = _sender(task)
    message_id = task.request.id

    @contextmanager
    def tell(message: ExecuteNode) -> Iterator[Callable[[Outcome], None]]:
        uuid, began, outcomes = str(uuid4()), time.monotonic(), list[Outcome]()
        about = {"name": message.shadow, "args": "", "kwargs": message.told_kwargs, "retries": 0}
        of = {"root_id": message_id, "parent_id": message_id, "eta": None, "expires": None}
        sender.send("task-received", uuid=uuid, **about, **of)
        sender.send("task-started", uuid=uuid)
        sender.flush()
        try:
            yield outcomes.append
        except BaseException as error:  # its text may hold what a node has in hand
            sender.send("task-failed", uuid=uuid, exception=f"{type(error).__name__}()", traceback="")
            raise
        runtime = time.monotonic() - began
        sender.send("task-succeeded", uuid=uuid, result=repr(outcomes[-1]), runtime=runtime)

    try:
        yield tell
    finally:
        sender.flush()


def _sender(task: "Task[Any, Any]") -> Sender:
    request = state.requests.get(str(task.request.id))  # none in a child: its parent has them
    if request is not None:
        return _Consumers(request.eventer)
    return _Own(task.app, str(task.request.hostname)) if task.app.conf.worker_send_task_events else _Nobody()


class _Nobody:
    def send(self, type: str, **fields: Any) -> None:
        pass

    def flush(self) -> None:
        pass


class _Consumers:
    """With threads: the dispatcher of the worker's consumer, or None while it has no connection."""

    def __init__(self, dispatcher: EventDispatcher | None) -> None:
        self._dispatcher = dispatcher

    def send(self, type: str, **fields: Any) -> None:
        if self._dispatcher is not None and self._dispatcher.enabled:
            self._dispatcher.send(type, **fields)

    def flush(self) -> None:
        """It does so itself, a few times a second."""


class _Own:
    """In a prefork child: one publish for all that was said since the last one."""

    _paused_until: ClassVar[float] = 0.0  # monotonic, of this process

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app, self._hostname = app, hostname
        self._errors: tuple[type[BaseException], ...] = (
            KombuError,
            OSError,
            *app.connection_for_write().connection_errors,  # not connected: it knows its transport's
        )
        self._said: list[tuple[str, dict[str, Any]]] = []

    def send(self, type: str, **fields: Any) -> None:
        self._said.append((type, {**fields, "timestamp": clock.now().timestamp()}))

    def flush(self) -> None:
        said, self._said = self._said, []
        if not said or clock.monotonic_seconds() < _Own._paused_until:
            return
        try:
            with self._app.events.default_dispatcher(hostname=self._hostname) as dispatcher:
                dispatcher.buffer_group = frozenset({"task"})
                for type_, fields in said:
                    dispatcher.send(type_, **fields)
                dispatcher.flush()
        except self._errors as error:
            _Own._paused_until = clock.monotonic_seconds() + PAUSE_SECONDS
            logger.warning("Flower is not told of %d nodes: %s", len(said), type(error).__name__)
