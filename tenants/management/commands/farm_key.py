"""`farm_key issue|revoke|list`: API keys from the command line."""

import json
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from agentfarm.errors import InvalidId
from agentfarm.ids import parse_uuid
from tenants.keys import parse_key_id
from tenants.models import APIKey, Tenant, record

WHO = "farm_key"


class Command(BaseCommand):
    help = "Issue a key for a tenant, revoke one, or list them. A key's text is shown once, when it is issued."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        issue = commands.add_parser("issue", help="make a key and print it, alone on its line")
        issue.add_argument("tenant", help="the tenant's slug")
        issue.add_argument("--name", default="from the command line", help="what the key is for")
        revoke = commands.add_parser("revoke", help="a second later the key opens nothing")
        revoke.add_argument("key", help="the key's id, or its text")
        show = commands.add_parser("list", help="the keys of a tenant, newest first")
        show.add_argument("tenant", help="the tenant's slug")
        show.add_argument("--json", action="store_true")

    def handle(self, *_: object, **options: Any) -> None:
        match options["command"]:
            case "issue":
                self.stdout.write(issue(options["tenant"], options["name"]))
            case "revoke":
                self.stdout.write(revoke(options["key"]))
            case _:
                keys = list_keys(options["tenant"])
                self.stdout.write(json.dumps(keys) if options["json"] else _table(keys))


def issue(slug: str, name: str) -> str:
    """The text of a new key."""
    tenant = _tenant(slug)
    with transaction.atomic():
        row, new = APIKey.issue(tenant, name)
        record(WHO, "issued", "api key", row.id, tenant_id=tenant.id)
    return new.text


def revoke(key: str) -> str:
    """What was done, for people to read."""
    row = APIKey.objects.filter(id=_key_id(key)).first()
    if row is None:
        raise CommandError("There is no such key. `farm_key list <tenant>` shows those of a tenant.")
    with transaction.atomic():
        if not row.revoke():
            return f"Key {row.id} had been revoked before, at {row.revoked_at:%Y-%m-%d %H:%M:%S} UTC."
        record(WHO, "revoked", "api key", row.id, tenant_id=row.tenant_id)
    return f"Key {row.id} is revoked."


def list_keys(slug: str) -> list[dict[str, str | None]]:
    """Newest first: {id, prefix, name, created_at, revoked_at, last_used_at}, times in ISO 8601."""
    fields = ("id", "prefix", "name", "created_at", "revoked_at", "last_used_at")
    rows = _tenant(slug).api_keys.order_by("-created_at").values(*fields)
    return [
        {name: value.isoformat() if hasattr(value, "isoformat") else _text(value) for name, value in row.items()}
        for row in rows
    ]


def _tenant(slug: str) -> Tenant:
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None:
        known = ", ".join(Tenant.objects.order_by("slug").values_list("slug", flat=True)[:20])
        raise CommandError(f"There is no tenant {slug!r}. Tenants: {known or 'none yet; farm_setup makes two'}.")
    return tenant


def _key_id(key: str) -> UUID:
    try:
        return parse_key_id(key) or parse_uuid(key, what="the key")
    except InvalidId as error:
        raise CommandError("That is neither the id nor the text of a key.") from error


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _table(keys: list[dict[str, str | None]]) -> str:
    if not keys:
        return "No keys."
    return "\n".join(
        f"{key['id']}  {key['prefix']}…  {'revoked' if key['revoked_at'] else 'valid':<8} "
        f"last used {key['last_used_at'] or 'never'}  {key['name']}"
        for key in keys
    )
