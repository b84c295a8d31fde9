"""What a worker process does before its first message and after its last.

Before: the queues exist, the process is fit to serve (role, schema, serializer), it is registered and beats, its
graphs are loaded. With threads that is the worker's one process; with prefork each child, anew after the fork, since
neither a connection nor a thread survives one. After: running nodes are over or were given back (drain.py), then the
lease ends, so that nobody waits for it.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import Celery, bootsteps, concurrency, current_app, signals
from celery.worker import state

from agentfarm import wiring
from agentfarm.conf import settings
from agentfarm.errors import AgentFarmError
from agentfarm.garbage import spare_what_stays
from agentfarm.queueing.broker import declare_all, queues_read_by
from agentfarm.telemetry.logs import configure_logs
from workers.drain import HAND_BACK_SECONDS, Drain, end_children_soon, obey_parent, skip_finalization, tell_children

logger = logging.getLogger(__name__)


class Begin(bootsteps.StartStopStep):
    """A step of Celery's worker: it starts before the consumer, and what it raises ends the process.

    A signal's receiver could not do this: Celery logs what it raises and goes on, a worker without a lease.
    """

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        self.forks = concurrency.get_implementation(parent.pool_cls).__module__ == "celery.concurrency.prefork"
        super().__init__(parent, **kwargs)

    def start(self, parent: Any) -> None:
        declare_all(parent.app)
        if self.forks:
            _check()
        else:
            begin_process(parent.hostname, queues_read_by(parent.app), unbegun=_unbegun)
        drain = (
            Drain(settings().drain_seconds, end_children_soon, tell_children)
            if self.forks
            else Drain(settings().drain_seconds, wiring.end_soon, _hand_back)
        )
        signals.worker_shutting_down.connect(drain.ask, weak=False)
        signals.worker_shutting_down.connect(skip_finalization, weak=False)
        drain.start()


def begin_process(node_name: str, queues: Sequence[str] = (), *, unbegun: Callable[[], int] = lambda: 0) -> None:
    """Register this process and load its graphs, or end it with a sentence that says why not.

    node_name  Celery's, as Flower shows it; the pid tells the children of one worker apart
    queues     that it reads, as graphs name them
    unbegun    messages that it has taken and not begun; a child is handed one at a time, and knows of no others
    """
    with _ending_on_error(node_name):
        wiring.start_worker(f"{node_name}/{os.getpid()}", queues=queues, gives_up=_is_ending, unbegun=unbegun)
    spare_what_stays()


def _unbegun() -> int:
    """What Celery has reserved is what runs, and what waits for a thread."""
    return len(state.reserved_requests) - len(state.active_requests)


def _check() -> None:
    """In the parent of prefork children: end at once what no child could do, and leave nothing open to inherit."""
    with _ending_on_error("the parent of the children"):
        wiring.check(gives_up=_is_ending)
    wiring.stop_worker()
    spare_what_stays()  # the children share its memory for as long as nobody writes to it


def _is_ending() -> bool:
    """Whether SIGTERM has come while this worker starts. Celery looks at that when it has started."""
    return (state.should_stop, state.should_terminate) != (None, None)


@contextmanager
def _ending_on_error(process: str) -> Iterator[None]:
    try:
        yield
    except AgentFarmError as error:
        logger.critical("%s does not start: %s", process, error)
        raise SystemExit(1) from error


def set_up_logs() -> None:
    """One log for all. Before the app is made, since making it loads the graphs, which may have something to say."""
    configure_logs(level=settings().log_level, as_json=settings().log_json)


def install(app: Celery) -> None:
    """Connect it all to this app."""
    app.steps["worker"].add(Begin)
    signals.setup_logging.connect(_setup_logging)
    signals.worker_process_init.connect(_begin_child)
    signals.worker_process_shutdown.connect(_end)
    signals.worker_shutdown.connect(_end)
    # Sent by a signal's handler, which another SIGTERM may interrupt: the main thread would wait for itself.
    signals.worker_shutting_down.lock = threading.RLock()  # type: ignore[attr-defined]  # its stubs know no lock


def _begin_child(sender: Any = None, **_: object) -> None:
    obey_parent(_hand_back, wiring.end_soon)
    # SystemExit passes through Celery's signals; the pool then starts another child, at most as fast as one starts.
    begin_process(str(sender), queues_read_by(current_app))


def _hand_back() -> None:
    wiring.hand_back(seconds=HAND_BACK_SECONDS)


def _end(**_: object) -> None:
    """The nodes of this process are over: end its lease, send its last events. Nothing, where none began."""
    wiring.stop_worker()


def _setup_logging(**_: object) -> None:
    """That somebody is connected keeps Celery from setting up the log in its own way."""
    set_up_logs()
