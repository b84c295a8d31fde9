"""Beat: the healer and the cleaner, threads of the beat process. `celery -A workers beat`; several may run.

No heal message travels on the queue: a healer that waits behind the work it is to heal heals nothing, and one that
needs a worker cannot notice that all are dead (docs/decisions/0006). Celery's own schedule is empty.
"""

import atexit
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from celery import signals

from agentfarm import wiring
from agentfarm.conf import settings
from agentfarm.errors import Unavailable
from agentfarm.flow.farm import Farm
from agentfarm.flow.heal import clean_up_once, publish_due, sweep_once
from agentfarm.records import Delayed
from workers.drain import skip_finalization

logger = logging.getLogger(__name__)

#: How long a sweep may take to end when beat does.
STOP_SECONDS = 5.0

#: A sweep that is over so much later than it should begin is warned of: what died meanwhile has waited as long.
LAG_SECONDS = 5.0

#: Retries that are due within this of each other are published together.
TOGETHER_SECONDS = 0.01


class Periodic(threading.Thread):
    """Does something every so many seconds until it is stopped, whatever comes of it."""

    def __init__(self, name: str, every_seconds: float) -> None:
        super().__init__(name=name, daemon=True)
        self._every_seconds = every_seconds
        self._stopping = threading.Event()

    def end_soon(self) -> None:
        """Let what runs be the last."""
        self._stopping.set()

    def stop(self) -> None:
        """The same. Returns when it has ended, or after STOP_SECONDS."""
        self.end_soon()
        self.join(STOP_SECONDS)


class Healer(Periodic):
    """sweep    answers with the retries that will be due before the next sweep, the first first
    publish  gets each of them when it is due
    note     gets its lag: how many seconds after the moment when it was to begin a sweep was over
    """

    def __init__(
        self,
        sweep: Callable[[], Sequence[Delayed]],
        publish: Callable[[Sequence[Delayed]], object],
        every_seconds: float,
        *,
        note: Callable[[float], object] = lambda lag: None,
    ) -> None:
        super().__init__("healer", every_seconds)
        self._sweep, self._publish, self._note = sweep, publish, note

    def run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            soon: Sequence[Delayed] = ()
            with _going_on(self.name):
                soon = self._sweep()
                self._note(time.monotonic() - due)
            due = time.monotonic() + self._every_seconds
            self._wait(soon, due)

    def _wait(self, soon: Sequence[Delayed], end: float) -> None:
        """Until then, or until it is stopped; meanwhile, what is due is published."""
        at = 0
        while at < len(soon) and soon[at].due_at < end:
            if self._stopping.wait(max(0.0, soon[at].due_at - time.monotonic()) + TOGETHER_SECONDS):
                return
            now = time.monotonic()
            due = [one for one in soon[at:] if one.due_at <= now]
            at += len(due)
            with _going_on(self.name):
                self._publish(due)
        self._stopping.wait(max(0.0, end - time.monotonic()))


class Cleaner(Periodic):
    """Beside the healer: to delete a large thread may take half a minute, and the next sweep is due in a second."""

    def __init__(self, clean_up: Callable[[], object], every_seconds: float) -> None:
        super().__init__("cleaner", every_seconds)
        self._clean_up = clean_up

    def run(self) -> None:
        while not self._stopping.is_set():
            with _going_on(self.name):
                self._clean_up()
            self._stopping.wait(self._every_seconds)


@contextmanager
def _going_on(who: str) -> Iterator[None]:
    """A healer that ends in silence would leave the farm without one while beat looks alive."""
    try:
        yield
    except Unavailable as error:
        logger.warning("a sweep did not end; the next finds the same", extra={"code": error.code, "who": who})
    except Exception:
        logger.exception("a sweep failed", extra={"who": who})


def install() -> None:
    """Begin healing and cleaning up when Celery's beat begins."""
    signals.beat_init.connect(_begin, weak=False)
    signals.beat_init.connect(end_once, weak=False)


#: Two threads ask for the farm of this process, which is made when it is first asked for.
_making = threading.Lock()


def _farm() -> Farm:
    with _making:
        return wiring.farm()


def _note_lag(seconds: float) -> None:
    """After a sweep: in the log where it is long, and in the health file, as a gauge in Prometheus' text format."""
    if seconds > LAG_SECONDS:
        logger.warning("the healer lags: what died has waited for it", extra={"lag_seconds": round(seconds, 3)})
    if (file := settings().health_file) is not None:
        new = file.with_name(f"{file.name}.new")  # whoever collects it finds all of it
        new.write_text(f"# TYPE agentfarm_healer_lag_seconds gauge\nagentfarm_healer_lag_seconds {seconds:.3f}\n")
        new.replace(file)


def _begin(**_: object) -> None:
    every_seconds = settings().heal_seconds
    healer = Healer(
        lambda: sweep_once(_farm()).soon, lambda due: publish_due(_farm(), due), every_seconds, note=_note_lag
    )
    cleaner = Cleaner(lambda: clean_up_once(_farm()), every_seconds)

    def stop() -> None:
        cleaner.end_soon()
        healer.stop()
        cleaner.stop()

    healer.start()
    cleaner.start()
    atexit.register(stop)
    logger.info("healing every %s s", every_seconds)


def end_once(**_: object) -> None:
    """SIGTERM and SIGINT end this process however often they come, and at once when the last sweep has ended.

    The handlers that Celery installs take a lock which the first of two signals may hold when the second interrupts it:
    beat would wait for itself, and heal on. What they save, the schedule, is empty, and saved by who catches this.
    """

    def end(*_: object) -> None:
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, signal.SIG_IGN)
        skip_finalization()
        raise SystemExit

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, end)
