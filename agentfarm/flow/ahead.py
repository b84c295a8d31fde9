"""How far a worker goes on with a run by itself, instead of sending a message for each of its nodes.

A node costs a worker less where no message comes before it. Each is claimed, leased, fenced and committed as ever;
what changes is who is asked to execute it. Nothing here is about safety: whoever stops, or dies, leaves what any
worker leaves.
"""

from typing import Final

from agentfarm import clock
from agentfarm.flow.ports import Backlog
from agentfarm.messages import at_build
from agentfarm.records import Claimed
from agentfarm.run_options import RunAhead

#: A turn: for so long a message's worker goes on although others wait, as a scheduler lets a process have its slice.
#: Who waits is served sooner by that, since a node that is sent for costs more CPU than one that is not. 30 chains
#: of no-op nodes on two full cores and nothing else: 1.5 x the nodes a second of a message each on Valkey, 1.4 x on
#: RabbitMQ (benchmarks, table 1, medians of three rounds). A turn is about three such nodes of sixteen threads.
TURN_SECONDS: Final = 0.25

#: So long a message goes on among siblings (wave.py). Then another message does, behind whatever waits in the queue.
WAVE_SECONDS: Final = 1.0


class Quiet:
    """A Backlog where nobody ever waits: of processes that execute nothing, and of tests."""

    is_ending = False

    def has_work(self, queue: str) -> bool:
        return False


class Ahead:
    """Of one message: how many more nodes of its run, and until when.

    claimed  what the message named
    most     as far as the operator lets any run go
    """

    def __init__(self, claimed: Claimed, most: RunAhead, backlog: Backlog) -> None:
        options = claimed.run.options
        # What was lost with a worker is executed by itself: it may be what kills, and this the quarantine. And an
        # advance that was sent for may be in another queue than the nodes that it follows.
        self._is_at_home = claimed.attempt == 1 and claimed.kind != "advance"
        self._left = min(options.run_ahead_nodes, most.nodes or 0) if self._is_at_home else 0
        self._seconds = min(options.run_ahead_seconds, most.seconds or 0.0)
        self._began = clock.monotonic_seconds()
        self._backlog = backlog

    @property
    def may_spread(self) -> bool:
        """Whether siblings that its commits make ready may be a wave (wave.py)."""
        return self._is_at_home and not self._backlog.is_ending

    def goes_on_after(self, work: Claimed) -> bool:
        """Whether the commit of `work` is to lease the next node to this worker."""
        return self._left > 0 and self._has_turn(work, self._seconds)

    def goes_on_among(self, work: Claimed) -> bool:
        """Whether the commit of `work`, one of a wave, is to lease the next sibling to this worker."""
        return self._has_turn(work, WAVE_SECONDS)

    def _has_turn(self, work: Claimed, most_seconds: float) -> bool:
        elapsed = clock.monotonic_seconds() - self._began
        if self._backlog.is_ending or elapsed >= most_seconds:
            return False
        queue = at_build((work.call.queue if work.call else None) or "", work.message.build)
        return elapsed < TURN_SECONDS or not self._backlog.has_work(queue)

    def note(self) -> None:
        """It went on with one more."""
        self._left -= 1
