"""Imported by a Python whose wall clock libfaketime moves (faults.py), before anything else.

Its monotonic clock has to stay true: waits end by the kernel's, and one of an hour would be the harness' own fault.
With it true, libfaketime 0.9.10 refuses the call by which CPython sleeps (clock_nanosleep, EINVAL); select sleeps too.
"""

import select
import time


def _sleep(seconds: float, /) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = _sleep
