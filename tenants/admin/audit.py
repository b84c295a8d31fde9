"""The audit: read only, here and in the database."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from tenants.admin.base import OptionalTenantFilter, ReadOnly
from tenants.models import Audit
from tenants.scoping import sees_all, visible_tenants


@admin.register(Audit)
class AuditAdmin(ReadOnly):
    list_display = ("at", "who", "what", "kind", "on", "tenant_id")
    list_filter = (OptionalTenantFilter,)
    ordering = ("-id",)
    id_field = "tenant_id"
    search_help_text = "A tenant's whole id."
    explain = "Who did what to which thing, by the admin or a command. Rows are added and never changed, by anybody."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Audit]:
        if sees_all(request.user):
            return Audit.objects.all()
        return Audit.objects.filter(tenant_id__in=visible_tenants(request.user).values("id"))
