"""Worker processes. No tenant's data: only those who run the farm see them."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from tenants.admin.base import ReadOnly
from tenants.models import Worker


@admin.register(Worker)
class WorkerAdmin(ReadOnly):
    list_display = ("name", "host", "pid", "started_at", "beat_at", "ended_at")
    ordering = ("-worker",)
    search_fields = ()
    explain = (
        "A row is one process; a prefork worker has one for each child. beat_at is the last sign of life. A process "
        "that died is noticed at once by its database lock, and its node executions go to others. Flower shows queues."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return Worker.objects.all()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)
