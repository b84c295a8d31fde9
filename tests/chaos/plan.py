"""Which faults happen when: all of it from a seed, before anything runs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tests.chaos.fleet import PREFORK, THREADS, WEBS, WORKERS
from tests.chaos.servers import NAMES

ProcessKind = Literal[
    "kill child", "kill worker", "kill parent", "kill web", "kill beat", "freeze worker", "lose host", "split host",
    "wrong clock", "lose message",
]  # fmt: skip
ServerKind = Literal["kill postgres", "kill streams", "kill broker", "flush broker", "fill postgres"]
NetworkKind = Literal["cut", "black hole", "one way", "latency"]

#: Seconds between two faults, on average: all kinds have their turn in a storm of 90 s.
EVERY_SECONDS = 2.75

#: Seconds a worker is given before the first fault, and the farm after the last.
LEAD_SECONDS = 4.0
TAIL_SHARE = 0.08

#: So long a worker must be silent before its lease is over, and how much longer it is (AGENTFARM_LEASE_SECONDS).
LEASE_SECONDS = 4.0
BEYOND_SECONDS = (0.2, 3.0)

#: How long the weather stays bad; the upper end is longer than a lease.
WEATHER_SECONDS = (1.0, 6.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault.

    at_seconds  after the load has begun
    target      a process; or group-server, the way from the one to the other
    seconds     how long it lasts, where it lasts
    detail      a number for whatever else the fault has to choose
    """

    at_seconds: float
    kind: str
    target: str
    seconds: float
    detail: int

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at_seconds:6.1f} s  {self.kind}: {self.target}{lasting}"


def every_kind() -> list[str]:
    """Each of them is in every plan that is long enough."""
    network = [f"{kind} {server}" for kind in get_args(NetworkKind) for server in NAMES]
    return [*get_args(ProcessKind), *get_args(ServerKind), "publish again", *network]


def plan_faults(seed: int, seconds: float, *, kinds: Sequence[str], every_seconds: float) -> list[Planned]:
    """In order of time. All kinds once, then all again, each round in an order of its own.

    every_seconds  between two faults, on average: where there is no time for all kinds, the seed chooses
    """
    rng = random.Random(f"plan {seed}")
    first, last = LEAD_SECONDS, seconds * (1 - TAIL_SHARE)
    count = max(1, int((last - first) / every_seconds))
    chosen: list[str] = []
    while len(chosen) < count:
        chosen += rng.sample(list(kinds), len(kinds))
    slot = (last - first) / count
    return [_planned(rng, kind, first + slot * (place + rng.random())) for place, kind in enumerate(chosen[:count])]


def _planned(rng: random.Random, kind: str, at_seconds: float) -> Planned:
    detail = rng.randrange(1 << 30)
    if kind in {"freeze worker", "lose host", "split host"}:
        return Planned(at_seconds, kind, rng.choice(WORKERS), LEASE_SECONDS + rng.uniform(*BEYOND_SECONDS), detail)
    if kind in {"kill child", "kill parent"}:
        return Planned(at_seconds, kind, PREFORK, 0.0, detail)
    if kind == "wrong clock":
        return Planned(at_seconds, kind, rng.choice(THREADS), 0.0, detail)
    if kind in {"kill worker", "lose message"}:
        return Planned(at_seconds, kind, rng.choice(WORKERS), 0.0, detail)
    if kind == "kill web":
        return Planned(at_seconds, kind, rng.choice(WEBS), 0.0, detail)
    if kind in get_args(ProcessKind) or kind in get_args(ServerKind):
        return Planned(
            at_seconds, kind, kind.split(" ")[1], rng.uniform(0.2, 2.0) if kind in get_args(ServerKind) else 0.0, detail
        )
    if kind == "publish again":
        return Planned(at_seconds, kind, "broker", 0.0, detail)
    server = kind.rpartition(" ")[2]
    seconds = 0.0 if kind.startswith("cut ") else rng.uniform(*WEATHER_SECONDS)
    return Planned(at_seconds, kind, f"{rng.choice(WORKERS)}-{server}", seconds, detail)
