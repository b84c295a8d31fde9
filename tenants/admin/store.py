"""Items of LangGraph's store: which there are, how large, and how long they live. What is in them is not shown."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from tenants.admin.base import ReadOnly, TenantFilter
from tenants.models import StoreItem


@admin.register(StoreItem)
class StoreItemAdmin(ReadOnly):
    list_display = ("namespace", "key", "tenant", "value_bytes", "created_at", "updated_at", "expires_at")
    list_filter = (TenantFilter,)
    list_select_related = ("tenant",)
    ordering: ClassVar[Any] = ("namespace", "key")
    search_help_text = "A whole namespace, its labels joined by dots, or the beginning of one; or a whole key."
    explain = (
        "An item is what graphs and clients of a tenant remember across threads. Choose a tenant at the side to see "
        "its items by namespace. An item past expires_at is seen by nobody, and is removed by the healer. Values are "
        "not shown."
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Bounded to the chosen tenant, or to those that the user may see; labels are compared whole."""
        if not search_term:
            return queryset, False
        at = search_term.strip()
        below = Q(namespace__gte=f"{at}.", namespace__lt=f"{at}/")  # '/' comes after '.'
        return queryset.filter(Q(namespace=at) | below | Q(key=at)), False
