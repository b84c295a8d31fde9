"""The tenant in scope: who the current request or message belongs to.

Telemetry reads it to name a tenant without being handed one; nothing that protects data rests on it
(row-level security does, which gets its tenant inside each transaction). Asking without one raises.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import UUID

from agentfarm.errors import NoTenantInScope
from agentfarm.run_options import RunChoices


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who owns the data, where it lives, and how its runs are executed where they do not say."""

    id: UUID
    slug: str
    home: str = "main"
    choices: RunChoices = field(default_factory=RunChoices, compare=False)


_current: ContextVar[Tenant | None] = ContextVar("agentfarm_tenant", default=None)


@contextmanager
def tenant_scope(tenant: Tenant) -> Iterator[Tenant]:
    """Everything inside belongs to this tenant."""
    token = _current.set(tenant)
    try:
        yield tenant
    finally:
        _current.reset(token)


def current_tenant() -> Tenant:
    """The tenant in scope. Raises NoTenantInScope; never answers "all"."""
    tenant = _current.get()
    if tenant is None:
        raise NoTenantInScope
    return tenant


def find_tenant() -> Tenant | None:
    """The tenant in scope, or None outside of any."""
    return _current.get()
