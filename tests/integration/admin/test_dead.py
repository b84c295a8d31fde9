"""What was buried: seen by its tenant's people, retried or dismissed by those who may, and recorded."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from agentfarm import wiring
from agentfarm.flow.admit import admit_run, build_run
from agentfarm.ids import new_id
from agentfarm.records import RunRequest
from tenants.models import DeadLetter, Tenant
from tests.integration.admin.conftest import audit_of
from tests.integration.admin.rows import Rows

LIST = "admin:tenants_deadletter_changelist"


def buried(rows: Rows, tenant: Tenant, node: str = "poison") -> UUID:
    thread_id = rows.thread(tenant)
    run_id = rows.run(tenant, thread_id, "error")
    rows.dead_letter(tenant, thread_id, run_id, node)
    return run_id


def act(client: Client, tenant: Tenant, action: str, *run_ids: UUID) -> Any:
    given = {"action": action, "_selected_action": [str(one) for one in run_ids]}
    return client.post(f"{reverse(LIST)}?tenant={tenant.id}", given, follow=True)


def told(*command: str) -> str:
    out = StringIO()
    call_command("farm_dead", *command, stdout=out)
    return out.getvalue()


def test_the_list_tells_what_happened_and_is_narrowed_by_node(superuser: Client, rows: Rows, tenant: Tenant) -> None:
    poison, other = buried(rows, tenant), buried(rows, tenant, "leaky")

    every = superuser.get(reverse(LIST), {"tenant": str(tenant.id)}).content.decode()
    one = superuser.get(reverse(LIST), {"tenant": str(tenant.id), "node": "leaky"}).content.decode()

    assert "lost to io@three/33 (attempt 1)" in every
    assert str(poison) in every
    assert (str(poison) in one, str(other) in one) == (False, True)


def test_a_member_of_another_tenant_sees_and_changes_nothing(
    member_of: Callable[..., Client], rows: Rows, tenant: Tenant, other: Tenant
) -> None:
    run_id, client = buried(rows, tenant), member_of(other, "owner")

    assert str(run_id) not in client.get(reverse(LIST), {"tenant": str(tenant.id)}).content.decode()
    act(client, tenant, "dismiss_chosen", run_id)

    assert DeadLetter.objects.filter(run_id=run_id).exists()


def test_a_viewer_sees_it_and_may_not_dismiss_it_and_an_operator_may(
    real_farm: None, member_of: Callable[..., Client], root: psycopg.Connection, rows: Rows, tenant: Tenant
) -> None:
    run_id = buried(rows, tenant)

    assert (
        "only its owners and operators may"
        in act(member_of(tenant, "viewer"), tenant, "dismiss_chosen", run_id).content.decode()
    )
    assert DeadLetter.objects.filter(run_id=run_id).exists()
    act(member_of(tenant, "operator"), tenant, "dismiss_chosen", run_id)

    assert not DeadLetter.objects.filter(run_id=run_id).exists()
    assert audit_of(root, tenant.id) == [("dismissed", "dead letter")]


def test_the_command_lists_and_dismisses_and_says_what_is_not_there(
    real_farm: None, rows: Rows, tenant: Tenant
) -> None:
    run_id = buried(rows, tenant)

    assert [one["run_id"] for one in json.loads(told("list", "--json", tenant.slug))] == [str(run_id)]
    assert told("list", "--node", "none", tenant.slug).strip() == "Nothing is buried."
    assert str(run_id) in told("dismiss", tenant.slug, str(run_id))
    with pytest.raises(CommandError, match="somebody has seen to it"):
        told("retry", tenant.slug, str(run_id))


def test_its_run_is_retried_from_the_list_as_a_new_one(
    real_farm: None, superuser: Client, root: psycopg.Connection, rows: Rows, tenant: Tenant
) -> None:
    farm, owner = wiring.farm(), tenant.in_flow()
    request = RunRequest(assistant_id="line", input={"log": ["in"]}, if_not_exists="create")
    failed = admit_run(farm, owner, build_run(farm, owner, request, thread_id=new_id()))
    root.execute("UPDATE farm.run SET status = 'error', finished_at = now() WHERE run_id = %s", [failed.run_id])
    rows.dead_letter(tenant, failed.thread_id, failed.run_id)

    act(superuser, tenant, "retry_chosen", failed.run_id)

    of_thread = "SELECT status, metadata ->> 'retry_of' FROM farm.run WHERE thread_id = %s AND run_id <> %s"
    assert root.execute(of_thread, [failed.thread_id, failed.run_id]).fetchall() == [("running", str(failed.run_id))]
    assert not DeadLetter.objects.filter(run_id=failed.run_id).exists()
    assert audit_of(root, tenant.id) == [("retried", "dead letter")]
