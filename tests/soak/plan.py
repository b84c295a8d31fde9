"""Which faults a soak has, from a seed. Both webs and worker `one` are spared: they see all that befalls the others
and live as long as the soak does, which a leak needs to be seen."""

from collections.abc import Sequence
from dataclasses import replace

from tests.chaos.fleet import PREFORK
from tests.chaos.plan import Planned, plan_faults

SPARED, VICTIM = "one", "two"

#: A kind that is named twice happens twice as often.
PROCESSES = (
    *("kill child",) * 4, *("kill worker",) * 3, "kill parent", "kill beat", "freeze worker",
    "cut postgres", "cut streams", "cut broker", "publish again", "latency postgres",
)  # fmt: skip
SERVERS = ("kill postgres", "kill streams", "kill broker", "flush broker")

#: Servers die only in this first part of the soak: a server's own memory and tables are judged by what comes after.
SERVERS_SHARE = 0.3


def plan_soak(seed: int, seconds: float, *, every_seconds: float) -> list[Planned]:
    first = seconds * SERVERS_SHARE
    early = plan_faults(seed, first, kinds=(*SERVERS, *PROCESSES), every_seconds=every_seconds)
    late = plan_faults(seed + 1, seconds - first, kinds=PROCESSES, every_seconds=every_seconds)
    moved = [replace(one, at_seconds=one.at_seconds + first) for one in late]
    return [_spare(one) for one in [*early, *moved]]


def _spare(one: Planned) -> Planned:
    kills = one.kind in {"kill worker", "freeze worker"}
    return replace(one, target=VICTIM) if kills and one.target in {SPARED, PREFORK} else one


def kinds(plan: Sequence[Planned]) -> str:
    """ "3 kill child, 1 kill beat"."""
    counted = {kind: sum(one.kind == kind for one in plan) for kind in sorted({one.kind for one in plan})}
    return ", ".join(f"{count} {kind}" for kind, count in counted.items())
