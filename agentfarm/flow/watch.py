"""Station 8: replay what was missed, then follow. Streams and joins.

Nothing here polls: a follower sleeps until the run's stream has something new. It holds no thread and no database
connection while it waits.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any
from uuid import UUID

from agentfarm.engine.jsonable import to_json
from agentfarm.errors import NotFound
from agentfarm.flow.answers import read_answer
from agentfarm.flow.farm import Farm
from agentfarm.flow.settle import last_events
from agentfarm.records import Ended, Event, RunRow
from agentfarm.tenancy import Tenant

#: Before the first event: everything.
FROM_THE_START = "0-0"

#: Of every stream, whatever modes were asked for.
ALWAYS = frozenset({"metadata", "error", "end"})

TERMINAL = frozenset({"success", "error", "interrupted", "timeout"})


async def stream_run(
    farm: Farm,
    tenant: Tenant,
    run_id: UUID,
    *,
    after: str = FROM_THE_START,
    modes: Collection[str] | None = None,
    is_new: bool = False,
) -> AsyncIterator[Event | None]:
    """The run's events after the one with that id, then the new ones; ends with `end`. None is a heartbeat.

    modes   the Agent Server's stream modes to pass on; None: all that the run keeps
    is_new  it was admitted a moment ago: its stream has not expired, and the database is not asked
    raises  NotFound, StreamUnavailable
    """
    if not is_new:
        await asyncio.to_thread(_close_if_over, farm, tenant, run_id)
    async for event in farm.log.follow(tenant.id, run_id, after=after):
        if event is None or _is_wanted(event.name, modes):
            yield event


async def wait_run(
    farm: Farm, tenant: Tenant, thread_id: UUID, run_id: UUID, *, is_new: bool = False
) -> AsyncIterator[bytes]:
    """A newline each heartbeat, which keeps proxies from giving up, then the answer as one JSON value.

    The answer: the final values; with `__interrupt__` when the run waits for a human; {"__error__": {error, message}}.
    """
    last_values: bytes | None = None
    async for event in stream_run(farm, tenant, run_id, modes=("values",), is_new=is_new):
        if event is None:
            yield b"\n"
        elif event.name == "values":  # the run's own, not "values|…" of a subgraph
            last_values = event.data
    yield to_json(await asyncio.to_thread(read_answer, farm, tenant, thread_id, run_id, last_values=last_values))


def _close_if_over(farm: Farm, tenant: Tenant, run_id: UUID) -> None:
    """Give a run that was over long ago its end again: its stream has expired, and followers would wait for ever.

    Not of one that is over and not announced yet: its worker may still be sending what came before the end, and if that
    worker died, the healer closes the stream in a moment.
    """
    row = farm.runs.find(tenant, run_id)
    if row is None:
        raise NotFound(what="Run")
    if row.status in TERMINAL and row.announced_at is not None:
        farm.log.close_run(tenant.id, run_id, last_events(_ended(tenant, row)))


def _ended(tenant: Tenant, row: RunRow) -> Ended:
    error: Any = row.error
    return Ended(tenant.id, tenant.home, row.run_id, row.thread_id, row.status, error, row.forget_thread)


def _is_wanted(name: str, modes: Collection[str] | None) -> bool:
    base = name.split("|", 1)[0]
    if modes is None or base in ALWAYS:
        return True
    if base == "messages":
        return "messages-tuple" in modes
    return base.split("/", 1)[0] in modes
