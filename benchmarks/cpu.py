"""How much CPU processes used. Linux only: elsewhere the figures are left out.

From schedstat, in nanoseconds: the 10 ms ticks of utime and stime miss most of what short bursts use.
"""

from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def is_known() -> bool:
    return (PROC / "self" / "schedstat").exists()


def milliseconds(pids: Iterable[int]) -> float:
    """Of all threads of these processes since they began. A process that is gone counts 0."""
    return sum(_thread_nanoseconds(pid) for pid in pids) / 1e6


def family(pid: int) -> list[int]:
    """A process and all below it: Postgres is a postmaster and one backend a connection."""
    try:
        children = [
            int(child) for task in (PROC / str(pid) / "task").glob("*/children") for child in task.read_text().split()
        ]
    except OSError:  # it ended while it was asked
        return [pid]
    return [pid, *(each for child in children for each in family(child))]


def _thread_nanoseconds(pid: int) -> int:
    total = 0
    for stat in (PROC / str(pid) / "task").glob("*/schedstat"):
        try:
            total += int(stat.read_text().split()[0])
        except OSError:  # the thread ended between the listing and the reading
            continue
    return total
