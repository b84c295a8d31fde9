"""`farm_setup`: two tenants with a key each and an admin user, so that a fresh farm can be used at once. Idempotent.

Keys and passwords are nowhere in the database. With --secrets they are kept in a file that only its owner reads, so
that a second call prints the same ones, and what is missing there is made anew. Without it, what exists is printed
as null.
"""

import json
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from agentfarm.conf import settings
from agentfarm.errors import Misconfigured
from tenants.keys import parse_key_id, verify_key
from tenants.models import APIKey, Tenant, record
from tenants.secrets_file import Secrets, read_secrets, write_secrets

TENANTS = {"demo": "Demo", "other": "Another tenant"}
ADMIN = "admin"
KEY_NAME = "made by farm_setup"
WHO = "farm_setup"


class Command(BaseCommand):
    help = "Make the tenants demo and other with a key each, and an admin user; print what one needs to use them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        parser.add_argument("--secrets", type=Path, help="file that keeps keys and password between calls (mode 0600)")

    def handle(self, *_: object, **options: Any) -> None:
        if settings().database_admin_url is None:
            raise CommandError(
                "DATABASE_ADMIN_URL is not set. farm_setup writes as the role farm_admin, since row-level security "
                "keeps the owner out as well; `python manage.py farm_roles` prints the statements that make it."
            )
        path: Path | None = options["secrets"]
        try:
            known = read_secrets(path) if path else Secrets()
        except Misconfigured as error:
            raise CommandError(str(error)) from error
        with transaction.atomic():
            tenants = [_set_up_tenant(slug, name, known, anew=path is not None) for slug, name in TENANTS.items()]
            admin = _set_up_admin(known, anew=path is not None)
            if path:
                write_secrets(path, known)  # inside the transaction: a key whose text cannot be kept is not made either
        result = {"tenants": tenants, "admin": admin}
        self.stdout.write(json.dumps(result) if options["json"] else render(result))


def _set_up_tenant(slug: str, name: str, known: Secrets, *, anew: bool) -> dict[str, str | None]:
    """anew: make a key although the tenant has one, since nobody knows that one's text."""
    tenant, created = Tenant.objects.get_or_create(slug=slug, defaults={"name": name})
    if created:
        record(WHO, "created", "tenant", tenant.id, tenant_id=tenant.id)
    key = known.keys.pop(slug, None)
    if key is None or not _opens(key, tenant):
        key = _issue(tenant) if anew or not tenant.api_keys.filter(revoked_at=None).exists() else None
    if key is not None:
        known.keys[slug] = key
    return {"slug": slug, "id": str(tenant.id), "key": key}


def _opens(key: str, tenant: Tenant) -> bool:
    key_id = parse_key_id(key)
    row = tenant.api_keys.filter(id=key_id, revoked_at=None).first() if key_id else None
    return verify_key(key, bytes(row.hash) if row else None, settings().pepper)


def _issue(tenant: Tenant) -> str:
    row, new = APIKey.issue(tenant, KEY_NAME)
    record(WHO, "issued", "api key", row.id, tenant_id=tenant.id)
    return new.text


def _set_up_admin(known: Secrets, *, anew: bool) -> dict[str, str | None]:
    users = get_user_model()
    user = users.objects.filter(username=ADMIN).first()
    if user is not None and known.admin_password is not None and user.check_password(known.admin_password):
        return {"user": ADMIN, "password": known.admin_password}
    if user is not None and not anew:
        return {"user": ADMIN, "password": None}
    password = secrets.token_urlsafe(12)
    if user is None:
        user = users.objects.create_superuser(ADMIN, password=password)
        record(WHO, "created", "user", ADMIN)
    else:
        user.set_password(password)
        user.save(update_fields=["password"])
        record(WHO, "set the password of", "user", ADMIN)
    known.admin_password = password
    return {"user": ADMIN, "password": password}


def render(result: dict[str, Any]) -> str:
    """For people to read."""
    lines = []
    for tenant in result["tenants"]:
        key = tenant["key"] or "(has a key; its text is shown once, when it is issued: `farm_key issue` makes another)"
        lines.append(f"tenant {tenant['slug']:<8} {tenant['id']}  x-api-key: {key}")
    password = result["admin"]["password"] or "(as it was; `manage.py changepassword` sets another)"
    lines.append(f"admin  {result['admin']['user']:<8} password: {password}")
    return "\n".join(lines)
