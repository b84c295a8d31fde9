"""What all pages share: only the tenants that a user may see, never a count of a table, everything that is done
recorded.

A list without a tenant chosen is empty, and says so: every index of the farm's tables begins with the tenant, so that a
list over all of them would read a million rows to show fifty.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse

from agentfarm.errors import InvalidId
from agentfarm.ids import parse_uuid
from tenants.models import Tenant, record
from tenants.scoping import visible_tenants

#: How many rows a list leads to. Older ones are found by their id.
MAX_ROWS = 5000

#: Tenants offered to choose from at the side; with more, `?tenant=<id>` from the tenant's page leads there.
MAX_CHOICES = 200


class BoundedPaginator(Paginator):
    """Counts no further than MAX_ROWS, whatever the table holds."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # a changelist has nothing else
        return rows[:MAX_ROWS].count()


class Audited(admin.ModelAdmin):
    """Whatever Django's own pages add, change or delete is recorded beside its own log."""

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        self.record(request, "added", obj)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        self.record(request, "changed", obj)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        for obj in queryset:
            self.record(request, "deleted", obj)
        return super().log_deletions(request, queryset)

    def record(self, request: HttpRequest, what: str, obj: Model) -> None:
        tenant_id = obj.pk if isinstance(obj, Tenant) else getattr(obj, "tenant_id", None)
        record(request.user.get_username(), what, str(obj._meta.verbose_name), obj.pk, tenant_id=tenant_id)


class TenantFilter(admin.SimpleListFilter):
    """Chooses one of the tenants that the user may see. Comes first in list_filter: later ones rely on it."""

    title = "tenant"
    parameter_name = "tenant"
    needed = True

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = [(str(tenant.id), tenant.slug) for tenant in visible_tenants(request.user)[:MAX_CHOICES]]
        return chosen or [("", "none that you may see")]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        first, *others = super().choices(changelist)
        if self.needed and len(self.lookup_choices) > 1:  # nothing is listed before one is chosen: "All" would lie
            first = {**first, "display": "none chosen"}
        yield from (first, *others)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if (chosen := find_uuid(self.value())) is not None:
            return queryset.filter(tenant_id=chosen)
        if not self.needed or request.GET.get("q"):
            return queryset
        visible = list(visible_tenants(request.user)[:2])
        return queryset.filter(tenant_id=visible[0].id) if len(visible) == 1 else queryset.none()


class OptionalTenantFilter(TenantFilter):
    """For tables whose order needs no tenant."""

    needed = False


class Listed(Audited):
    """A list of rows that belong to tenants.

    explain   what the page shows and what can be done there; above the list
    id_field  the column that the search box looks up, exactly
    """

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 0
    sortable_by = ()
    actions: Any = None
    search_help_text = "The whole id; parts and wildcards find nothing."
    explain = ""
    id_field = "pk"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).filter(tenant_id__in=visible_tenants(request.user).values("id"))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term:
            return queryset, False
        sought = find_uuid(search_term.strip())
        if sought is None:
            self.message_user(request, "That is not an id: search takes a whole UUID.", messages.WARNING)
            return queryset.none(), False
        return queryset.filter(**{self.id_field: sought}), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {**(extra_context or {}), "explain": self.explain, "max_rows": MAX_ROWS}
        return super().changelist_view(request, context)


class ReadOnly(Listed):
    """Rows that the flow writes and the admin shows. Their pages are ours, since one column is not their whole key."""

    search_fields: ClassVar[Any] = ("pk",)  # that there are some shows the box; get_search_results does the search
    list_display_links: Any = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        raise Http404("found by tenant and id, on a page of its own")

    def history_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        raise Http404("its history is the audit")


def find_visible_tenant(request: HttpRequest, tenant_id: UUID) -> Tenant:
    """The tenant if the user may see it. Raises Http404: the same for one that does not exist."""
    tenant = visible_tenants(request.user).filter(id=tenant_id).first()
    if tenant is None:
        raise Http404("no such tenant")
    return tenant


def find_uuid(text: str | None) -> UUID | None:
    try:
        return parse_uuid(text, what="id")
    except InvalidId:
        return None
