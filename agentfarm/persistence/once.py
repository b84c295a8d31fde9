"""The same request sent twice is one run: what a client names its request by, in the transaction that admits the run.

Two of one name that come at the same time: the second waits for the first one's commit, and finds its run.
"""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, LargeBinary, bindparam, delete, text

from agentfarm.errors import Conflict, NameReused
from agentfarm.persistence.tables import idempotency_key
from agentfarm.records import Once
from agentfarm.tenancy import Tenant

#: How long the same request is the same run. A client has given up long before; the healer removes what is older.
KEPT_SECONDS: Final = 24 * 3600.0

_TAKE: Final = text(
    "SELECT run_id, is_same FROM farm.take_name(:tenant, :name, :digest, :run, make_interval(secs => :kept))"
).bindparams(bindparam("digest", type_=LargeBinary))


def take_name(connection: Connection, tenant: Tenant, once: Once, run_id: UUID) -> UUID | None:
    """None: the name is this run's, if the transaction commits. Else the run that has it.

    raises  NameReused, where that run was asked for something else
    """
    given = {"tenant": tenant.id, "name": once.name, "digest": once.digest, "run": run_id, "kept": KEPT_SECONDS}
    first: Any = connection.execute(_TAKE, given).one()
    if first.run_id is not None and not first.is_same:
        raise NameReused
    found: UUID | None = first.run_id
    return found


def leave_name(connection: Connection, tenant: Tenant, once: Once) -> None:
    """No run was made after all."""
    k = idempotency_key.c
    connection.execute(delete(idempotency_key).where(k.tenant_id == tenant.id, k.name == once.name))


def gone() -> Conflict:
    """The run that a name was given to has been deleted: the same request is not a new run for that."""
    return Conflict(why="the run of this Idempotency-Key is over and deleted; send a new key for a new run")
