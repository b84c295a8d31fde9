"""Whose key is this: how the app role, which may read no control table, asks (tenants/sql/keys.sql)."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from agentfarm.persistence.database import Database
from agentfarm.run_options import RunChoices
from agentfarm.tenancy import Tenant

_FIND_KEY = text("SELECT hash, tenant_id, slug, home, run_ahead, persistence FROM farm.find_api_key(:id)")
_FIND_TENANT = text("SELECT tenant_id, slug, home, run_ahead, persistence FROM farm.find_tenant(:slug)")
_MARK_USED = text("SELECT farm.mark_api_key_used(:id)")


class PostgresKeys:
    """Over the main database, which holds the control tables. Every call raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def find_key(self, key_id: UUID) -> tuple[bytes, Tenant] | None:
        """(hash, tenant) of a key that is not revoked, of an active tenant."""
        with self.database.transaction_of_nobody() as connection:
            row = connection.execute(_FIND_KEY, {"id": key_id}).one_or_none()
        return None if row is None else (bytes(row.hash), _tenant(row))

    def find_tenant(self, slug: str) -> Tenant | None:
        with self.database.transaction_of_nobody() as connection:
            row = connection.execute(_FIND_TENANT, {"slug": slug}).one_or_none()
        return None if row is None else _tenant(row)

    def mark_used(self, key_id: UUID) -> None:
        with self.database.transaction_of_nobody() as connection:
            connection.execute(_MARK_USED, {"id": key_id})


def _tenant(row: Any) -> Tenant:
    choices = RunChoices(run_ahead=row.run_ahead, persistence=row.persistence)
    return Tenant(id=row.tenant_id, slug=row.slug, home=row.home, choices=choices)
