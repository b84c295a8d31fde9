"""How a run is executed, where there is a choice. None of it changes what the run answers.

Who says something: the run itself (`config.agentfarm`, read by api/schemas.py), else its assistant (its graph's entry
in langgraph.json), else its tenant (tenants/models). What is decided of that when the run is admitted travels in its
spec, so that each claim brings it along.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

Persistence = Literal["postgres", "redis"]

#: Most that may be asked for; how much of that a worker does is its operator's choice (AGENTFARM_RUN_AHEAD_…).
MAX_AHEAD_NODES: Final = 1000
MAX_AHEAD_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class RunAhead:
    """How far a worker may go on with a thread's next nodes in one message. None: as far as the operator lets it."""

    nodes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RunChoices:
    """What somebody says about how runs are executed. None: nothing, so that the next one is asked."""

    run_ahead: bool | RunAhead | None = None
    persistence: Persistence | None = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What was decided for one run.

    run_ahead_nodes    how many nodes a worker may go on with after the one that a message names; 0: none
    run_ahead_seconds  … and until how long after the message was begun
    persistence        where its state is between its nodes
    waits_for_disk     what it commits before its end is on Postgres' disk before anybody goes on from it. False: the
                       client asked for durability "async", and a Postgres that crashes may cost its last nodes, which
                       are executed again
    """

    run_ahead_nodes: int = 0
    run_ahead_seconds: float = 0.0
    persistence: Persistence = "postgres"
    waits_for_disk: bool = True

    def to_dict(self) -> dict[str, Any]:
        """What differs from the default: each claim brings it along."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}


def read_choices(said: Mapping[str, Any]) -> RunChoices:
    """`run_ahead` and `persistence` as an operator writes them. Raises ValueError: a sentence without its full stop."""
    ahead, persistence = said.get("run_ahead"), said.get("persistence")
    if persistence not in (None, "postgres", "redis"):
        raise ValueError('"persistence" is "postgres" or "redis"')
    if isinstance(ahead, dict):
        return RunChoices(_read_limits(ahead), persistence)
    if not (ahead is None or isinstance(ahead, bool)):
        raise ValueError(_AHEAD)
    return RunChoices(ahead, persistence)


_AHEAD: Final = (
    f'"run_ahead" is true, false, or how far: {{"nodes": 1 to {MAX_AHEAD_NODES}, "seconds": up to {MAX_AHEAD_SECONDS}}}'
)


def _read_limits(said: Mapping[str, Any]) -> RunAhead:
    nodes, seconds = said.get("nodes"), said.get("seconds")
    is_known = set(said) <= {"nodes", "seconds"}
    is_count = nodes is None or (type(nodes) is int and 1 <= nodes <= MAX_AHEAD_NODES)
    is_time = seconds is None or (type(seconds) in (int, float) and 0 < seconds <= MAX_AHEAD_SECONDS)
    if not (is_known and is_count and is_time):
        raise ValueError(_AHEAD)
    return RunAhead(nodes, seconds)


def decide_options(choices: Iterable[RunChoices], *, most: RunAhead, durability: str | None = None) -> RunOptions:
    """Each question is answered by the first who says something about it.

    choices     the run's own first, then its assistant's, its tenant's last
    most        how far a run goes ahead that does not say how far
    durability  what the client asked for, if anything
    """
    asked = list(choices)
    ahead = next((one.run_ahead for one in asked if one.run_ahead is not None), False)
    persistence: Persistence = next((one.persistence for one in asked if one.persistence is not None), "postgres")
    waits_for_disk = durability != "async"
    if ahead is False:
        return RunOptions(persistence=persistence, waits_for_disk=waits_for_disk)
    limits = ahead if isinstance(ahead, RunAhead) else RunAhead()
    return RunOptions(
        run_ahead_nodes=(most.nodes or 0) if limits.nodes is None else limits.nodes,
        run_ahead_seconds=(most.seconds or 0.0) if limits.seconds is None else limits.seconds,
        persistence=persistence,
        waits_for_disk=waits_for_disk,
    )
