"""Station 7: a run is over. Who waits for it is told, and the run that waited behind it begins.

The terminal status is in Postgres before this is called, so that a client which reads `end` and asks finds it. A worker
that dies in between leaves the run unannounced, which the healer finds (heal.py).
"""

import logging
from collections.abc import Iterable

from agentfarm.engine.jsonable import to_json
from agentfarm.errors import AgentFarmError
from agentfarm.flow.dispatch import dispatch
from agentfarm.flow.farm import Farm
from agentfarm.records import Committed, Ended, Event

logger = logging.getLogger(__name__)


def last_events(ended: Ended) -> list[Event]:
    """What closes the run's stream: why it failed, if it did, then `end`."""
    events = []
    if ended.error is not None:
        told = {key: ended.error[key] for key in ("error", "message") if key in ended.error}
        events.append(Event("error", to_json(told)))
    events.append(Event("end", to_json({"status": ended.status})))
    return events


def tell(farm: Farm, committed: Committed) -> None:
    """Publish what a commit made ready, and announce the run that it ended: for one that no message waits for."""
    dispatch(farm, committed.ready)
    if committed.ended is not None:
        announce(farm, [committed.ended])


def announce(farm: Farm, ended: Iterable[Ended]) -> int:
    """Close the streams of these runs. What could not be told now is told by the healer: nothing of it is raised.

    returns  how many were told. After the first that could not be, the others are left as well: each would wait as long
    """
    told = 0
    for run in ended:
        try:
            farm.log.close_run(run.tenant_id, run.run_id, last_events(run))
            farm.runs.mark_announced(run)
        except AgentFarmError as error:
            logger.warning("the end of a run is told later", extra={"run_id": str(run.run_id), "code": error.code})
            break
        told += 1
    return told
