"""Which messages that nobody took for a while are lost, and which wait in a queue.

By age alone a backlog would be sent twice, and the longer it is, the more of it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

#: A queue with fewer messages than this is short: what was published long ago and is still ready is not in it.
SHORT_QUEUE: Final = 4

#: From this age on a message may be lost however long its queue: the queue may be others' backlog by now.
LONG_SECONDS: Final = 60.0

#: So many of those are sent again, a sweep and queue. In a real backlog each is a message too many, so they stay few.
LONG_SHARE: Final = 20


class Overdue(Protocol):
    """why  "old": it was published that long ago; else it is known that nobody has it"""

    @property
    def why(self) -> str: ...

    @property
    def queue(self) -> str: ...

    @property
    def age_seconds(self) -> float: ...


T = TypeVar("T", bound=Overdue)


def judge_lost(overdue: Sequence[T], length_of: Callable[[str], int | None]) -> list[T]:
    """Which of these to send again. Asks for each queue's length once; None: it cannot be told now."""
    lengths = {queue: length_of(queue) for queue in Counter(one.queue for one in overdue if one.why == "old")}
    long: Counter[str] = Counter()
    judged = []
    for one in overdue:
        length = lengths.get(one.queue)
        is_lost = one.why != "old" or (length is not None and length < SHORT_QUEUE)
        if not is_lost and one.age_seconds >= LONG_SECONDS:
            long[one.queue] += 1
            is_lost = long[one.queue] <= LONG_SHARE
        if is_lost:
            judged.append(one)
    return judged
