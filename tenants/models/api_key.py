"""API keys of a tenant. The secret is not here: a key is shown once, when it is issued."""

from typing import ClassVar, Self

from django.db import models
from django.db.models.functions import Now

from agentfarm.conf import settings
from tenants.keys import NewKey, make_key
from tenants.models.tenant import Tenant


class APIKey(models.Model):
    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100, help_text="What the key is for, as in 'billing service, production'.")
    hash = models.BinaryField(max_length=32, editable=False)
    prefix = models.CharField(max_length=16, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False, help_text="A sample: at most a minute old.")

    class Meta:
        verbose_name = "API key"
        ordering: ClassVar = ["-created_at"]
        indexes: ClassVar = [models.Index(fields=["tenant", "-created_at"], name="api_key_of_tenant")]

    def __str__(self) -> str:
        return f"{self.prefix}… ({self.name})"

    @classmethod
    def issue(cls, tenant: Tenant, name: str) -> tuple[Self, NewKey]:
        """Make and save a key. `NewKey.text` is the only time that its text is there."""
        new = make_key(settings().pepper)
        row = cls.objects.create(id=new.id, tenant=tenant, name=name, hash=new.hash, prefix=new.prefix)
        return row, new

    def revoke(self) -> bool:
        """Dead within a second, for ever. False where it was revoked before."""
        changed = type(self).objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=Now())
        self.refresh_from_db(fields=["revoked_at"])
        return changed == 1
