"""Whose request it is: `x-api-key`, or `Authorization: Bearer …`, or for development the anonymous tenant."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest
from ninja.security import APIKeyHeader

from agentfarm.api.facts import note
from agentfarm.api.process import farm
from agentfarm.errors import Unauthenticated
from agentfarm.tenancy import Tenant, tenant_scope


class TenantKey(APIKeyHeader):
    """Puts the tenant into `request.auth`. A key that is wrong is refused, also where none would be let in."""

    param_name = "X-Api-Key"

    def authenticate(self, request: HttpRequest, key: str | None) -> Tenant:
        raw = key or _bearer(request)
        tenant = farm().keys.find(raw) if raw is not None else farm().keys.anonymous()
        if tenant is None:
            raise Unauthenticated
        note(request, tenant=tenant.slug)
        return tenant


def _bearer(request: HttpRequest) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def tenant_of(request: HttpRequest) -> Tenant:
    """The tenant of an endpoint that asks for a key."""
    tenant: Any = getattr(request, "auth", None)
    assert isinstance(tenant, Tenant)  # the endpoint's `auth` saw to it
    return tenant


def in_tenant_scope(view: Callable[..., Any]) -> Callable[..., Any]:
    """All that the view does and logs belongs to its tenant."""

    @wraps(view)
    def run(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(getattr(request, "auth", None), Tenant):
            return view(request, *args, **kwargs)
        with tenant_scope(tenant_of(request)):
            return view(request, *args, **kwargs)

    return run
