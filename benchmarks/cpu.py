"""How much CPU processes used, to the nanosecond and with their threads that are gone. Linux only.

The kernel's CPU clock of a process (clock_getcpuclockid(3)). /proc has it in ticks of 10 ms, or by thread; and
LangGraph starts and ends threads in each run, whose time would be missing: half of all, when it was tried.
"""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")

#: CPUCLOCK_SCHED of include/linux/posix-timers.h: the time that the scheduler counted, of all threads together.
SCHEDULED = 2


def is_known() -> bool:
    return sys.platform == "linux"


def milliseconds(pids: Iterable[int]) -> float:
    """Since each began, together. A process that is gone counts 0; so does every one on a system other than Linux."""
    return sum(_seconds(pid) for pid in pids) * 1e3 if is_known() else 0.0


def family(pid: int) -> list[int]:
    """A process and all below it: Postgres is a postmaster and one backend a connection."""
    try:
        tasks = (PROC / str(pid) / "task").glob("*/children")
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:  # it ended while it was asked
        return [pid]
    return [pid, *(each for child in children for each in family(child))]


def _seconds(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | SCHEDULED)
    except OSError:
        return 0.0
