"""A tenant: who owns threads and runs."""

from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models

from agentfarm import tenancy
from agentfarm.ids import new_id


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
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def in_flow(self) -> tenancy.Tenant:
        """The same tenant, as the flow knows it."""
        return tenancy.Tenant(id=self.id, slug=self.slug, home=self.home)
