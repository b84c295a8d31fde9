"""`farm_roles`: the SQL that makes the four roles and the database, for a Postgres of one's own. Touches nothing.

It comes first of all, so it needs no settings: manage.py calls it without Django's.
"""

import secrets
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

#: What each is for. None may bypass row-level security: that is the wall between tenants.
ROLES = {
    "farm_owner": "owns the schema; `manage.py migrate` connects as it, nothing else does",
    "farm_app": "web and workers: one tenant a transaction",
    "farm_ops": "the healer: ids and times of all tenants, no state",
    "farm_admin": "Django's admin: control tables, and the farm's without state",
}

ATTRIBUTES = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"

VARIABLES = {
    "farm_owner": "DATABASE_OWNER_URL",
    "farm_app": "DATABASE_URL",
    "farm_ops": "DATABASE_OPS_URL",
    "farm_admin": "DATABASE_ADMIN_URL",
}


class Command(BaseCommand):
    help = "Print the SQL that makes the four roles and the database. Feed it to psql as a superuser, once."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default="agentfarm", help="the database's name (default: agentfarm)")
        parser.add_argument(
            "--host", default="localhost:5432", help="host:port for the URLs at the end (default: %(default)s)"
        )
        parser.add_argument(
            "--generate", action="store_true", help="with passwords made now, instead of psql variables"
        )

    def handle(self, *_: object, **options: Any) -> None:
        database: str = options["database"]
        if not database.replace("_", "").isalnum() or not database.isascii():
            raise CommandError("A database's name has letters, digits and '_' here.")
        passwords = {role: secrets.token_urlsafe(24) for role in ROLES} if options["generate"] else None
        self.stdout.write(render_roles(database, options["host"], passwords))


def render_roles(database: str, host: str, passwords: dict[str, str] | None) -> str:
    """The script. passwords: by role; None: psql asks for variables, as in `psql -v farm_app_password=…`."""
    lines = ["-- AgentFarm's roles. Run once, as a superuser, on the database postgres: psql -v ON_ERROR_STOP=1 -f …"]
    for role, purpose in ROLES.items():
        password = f"'{passwords[role]}'" if passwords else f":'{role}_password'"
        lines += [
            f"-- {role}: {purpose}.",
            f"CREATE ROLE {role} {ATTRIBUTES} PASSWORD {password};",
        ]
    connecting = ", ".join(role for role in ROLES if role != "farm_owner")
    lines += [
        f"CREATE DATABASE {database} OWNER farm_owner;",
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC;",
        f"GRANT CONNECT ON DATABASE {database} TO {connecting};",
        f"\\connect {database}",
        "ALTER SCHEMA public OWNER TO farm_owner;",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
        "-- Then, in the environment of every process and of `python manage.py migrate`:",
    ]
    lines += [
        f"--   {VARIABLES[role]}=postgresql://{role}:{passwords[role] if passwords else '…'}@{host}/{database}"
        for role in ROLES
    ]
    return "\n".join(lines)
