"""Waves: short siblings are taken one after the other by a few workers, instead of being sent for one by one.

A superstep of a hundred nodes that take a millisecond each spends two thirds of its time on messages. The commit that
makes them ready leases the first to its worker and sends for a few; who has settled one takes the next in the same
transaction (docs/decisions/0014). Each is leased, fenced and committed by itself as ever.

That is for nodes that are known to be short. What has not been seen yet is sent for one by one, and where a node of a
wave takes longer than was thought, the others do not wait for it.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from agentfarm import clock
from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import Unavailable
from agentfarm.records import Claimed

logger = logging.getLogger(__name__)

#: A node is short up to here. Eight workers that take 20 ms each from a hundred siblings are about as fast as sixteen
#: that are sent for each.
SHORT_SECONDS: Final = 0.02

#: After so long in one node of a wave another worker is asked to go on; after twice as long two more, then four, …: a
#: machine that stumbles costs one message, and of nodes that are all long a hundred have begun after 0.2 s.
LONG_SECONDS: Final = 0.05

#: How often the watching thread looks, while there is a wave.
LOOK_SECONDS: Final = 0.025

#: What a sibling costs beside its node, and what a message does: how many workers are worth one follows from both.
SETTLE_SECONDS: Final = 0.001
HOP_SECONDS: Final = 0.004

#: Nodes whose durations are remembered; the one that was not executed for longest is forgotten.
MOST_NODES: Final = 4096


class Durations:
    """How long nodes take in this process, as a moving mean: {(graph, node): seconds}. For any number of threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def note(self, graph_id: str, node: str, seconds: float) -> None:
        with self._lock:
            before = self._known.pop((graph_id, node), seconds)
            self._known[graph_id, node] = before + (seconds - before) / 4
            if len(self._known) > MOST_NODES:
                del self._known[next(iter(self._known))]

    def find(self, graph_id: str, node: str) -> float | None:
        """None: not executed here yet."""
        return self._known.get((graph_id, node))


class Part:
    """One message's part in waves: which of their nodes it is in, and since when."""

    def __init__(self, joined: Callable[["Part"], None]) -> None:
        self._joined = joined
        self.is_member = False
        self.work: Claimed | None = None
        self.sent_for: Claimed | None = None  # whose siblings have been sent for, and how often
        self.times = 0
        self.since = 0.0

    @contextmanager
    def at(self, work: Claimed) -> Iterator[None]:
        """While it is executed. Nothing, where it is in no wave."""
        if not work.in_wave:
            yield
            return
        self.since, self.work = clock.monotonic_seconds(), work
        self._joined(self)
        try:
            yield
        finally:
            self.work = None


class Waves:
    """What this process knows of nodes' durations, and the thread that watches those in waves.

    most       messages that a wave sends beside the one it goes on with, at most; below 0: there are no waves
    give_out   sends for so many siblings that wait; raises Unavailable
    """

    def __init__(self, most: int = -1, give_out: Callable[[Claimed, int], None] = lambda claimed, most: None) -> None:
        self.durations = Durations()
        self._most = most
        self._give_out = give_out
        self._parts: set[Part] = set()
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None

    def plan(self, claimed: Claimed, result: SegmentResult) -> int | None:
        """For how many of the next executions messages are to be sent, beside the first; None: for each of them.

        Safe when it knows nothing: a wave is of nodes of this worker's queue, each of which was seen to be short.
        """
        calls = result.next
        if self._most < 0 or len(calls) < 2 or calls[0].sole:
            return None
        queue = claimed.call.queue if claimed.call else None
        seconds = 0.0
        for call in calls:
            known = self.durations.find(claimed.run.graph_id, call.name)
            if known is None or known > SHORT_SECONDS or call.queue != queue:
                return None
            seconds += known + SETTLE_SECONDS
        return min(self._most, int(seconds / HOP_SECONDS))

    @contextmanager
    def part(self) -> Iterator[Part]:
        """For one message."""
        part = Part(self._join)
        try:
            yield part
        finally:
            if part.is_member:
                with self._lock:
                    self._parts.discard(part)

    def _join(self, part: Part) -> None:
        if part.is_member:
            return
        part.is_member = True
        with self._lock:
            self._parts.add(part)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="waves", daemon=True)
                self._watcher.start()

    def _watch(self) -> None:
        """Until there is no wave here any more. Sends for siblings of what takes long: the longer, the more."""
        pause = threading.Event()
        while True:
            pause.wait(LOOK_SECONDS)
            with self._lock:
                if not self._parts:
                    self._watcher = None
                    return
                parts = list(self._parts)
            for part in parts:
                work, since = part.work, part.since
                times = part.times if work is part.sent_for else 0
                if work is not None and clock.monotonic_seconds() - since > LONG_SECONDS * 2**times:
                    part.sent_for, part.times = work, times + 1
                    self._send_rest(work, 2**times)

    def _send_rest(self, work: Claimed, most: int) -> None:
        try:
            self._give_out(work, most)
        except Unavailable as error:  # whoever settles one takes the next; where nobody does, the healer finds them
            logger.warning("siblings of a long node wait", extra={"code": error.code})
        except Exception:
            logger.exception("siblings of a long node wait")
