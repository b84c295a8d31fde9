"""Which tenants a user of the admin may see, and for which he may act.

Superusers run the farm: all. Other staff: the tenants they are members of, by their role. Row-level security cannot
help here, since the admin's own role sees every tenant; so every page of the admin asks this, and a test asks every
page.
"""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from tenants.models import Member, Tenant

_MAY_OPERATE = (Member.Role.OWNER, Member.Role.OPERATOR)
_MAY_MANAGE = (Member.Role.OWNER,)


def sees_all(user: Any) -> bool:
    """Whether this user runs the farm."""
    return bool(user.is_active and user.is_superuser)


def visible_tenants(user: Any) -> QuerySet[Tenant]:
    """The tenants whose rows this user may see, by slug."""
    tenants = Tenant.objects.all()
    return tenants if sees_all(user) else tenants.filter(members__user_id=user.pk)


def may_operate(user: Any, tenant_id: UUID) -> bool:
    """Whether he may cancel and retry its runs."""
    return _has_role(user, tenant_id, _MAY_OPERATE)


def may_manage(user: Any, tenant_id: UUID) -> bool:
    """Whether he may issue and revoke its keys."""
    return _has_role(user, tenant_id, _MAY_MANAGE)


def _has_role(user: Any, tenant_id: UUID, roles: tuple[str, ...]) -> bool:
    if sees_all(user):
        return True
    return Member.objects.filter(user_id=user.pk, tenant_id=tenant_id, role__in=roles).exists()
