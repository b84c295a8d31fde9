"""Decide what a new run does to a thread that has one already.

Reads nothing and writes nothing: persistence/runs.py brings the facts, under the thread's lock, and carries out the
answer in the same transaction.
"""

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["reject", "enqueue", "interrupt", "rollback"]

#: Runs that may wait behind one busy thread. A client that sends more without waiting has lost its own loop; refusing
#: tells it so, queueing would hide it.
MAX_WAITING_RUNS = 64


@dataclass(frozen=True, slots=True)
class Start:
    """The run starts now.

    first  what becomes of the runs before it: "stop" ends them as interrupted and keeps their finished steps, "undo"
           removes them with every checkpoint they made
    """

    first: Literal["nothing", "stop", "undo"] = "nothing"


@dataclass(frozen=True, slots=True)
class Wait:
    """The run starts when those before it are over."""

    place: int  # 1 is next


@dataclass(frozen=True, slots=True)
class Refuse:
    reason: str  # for the client to read


def decide_admission(strategy: Strategy, *, is_busy: bool, waiting: int) -> Start | Wait | Refuse:
    """What to do with a new run, given how its thread is now.

    is_busy  a run of the thread is running
    waiting  runs that wait for it; a thread where some wait is never idle, so they count as busy too
    """
    if not is_busy and not waiting:
        return Start()
    if strategy == "reject":
        return Refuse("Wait for it, or send another multitask_strategy than 'reject'.")
    if strategy == "enqueue":
        if waiting >= MAX_WAITING_RUNS:
            return Refuse(f"{waiting} runs already wait for it, the most that a thread takes.")
        return Wait(place=waiting + 1)
    return Start(first="undo" if strategy == "rollback" else "stop")
