"""Tables of the control plane, and the farm's own as the admin reads them.

The app role (web, workers) sees none of these: keys are looked up by a function that answers
one row (tenants/sql/keys.sql).
"""

from tenants.models.api_key import APIKey
from tenants.models.audit import Audit, record
from tenants.models.farm import Checkpoint, DeadLetter, NodeExecution, Run, StoreItem, Thread, Worker
from tenants.models.member import Member
from tenants.models.tenant import Tenant

__all__ = [
    "APIKey",
    "Audit",
    "Checkpoint",
    "DeadLetter",
    "Member",
    "NodeExecution",
    "Run",
    "StoreItem",
    "Tenant",
    "Thread",
    "Worker",
    "record",
]
