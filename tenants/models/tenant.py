"""A tenant: who owns threads and runs."""

from typing import ClassVar, cast

from django.core.validators import RegexValidator
from django.db import models

from agentfarm import tenancy
from agentfarm.ids import new_id
from agentfarm.run_options import Persistence, RunChoices


class Tenant(models.Model):
    """Never deleted: its data would stay behind without an owner. Deactivated, its keys open nothing a second later."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.CharField(
        max_length=63,
        unique=True,
        validators=[RegexValidator(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "Use a-z, 0-9 and '-', as in 'acme-eu'.")],
        help_text="A short name, as in 'acme-eu'. Shown to operators; it cannot be changed later.",
    )
    name = models.CharField(max_length=200, help_text="As people call it.")
    home = models.CharField(
        max_length=63,
        default="main",
        editable=False,
        help_text="The database in which its threads and runs live.",
    )
    is_active = models.BooleanField(
        default=True, help_text="Off: its keys open nothing, from a second later on. Its data stays."
    )
    run_ahead = models.BooleanField(
        default=False,
        verbose_name="runs go ahead",
        help_text="On: a worker that has executed a node of a run goes on with the next one while no other work waits. "
        "A run that says it itself is obeyed.",
    )
    persistence = models.CharField(
        max_length=16,
        default="postgres",
        choices=[
            ("postgres", "Postgres: what a node wrote is on disk before the next one begins"),
            ("redis", "Redis: for chat. What a node wrote is in Postgres a moment later, and when its run ends"),
        ],
        help_text="Where a run's state is between its nodes. A run that says it itself is obeyed.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def in_flow(self) -> tenancy.Tenant:
        """The same tenant, as the flow knows it."""
        choices = RunChoices(run_ahead=self.run_ahead, persistence=cast("Persistence", self.persistence))
        return tenancy.Tenant(id=self.id, slug=self.slug, home=self.home, choices=choices)
