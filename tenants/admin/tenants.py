"""Tenants: create one, deactivate one, its members, and a new key for it."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables

from tenants.admin.base import Audited, BoundedPaginator, find_visible_tenant
from tenants.models import APIKey, Member, Tenant
from tenants.scoping import may_manage, visible_tenants


class MemberInline(admin.TabularInline):
    model = Member
    extra = 0
    autocomplete_fields = ("user",)
    verbose_name_plural = "Members: users of this admin who may see this tenant (superusers see all)"


class KeyForm(forms.Form):
    name = forms.CharField(
        max_length=100, label="What is it for?", help_text="As in 'billing service, production'. Shown in the list."
    )


@admin.register(Tenant)
class TenantAdmin(Audited):
    list_display = ("slug", "name", "is_active", "home", "created_at")
    list_filter = ("is_active",)
    search_fields = ("slug", "name")
    search_help_text = "Slug or name, or a part of one."
    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 0
    inlines = (MemberInline,)
    readonly_fields = ("id", "home", "created_at")
    change_form_template = "admin/tenants/tenant.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        return visible_tenants(request.user)

    def get_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        all_fields = ("slug", "name", "is_active", "run_ahead", "persistence", "id", "home", "created_at")
        return all_fields if obj else ("slug", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        return ("slug", *self.readonly_fields) if obj else ()

    def get_inlines(self, request: HttpRequest, obj: Tenant | None) -> tuple[type[admin.TabularInline], ...]:
        return (MemberInline,) if obj and may_manage(request.user, obj.id) else ()

    def has_change_permission(self, request: HttpRequest, obj: Tenant | None = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or may_manage(request.user, obj.id))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its threads would stay behind without an owner; is_active is the switch

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(never_cache(self.issue_key_view))
        return [path("<uuid:tenant_id>/issue-key/", view, name="tenants_issue_key"), *super().get_urls()]

    @sensitive_variables("new")
    def issue_key_view(self, request: HttpRequest, tenant_id: UUID) -> HttpResponse:
        """A form, then the key: in this answer alone, not in a message, which would be stored with the session."""
        tenant = find_visible_tenant(request, tenant_id)
        if not may_manage(request.user, tenant.id):
            raise PermissionDenied
        form = KeyForm(request.POST or None)
        key_text = None
        if request.method == "POST" and form.is_valid():
            with transaction.atomic():
                row, new = APIKey.issue(tenant, form.cleaned_data["name"])
                self.record(request, "issued", row)
            key_text = new.text
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": f"A key for {tenant}",
            "tenant": tenant,
            "form": form,
            "key": key_text,
        }
        return TemplateResponse(request, "admin/tenants/issue_key.html", context)
