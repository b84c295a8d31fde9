"""The only place that asks what time it is.

Leases, ages and the order of checkpoints go by Postgres' clock; this one is for what never decides
between workers: names of things, log lines, how long something took here.
"""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """An aware UTC datetime."""
    return datetime.now(UTC)


def monotonic_seconds() -> float:
    """Seconds from an arbitrary start; never goes back."""
    return time.monotonic()
