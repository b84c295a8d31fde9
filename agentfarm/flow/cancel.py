"""Beside the line: stop a run.

Its open node executions are fenced out in the same transaction that ends it: a node that is still running finishes
into nothing. The finished supersteps stay (interrupt), or are undone with the run (rollback).
"""

from typing import Literal
from uuid import UUID

from agentfarm.flow.dispatch import dispatch
from agentfarm.flow.farm import Farm
from agentfarm.flow.settle import announce
from agentfarm.tenancy import Tenant


def cancel_run(
    farm: Farm, tenant: Tenant, thread_id: UUID, run_id: UUID, *, action: Literal["interrupt", "rollback"] = "interrupt"
) -> None:
    """End a pending or running run. Raises NotFound for one that is unknown or over, as the Agent Server does."""
    ended, ready = farm.runs.cancel(tenant, thread_id, run_id, rollback=action == "rollback")
    announce(farm, [ended])
    dispatch(farm, ready)
