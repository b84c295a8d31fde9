"""Who did what, to what, and when. Rows are added and never changed: a trigger refuses it to every role."""

from typing import Any, ClassVar, NoReturn
from uuid import UUID

from django.db import models
from django.db.models.functions import Now

from agentfarm.ids import new_id


class Audit(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # No foreign keys: what was done stays known when who or what it was done to is gone.
    tenant_id = models.UUIDField(null=True, help_text="Whose; empty for what belongs to no tenant.")
    who = models.CharField(max_length=150, help_text="A user of the admin, or the command.")
    what = models.CharField(max_length=64)
    kind = models.CharField(max_length=64, help_text="What kind of thing it was done to.")
    on = models.CharField(max_length=200, help_text="Which one: its id.")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit"
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["tenant_id", "-id"], name="audit_of_tenant")]

    def __str__(self) -> str:
        return f"{self.who}: {self.what} {self.kind} {self.on}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        kwargs["force_insert"] = True
        super().save(*args, **kwargs)

    def delete(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("The audit is only added to.")


def record(who: str, what: str, kind: str, on: object, *, tenant_id: UUID | None = None) -> None:
    """Write one entry, in the transaction of the caller. Ids and names only: never state, keys or texts of a tenant."""
    Audit.objects.create(who=who[:150], what=what[:64], kind=kind[:64], on=str(on)[:200], tenant_id=tenant_id)
