"""How a run is executed, where there is a choice. None of it changes what the run answers.

Who says something: the run itself (`config.agentfarm`, read by api/schemas.py), else its tenant (tenants/models). What
is decided of that when the run is admitted travels in its spec, so that each claim brings it along.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
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
    """

    run_ahead_nodes: int = 0
    run_ahead_seconds: float = 0.0
    persistence: Persistence = "postgres"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def decide_options(choices: Iterable[RunChoices], *, most: RunAhead) -> RunOptions:
    """Each question is answered by the first who says something about it.

    choices  the run's own first, its tenant's last
    most     how far a run goes ahead that does not say how far
    """
    asked = list(choices)
    ahead = next((one.run_ahead for one in asked if one.run_ahead is not None), False)
    persistence: Persistence = next((one.persistence for one in asked if one.persistence is not None), "postgres")
    if ahead is False:
        return RunOptions(persistence=persistence)
    limits = ahead if isinstance(ahead, RunAhead) else RunAhead()
    return RunOptions(
        run_ahead_nodes=(most.nodes or 0) if limits.nodes is None else limits.nodes,
        run_ahead_seconds=(most.seconds or 0.0) if limits.seconds is None else limits.seconds,
        persistence=persistence,
    )
