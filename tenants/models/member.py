"""Which users of the admin belong to a tenant, and what they may do there (scoping.py)."""

from typing import ClassVar

from django.conf import settings
from django.db import models

from tenants.models.tenant import Tenant


class Member(models.Model):
    class Role(models.TextChoices):
        OWNER = "owner", "owner: sees, acts, and manages its keys"
        OPERATOR = "operator", "operator: sees, cancels and retries runs"
        VIEWER = "viewer", "viewer: sees"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="members")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.VIEWER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "user"], name="member_once_a_tenant")]

    def __str__(self) -> str:
        return f"{self.user} in {self.tenant}"
