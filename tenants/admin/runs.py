"""Runs: what happened in one, node by node; cancel one that is not over, retry one that failed."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from agentfarm.errors import AgentFarmError
from tenants.admin.actions import cancel, retry
from tenants.admin.base import ReadOnly, TenantFilter, find_visible_tenant
from tenants.line import MAX_EXECUTIONS, executions_of_run
from tenants.models import Run, Tenant, record
from tenants.scoping import may_operate

#: The status filter looks among the newest so many runs of a tenant: no index serves it, and all of them may be a
#: million.
NEWEST = 10_000


class StatusFilter(admin.SimpleListFilter):
    title = f"status, among the newest {NEWEST:,} runs"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        statuses = ("pending", "running", "success", "error", "interrupted", "timeout")
        return [(status, status) for status in statuses]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Run]) -> QuerySet[Run]:
        if self.value() is None:
            return queryset
        newest = queryset.order_by("-run_id").values("run_id")[:NEWEST]
        return queryset.filter(run_id__in=newest, status=self.value())


class RunList(ChangeList):
    def url_for_result(self, result: Any) -> str:
        return run_url(result.tenant_id, result.run_id)


@admin.register(Run)
class RunAdmin(ReadOnly):
    list_display = ("run_id", "tenant", "graph_id", "status", "created_at", "finished_at")
    list_display_links = ("run_id",)
    list_filter = (TenantFilter, StatusFilter)
    list_select_related = ("tenant",)
    ordering = ("-run_id",)
    id_field = "run_id"
    explain = (
        "A run moves a thread on. Choose a tenant at the side to see its runs, newest first, or search for an id. "
        "A run's page shows its node executions and lets you cancel or retry it."
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RunList

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        here = "<uuid:tenant_id>/<uuid:run_id>/"
        return [
            path(here, wrap(self.run_view), name="tenants_run_page"),
            path(f"{here}cancel/", wrap(require_POST(self.cancel_view)), name="tenants_run_cancel"),
            path(f"{here}retry/", wrap(require_POST(self.retry_view)), name="tenants_run_retry"),
            *super().get_urls(),
        ]

    def run_view(self, request: HttpRequest, tenant_id: UUID, run_id: UUID) -> HttpResponse:
        """The run's page. 404 for another's run, as for one that is not there."""
        tenant, run = self._find(request, tenant_id, run_id)
        executions = executions_of_run(run)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": f"Run {run.run_id}",
            "tenant": tenant,
            "run": run,
            "executions": executions,
            "is_cut": len(executions) == MAX_EXECUTIONS,
            "may_operate": may_operate(request.user, tenant.id),
        }
        return TemplateResponse(request, "admin/tenants/run.html", context)

    def cancel_view(self, request: HttpRequest, tenant_id: UUID, run_id: UUID) -> HttpResponse:
        """POST: end the run; with rollback=1 undo it too."""
        tenant, run = self._find(request, tenant_id, run_id, to_operate=True)
        rollback = request.POST.get("rollback") == "1"
        what = "cancelled and undid" if rollback else "cancelled"
        if self._ask(request, tenant, run, what, lambda: cancel(tenant.in_flow(), run, rollback=rollback)):
            self.message_user(request, f"The run is {'undone' if rollback else 'cancelled'}.", messages.SUCCESS)
            if rollback:  # its row is gone
                return redirect("admin:tenants_thread_line", tenant.id, run.thread_id)
        return redirect(run_url(tenant.id, run.run_id))

    def retry_view(self, request: HttpRequest, tenant_id: UUID, run_id: UUID) -> HttpResponse:
        """POST: go on from the last checkpoint, as a new run."""
        tenant, run = self._find(request, tenant_id, run_id, to_operate=True)
        new_id = self._ask(request, tenant, run, "retried", lambda: retry(tenant.in_flow(), run))
        if new_id is None:
            return redirect(run_url(tenant.id, run.run_id))
        self.message_user(request, "This new run goes on from the thread's last checkpoint.", messages.SUCCESS)
        return redirect(run_url(tenant.id, new_id))

    def _find(
        self, request: HttpRequest, tenant_id: UUID, run_id: UUID, *, to_operate: bool = False
    ) -> tuple[Tenant, Run]:
        if not self.has_view_permission(request):
            raise PermissionDenied
        tenant = find_visible_tenant(request, tenant_id)
        run = Run.objects.filter(tenant_id=tenant.id, run_id=run_id).first()
        if run is None:
            raise Http404("no such run")
        if to_operate and not may_operate(request.user, tenant.id):
            raise PermissionDenied
        return tenant, run

    def _ask(self, request: HttpRequest, tenant: Tenant, run: Run, what: str, act: Callable[[], UUID]) -> UUID | None:
        """Record it, then do it: the audit knows all that is done. None: refused, and the user was told why."""
        who = request.user.get_username()
        record(who, what, "run", run.run_id, tenant_id=tenant.id)
        try:
            return act()
        except AgentFarmError as error:
            record(who, f"was refused ({error.code}): {what}", "run", run.run_id, tenant_id=tenant.id)
            self.message_user(request, str(error), messages.ERROR)
            return None


def run_url(tenant_id: UUID, run_id: UUID) -> str:
    """The page of a run."""
    return reverse("admin:tenants_run_page", args=[tenant_id, run_id])
