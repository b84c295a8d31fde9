"""What the admin does to runs: calls into the flow, the same as the API's.

The wiring is imported when an action is taken: it loads LangGraph and every graph, which `migrate` and the list of
users need not wait for.
"""

from uuid import UUID

from agentfarm.tenancy import Tenant, tenant_scope
from tenants.models import DeadLetter, Run


def cancel(tenant: Tenant, run: Run, *, rollback: bool) -> UUID:
    """End the run, and answer its id. Raises NotFound when it is over, Unavailable."""
    from agentfarm import wiring
    from agentfarm.flow.cancel import cancel_run

    with tenant_scope(tenant):
        cancel_run(wiring.farm(), tenant, run.thread_id, run.run_id, action="rollback" if rollback else "interrupt")
    return run.run_id


def dismiss(tenant: Tenant, run: Run | DeadLetter) -> UUID:
    """What was buried with the run is seen to. Raises NotFound where somebody was faster, Unavailable."""
    from agentfarm import wiring

    with tenant_scope(tenant):
        wiring.farm().runs.dismiss(tenant, run.run_id)
    return run.run_id


def retry(tenant: Tenant, run: Run | DeadLetter) -> UUID:
    """Go on from the last checkpoint; the id of the new run. Raises NotFound, Conflict, Unavailable."""
    from agentfarm import wiring
    from agentfarm.flow.admit import retry_run

    with tenant_scope(tenant):
        return retry_run(wiring.farm(), tenant, run.thread_id, run.run_id).run_id
