"""Threads: one tenant's, newest first, and the line of each: which node ran when, where and how often."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from tenants.admin.base import ReadOnly, TenantFilter, find_visible_tenant
from tenants.line import Execution, executions_of_run, sizes_of_thread
from tenants.models import Run, Thread

#: What one page shows of a thread: the newest runs, and of each so many node executions.
MAX_RUNS = 20
MAX_EXECUTIONS_A_RUN = 200


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run of the thread with its node executions, for the template."""

    run: Run
    executions: list[Execution]


class ThreadList(ChangeList):
    def url_for_result(self, result: Any) -> str:
        return thread_url(result.tenant_id, result.thread_id)


@admin.register(Thread)
class ThreadAdmin(ReadOnly):
    list_display = ("thread_id", "tenant", "graph_id", "status", "created_at", "updated_at")
    list_display_links = ("thread_id",)
    list_filter = (TenantFilter,)
    list_select_related = ("tenant",)
    ordering = ("-created_at",)
    id_field = "thread_id"
    explain = (
        "A thread is one conversation. Choose a tenant at the side to see its threads, newest first, or search for an "
        "id. A thread's page shows its runs and their node executions step by step; what was said in it is not shown."
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ThreadList

    def get_urls(self) -> list[URLPattern]:
        line = self.admin_site.admin_view(self.line_view)
        return [path("<uuid:tenant_id>/<uuid:thread_id>/", line, name="tenants_thread_line"), *super().get_urls()]

    def line_view(self, request: HttpRequest, tenant_id: UUID, thread_id: UUID) -> HttpResponse:
        """The thread's line. 404 for another's thread, as for one that is not there."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        tenant = find_visible_tenant(request, tenant_id)
        thread = Thread.objects.filter(tenant_id=tenant.id, thread_id=thread_id).first()
        if thread is None:
            raise Http404("no such thread")
        runs = list(
            Run.objects.filter(tenant_id=tenant.id, thread_id=thread_id).order_by("-created_at")[: MAX_RUNS + 1]
        )
        lines = [RunLine(run, executions_of_run(run, limit=MAX_EXECUTIONS_A_RUN)) for run in runs[:MAX_RUNS]]
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": f"Thread {thread.thread_id}",
            "tenant": tenant,
            "thread": thread,
            "lines": lines,
            "more_runs": len(runs) > MAX_RUNS,
            "max_executions": MAX_EXECUTIONS_A_RUN,
            "checkpoints": sizes_of_thread(tenant.id, thread_id),
        }
        return TemplateResponse(request, "admin/tenants/thread.html", context)


def thread_url(tenant_id: UUID, thread_id: UUID) -> str:
    """The page of a thread."""
    return reverse("admin:tenants_thread_line", args=[tenant_id, thread_id])
