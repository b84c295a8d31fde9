"""API keys: listed by tenant, revoked by an action. They are issued on their tenant's page."""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from tenants.admin.base import Listed, OptionalTenantFilter
from tenants.models import APIKey
from tenants.scoping import may_manage


@admin.register(APIKey)
class APIKeyAdmin(Listed):
    list_display = ("prefix", "tenant", "name", "created_at", "last_used_at", "revoked_at")
    list_filter = (OptionalTenantFilter,)
    list_select_related = ("tenant",)
    search_fields = ("pk",)
    fields = readonly_fields = ("id", "tenant", "name", "prefix", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)
    explain = (
        "A key's secret is not stored and cannot be shown again. Issue a new one on its tenant's page. "
        "A revoked key opens nothing a second later, and stays revoked."
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.action(description="Revoke the selected keys", permissions=("view",))
    def revoke(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> None:
        revoked = 0
        for key in queryset:
            if not may_manage(request.user, key.tenant_id):
                self.message_user(request, f"You may not revoke {key}: ask an owner of its tenant.", messages.ERROR)
                continue
            with transaction.atomic():
                if key.revoke():
                    self.record(request, "revoked", key)
                    revoked += 1
        self.message_user(request, f"{revoked} key(s) revoked; those revoked before stay so.", messages.SUCCESS)
