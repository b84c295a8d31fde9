"""Dead letters: node executions that took their workers with them until they were buried, and their runs with them."""

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from agentfarm import tenancy
from agentfarm.errors import AgentFarmError
from tenants.admin.actions import dismiss, retry
from tenants.admin.base import MAX_CHOICES, OptionalTenantFilter, ReadOnly
from tenants.admin.runs import run_url
from tenants.line import losses
from tenants.models import DeadLetter, record
from tenants.scoping import may_operate, visible_tenants


class _ColumnFilter(admin.SimpleListFilter):
    """By a column's values, of the tenants that the user may see."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        mine = DeadLetter.objects.filter(tenant_id__in=visible_tenants(request.user).values("id"))
        found = mine.order_by(str(self.parameter_name)).values_list(str(self.parameter_name), flat=True).distinct()
        return [(value, value) for value in found[:MAX_CHOICES]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        return queryset if self.value() is None else queryset.filter(**{str(self.parameter_name): self.value()})


class GraphFilter(_ColumnFilter):
    title = "graph"
    parameter_name = "graph_id"


class NodeFilter(_ColumnFilter):
    title = "node"
    parameter_name = "node"


class DeadList(ChangeList):
    def url_for_result(self, result: Any) -> str:
        return run_url(result.tenant_id, result.run_id)


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnly):
    list_display = ("run_id", "tenant", "graph_id", "node", "attempts", "what_happened", "buried_at")
    list_display_links = ("run_id",)
    list_filter = (OptionalTenantFilter, GraphFilter, NodeFilter, "buried_at")
    list_select_related = ("tenant",)
    ordering: ClassVar[Any] = ("-buried_at",)
    id_field = "run_id"
    actions = ("retry_chosen", "dismiss_chosen")
    explain = (
        "A node that took its workers with it, until its attempts were used up and its run ended as an error. When the "
        "cause is mended, retry the runs from their last checkpoints; dismiss what needs nothing more. Choose a tenant "
        "at the side to see its own alone."
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return DeadList

    @admin.display(description="what happened")
    def what_happened(self, letter: DeadLetter) -> str:
        return "; ".join(str(loss) for loss in losses(letter.lost_to))

    @admin.action(description="Retry from the last checkpoint")
    def retry_chosen(self, request: HttpRequest, chosen: QuerySet[DeadLetter]) -> None:
        self._do(request, chosen, "retried", retry)

    @admin.action(description="Dismiss")
    def dismiss_chosen(self, request: HttpRequest, chosen: QuerySet[DeadLetter]) -> None:
        self._do(request, chosen, "dismissed", dismiss)

    def _do(
        self,
        request: HttpRequest,
        chosen: QuerySet[DeadLetter],
        what: str,
        act: Callable[[tenancy.Tenant, DeadLetter], UUID],
    ) -> None:
        """Each by itself, recorded before it is done; what is refused is told, and the others are done."""
        done, who = 0, request.user.get_username()
        for letter in chosen.select_related("tenant"):
            if not may_operate(request.user, letter.tenant_id):
                self.message_user(request, f"{letter}: only its owners and operators may.", messages.ERROR)
                continue
            record(who, what, "dead letter", letter.run_id, tenant_id=letter.tenant_id)
            try:
                act(letter.tenant.in_flow(), letter)
            except AgentFarmError as error:
                record(
                    who, f"was refused ({error.code}): {what}", "dead letter", letter.run_id, tenant_id=letter.tenant_id
                )
                self.message_user(request, f"{letter}: {error}", messages.ERROR)
            else:
                done += 1
        if done:
            self.message_user(request, f"{done} {what}.", messages.SUCCESS)
