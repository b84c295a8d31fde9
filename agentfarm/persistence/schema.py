"""What the migrations do: run the files of sql/ in order, for roles that exist.

Roles belong to the whole cluster and passwords to nobody's repository, so a migration makes only what it must: a role
without LOGIN where one is missing, or a sentence with the statements for whoever may make roles.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from agentfarm.errors import Misconfigured
from agentfarm.persistence.sql import read_sql

if TYPE_CHECKING:
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.migrations.state import StateApps

#: The roles that walls.sql grants to. Who owns the schema is whoever migrates.
ROLES = ("farm_app", "farm_ops", "farm_admin")

#: A migration waits this long for a lock and then fails, so that it never queues all traffic behind itself.
GUARDS = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '120s'; SET LOCAL check_function_bodies = off;"

#: What each role is at least. LOGIN and a password are the operator's.
ROLE_ATTRIBUTES = "NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE"

Step = Callable[["StateApps", "BaseDatabaseSchemaEditor"], None]


def run_files(*names: str) -> Step:
    """A step for RunPython: these files, in one transaction with the rest of the migration."""

    def step(apps: "StateApps", editor: "BaseDatabaseSchemaEditor") -> None:
        with editor.connection.cursor() as cursor:
            cursor.execute(GUARDS)
            for name in names:
                cursor.execute(read_sql(name))

    return step


def ensure_roles(apps: "StateApps", editor: "BaseDatabaseSchemaEditor") -> None:
    """Raises Misconfigured with the statements that are missing, when this role may not make others."""
    with editor.connection.cursor() as cursor:
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(ROLES)])
        have = {row[0] for row in cursor.fetchall()}
        missing = [role for role in ROLES if role not in have]
        if not missing:
            return
        cursor.execute("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
        if not cursor.fetchone()[0]:
            raise Misconfigured(render_missing_roles(missing))
        for role in missing:
            cursor.execute(f"CREATE ROLE {role} NOLOGIN {ROLE_ATTRIBUTES}")


def render_missing_roles(missing: list[str]) -> str:
    statements = "\n".join(f"  CREATE ROLE {role} LOGIN PASSWORD '…' {ROLE_ATTRIBUTES};" for role in missing)
    return (
        "The database lacks roles, and the role that migrates may not make them. "
        f"Let a role with CREATEROLE run these, then migrate again:\n{statements}"
    )
