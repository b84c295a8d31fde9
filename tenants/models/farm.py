"""The farm's own tables as the admin reads them: unmanaged, never written from here, and without any column of state.

Their keys are of several columns, which Django's admin cannot have. Each model names its last column as primary key,
by which rows are told apart within a tenant; every look-up therefore names the tenant as well.
Columns are those of agentfarm/persistence/sql/tables.sql that the role farm_admin may read.
"""

from typing import ClassVar

from django.db import models

from tenants.models.tenant import Tenant


class _OfTenant(models.Model):
    tenant = models.ForeignKey(Tenant, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")

    class Meta:
        abstract = True
        managed = False


class Thread(_OfTenant):
    thread_id = models.UUIDField(primary_key=True)
    status = models.TextField()
    graph_id = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    state_updated_at = models.DateTimeField(null=True)

    class Meta(_OfTenant.Meta):
        db_table = '"farm"."thread"'

    def __str__(self) -> str:
        return str(self.thread_id)


class Run(_OfTenant):
    run_id = models.UUIDField(primary_key=True)
    thread_id = models.UUIDField()
    assistant_id = models.UUIDField()
    graph_id = models.TextField()
    status = models.TextField()
    strategy = models.TextField()
    tier = models.TextField(default="postgres")
    inline_reason = models.TextField(null=True)
    error = models.JSONField(null=True)  # its message is the tenant's: only its type is shown
    warnings = models.JSONField(null=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    #: Statuses of a run that is not over.
    OPEN: ClassVar = ("pending", "running")

    #: Statuses from which a run can be retried.
    FAILED: ClassVar = ("error", "timeout")

    class Meta(_OfTenant.Meta):
        db_table = '"farm"."run"'

    def __str__(self) -> str:
        return str(self.run_id)

    @property
    def has_failed(self) -> bool:
        return self.status in self.FAILED

    @property
    def error_type(self) -> str:
        return str((self.error or {}).get("error", ""))

    @property
    def is_open(self) -> bool:
        return self.status in self.OPEN


class NodeExecution(_OfTenant):
    execution_id = models.UUIDField(primary_key=True)
    thread_id = models.UUIDField()
    run_id = models.UUIDField()
    checkpoint_id = models.UUIDField()
    node = models.TextField()
    queue = models.TextField()
    status = models.TextField()
    outcome = models.TextField(null=True)
    attempts = models.IntegerField()
    tries = models.IntegerField()
    worker = models.BigIntegerField(null=True)
    available_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error = models.TextField(null=True)  # the type of the error, never its text
    lost_to = models.JSONField(null=True)
    created_at = models.DateTimeField()

    class Meta(_OfTenant.Meta):
        db_table = '"farm"."node_execution"'
        ordering: ClassVar = ["created_at"]

    def __str__(self) -> str:
        return f"{self.node} ({self.execution_id})"


class DeadLetter(_OfTenant):
    """A node execution that was buried, and its run with it: one a run."""

    run_id = models.UUIDField(primary_key=True)
    thread_id = models.UUIDField()
    execution_id = models.UUIDField()
    graph_id = models.TextField()
    node = models.TextField()
    attempts = models.IntegerField()
    lost_to = models.JSONField(null=True)
    buried_at = models.DateTimeField()

    class Meta(_OfTenant.Meta):
        db_table = '"farm"."dead_letter"'

    def __str__(self) -> str:
        return str(self.run_id)


class Checkpoint(_OfTenant):
    checkpoint_id = models.UUIDField(primary_key=True)
    thread_id = models.UUIDField()
    ns = models.TextField()
    parent_id = models.UUIDField(null=True)
    run_id = models.UUIDField(null=True)
    step = models.IntegerField()
    created_at = models.DateTimeField()

    class Meta(_OfTenant.Meta):
        db_table = '"farm"."checkpoint"'

    def __str__(self) -> str:
        return str(self.checkpoint_id)


class StoreItem(_OfTenant):
    """An item of LangGraph's store. Within a tenant it is told apart by namespace and key."""

    namespace = models.TextField()  # its labels, joined by dots
    key = models.TextField(primary_key=True)
    value_bytes = models.IntegerField()
    ttl_minutes = models.FloatField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)

    class Meta(_OfTenant.Meta):
        db_table = '"farm"."store_item"'

    def __str__(self) -> str:
        return f"{self.namespace} {self.key}"


class Worker(models.Model):
    """A worker process; with prefork, each child."""

    worker = models.BigIntegerField(primary_key=True)
    name = models.TextField()
    host = models.TextField()
    pid = models.IntegerField()
    beat_at = models.DateTimeField()
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = '"farm"."worker"'

    def __str__(self) -> str:
        return self.name
