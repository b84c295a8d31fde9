"""What the admin does: keys, tenants, runs; and that the audit knows of it."""

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from agentfarm import wiring
from agentfarm.conf import settings
from agentfarm.flow.admit import admit_run, build_run
from agentfarm.ids import new_id
from agentfarm.records import RunRequest
from tenants.keys import FoundKey, KeyRing
from tenants.models import APIKey, Tenant
from tests.integration.admin.conftest import audit_of
from tests.integration.admin.test_pages import page
from tests.services import OwnDatabase


def opens(database: OwnDatabase, key: str) -> str | None:
    """The slug of the tenant that the key opens, as the web process finds it: as farm_app, by the function."""
    with psycopg.connect(database.app_url) as app:

        def look_up(key_id: UUID) -> FoundKey | None:
            row = app.execute("SELECT hash, tenant_id, slug, home FROM farm.find_api_key(%s)", [key_id]).fetchone()
            return row and FoundKey(hash=row[0], tenant=Tenant(id=row[1], slug=row[2], home=row[3]).in_flow())

        found = KeyRing(settings().pepper, look_up, lambda _: None).find(key)
    return found.slug if found else None


def issue(client: Client, tenant: Tenant, name: str = "for billing") -> str:
    answer = client.post(reverse("admin:tenants_issue_key", args=[tenant.id]), {"name": name})
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    return str(answer.context["key"])


# --------------------------------------------------------------------------- tenants and keys


def test_a_tenant_is_created_and_recorded(superuser: Client, root: psycopg.Connection) -> None:
    slug = f"new-{new_id().hex[-6:]}"

    superuser.post(reverse("admin:tenants_tenant_add"), {"slug": slug, "name": "New"})

    tenant = Tenant.objects.get(slug=slug)
    assert tenant.home == "main"
    assert audit_of(root, tenant.id) == [("added", "tenant")]
    assert "Issue an API key" in page(superuser, "tenants_tenant_change", tenant.id)


@pytest.mark.parametrize("slug", ["Upper", "-a", "a b", "ä", "a/b", ""])
def test_a_slug_that_would_not_read_as_a_name_is_refused(superuser: Client, slug: str) -> None:
    answer = superuser.post(reverse("admin:tenants_tenant_add"), {"slug": slug, "name": "New"})

    assert answer.status_code == 200
    assert not Tenant.objects.filter(slug=slug).exists()


def test_a_key_is_shown_once_and_opens_its_tenant(
    superuser: Client,
    tenant: Tenant,
    own_database: OwnDatabase,
    root: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    key = issue(superuser, tenant)

    assert opens(own_database, key) == tenant.slug
    secret = key.split("_", 2)[2]
    assert secret not in page(superuser, "tenants_apikey_changelist", tenant=tenant.id)
    assert secret not in page(superuser, "tenants_tenant_change", tenant.id)
    assert secret not in caplog.text
    assert not [session for session in Session.objects.all() if secret in str(session.get_decoded())]
    assert secret.encode() not in bytes(APIKey.objects.get(tenant=tenant).hash)
    assert audit_of(root, tenant.id) == [("issued", "API key")]


def test_a_revoked_key_opens_nothing_and_stays_revoked(
    superuser: Client, tenant: Tenant, own_database: OwnDatabase, root: psycopg.Connection
) -> None:
    key = issue(superuser, tenant)
    row = APIKey.objects.get(tenant=tenant)

    chosen = {"action": "revoke", "_selected_action": str(row.pk)}
    for _ in range(2):
        superuser.post(reverse("admin:tenants_apikey_changelist"), chosen)

    assert opens(own_database, key) is None
    assert audit_of(root, tenant.id) == [("issued", "API key"), ("revoked", "API key")]


def test_a_tenant_that_is_not_active_opens_nothing(
    superuser: Client, tenant: Tenant, own_database: OwnDatabase
) -> None:
    key = issue(superuser, tenant)

    Tenant.objects.filter(id=tenant.id).update(is_active=False)

    assert opens(own_database, key) is None


@pytest.mark.parametrize("role", ["operator", "viewer"])
def test_keys_are_for_owners_to_issue_and_revoke(
    superuser: Client, member_of: Callable[[Tenant, str], Client], tenant: Tenant, own_database: OwnDatabase, role: str
) -> None:
    key, client = issue(superuser, tenant), member_of(tenant, role)

    refused = client.post(reverse("admin:tenants_issue_key", args=[tenant.id]), {"name": "mine"})
    client.post(
        reverse("admin:tenants_apikey_changelist"),
        {"action": "revoke", "_selected_action": str(APIKey.objects.get(tenant=tenant).pk)},
    )

    assert refused.status_code == 403
    assert opens(own_database, key) == tenant.slug
    assert opens(own_database, issue(member_of(tenant, "owner"), tenant)) == tenant.slug


def test_a_tenant_is_never_deleted(superuser: Client, tenant: Tenant) -> None:
    answer = superuser.post(reverse("admin:tenants_tenant_delete", args=[tenant.id]), {"post": "yes"})

    assert answer.status_code == 403
    assert Tenant.objects.filter(id=tenant.id).exists()


def test_what_is_done_to_users_is_recorded_too(superuser: Client, root: psycopg.Connection) -> None:
    name = f"user-{new_id().hex[-6:]}"
    superuser.post(
        reverse("admin:auth_user_add"),
        {"username": name, "usable_password": "false", "password1": "", "password2": ""},
    )

    rows = root.execute("SELECT what FROM tenants_audit WHERE kind = 'user' ORDER BY id DESC LIMIT 1").fetchall()
    assert rows == [("added",)]


# --------------------------------------------------------------------------- runs


@pytest.fixture
def started(real_farm: None, tenant: Tenant) -> Any:
    """A run that was admitted and that no worker executes."""
    farm, owner = wiring.farm(), tenant.in_flow()
    thread_id = new_id()
    request = RunRequest(assistant_id="line", input={"log": ["in"]}, if_not_exists="create")
    return admit_run(farm, owner, build_run(farm, owner, request, thread_id=thread_id))


def status_of(root: psycopg.Connection, run_id: UUID) -> str | None:
    row = root.execute("SELECT status FROM farm.run WHERE run_id = %s", [run_id]).fetchone()
    return row and row[0]


def post(client: Client, name: str, tenant: Tenant, run_id: UUID, **form: str) -> Any:
    return client.post(reverse(f"admin:{name}", args=[tenant.id, run_id]), form, follow=True)


def test_a_run_is_cancelled(superuser: Client, root: psycopg.Connection, tenant: Tenant, started: Any) -> None:
    assert "Cancel and undo" in page(superuser, "tenants_run_page", tenant.id, started.run_id)

    answer = post(superuser, "tenants_run_cancel", tenant, started.run_id).content.decode()

    assert "The run is cancelled." in answer
    assert "Cancel and undo" not in answer
    assert status_of(root, started.run_id) == "interrupted"
    assert audit_of(root, tenant.id) == [("cancelled", "run")]


def test_a_run_that_failed_goes_on_as_a_new_one(
    superuser: Client, root: psycopg.Connection, tenant: Tenant, started: Any
) -> None:
    post(superuser, "tenants_run_cancel", tenant, started.run_id)
    root.execute("UPDATE farm.run SET status = 'error' WHERE run_id = %s", [started.run_id])
    assert "Retry from the last checkpoint" in page(superuser, "tenants_run_page", tenant.id, started.run_id)

    answer = post(superuser, "tenants_run_retry", tenant, started.run_id)

    retrial = UUID(answer.redirect_chain[-1][0].rstrip("/").split("/")[-1])
    assert retrial != started.run_id
    assert status_of(root, retrial) == "running"
    assert audit_of(root, tenant.id)[-1] == ("retried", "run")


def test_a_run_that_did_not_fail_is_not_retried(
    superuser: Client, root: psycopg.Connection, tenant: Tenant, started: Any
) -> None:
    answer = post(superuser, "tenants_run_retry", tenant, started.run_id)

    assert "a run that failed can be retried" in answer.content.decode()
    assert audit_of(root, tenant.id)[-1] == ("was refused (conflict): retried", "run")


def test_a_run_is_undone(superuser: Client, root: psycopg.Connection, tenant: Tenant, started: Any) -> None:
    answer = post(superuser, "tenants_run_cancel", tenant, started.run_id, rollback="1")

    assert "The run is undone." in answer.content.decode()
    assert status_of(root, started.run_id) is None
    assert audit_of(root, tenant.id) == [("cancelled and undid", "run")]


def test_what_cannot_be_done_is_said_and_recorded(
    superuser: Client, root: psycopg.Connection, tenant: Tenant, started: Any
) -> None:
    post(superuser, "tenants_run_cancel", tenant, started.run_id)

    again = post(superuser, "tenants_run_cancel", tenant, started.run_id)

    assert again.status_code == 200
    assert 'class="error"' in again.content.decode()
    assert audit_of(root, tenant.id)[-1] == ("was refused (not_found): cancelled", "run")


@pytest.mark.parametrize("name", ["tenants_run_cancel", "tenants_run_retry"])
def test_a_viewer_sees_no_button_and_has_none(
    member_of: Callable[[Tenant, str], Client], root: psycopg.Connection, tenant: Tenant, started: Any, name: str
) -> None:
    viewer = member_of(tenant, "viewer")

    assert "<button" not in page(viewer, "tenants_run_page", tenant.id, started.run_id).split("farm-facts")[1]
    assert post(viewer, name, tenant, started.run_id).status_code == 403
    assert status_of(root, started.run_id) == "running"


def test_an_operator_may_cancel(
    member_of: Callable[[Tenant, str], Client], root: psycopg.Connection, tenant: Tenant, started: Any
) -> None:
    post(member_of(tenant, "operator"), "tenants_run_cancel", tenant, started.run_id)

    assert status_of(root, started.run_id) == "interrupted"


@pytest.mark.parametrize("name", ["tenants_run_cancel", "tenants_run_retry"])
def test_a_link_alone_does_nothing(
    superuser: Client, root: psycopg.Connection, tenant: Tenant, started: Any, name: str
) -> None:
    assert superuser.get(reverse(f"admin:{name}", args=[tenant.id, started.run_id])).status_code == 405
    assert status_of(root, started.run_id) == "running"
