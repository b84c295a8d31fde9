"""What the admin's pages show, and what they never show."""

import json
import re
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from agentfarm.ids import new_id
from tenants.models import Tenant
from tests.integration.admin.rows import SECRET, Rows

LISTS = ["tenant", "apikey", "thread", "run", "storeitem", "worker", "audit"]


def page(client: Client, name: str, *arguments: object, **query: object) -> str:
    answer = client.get(reverse(f"admin:{name}", args=arguments), query)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def _listed_items(html: str) -> list[str]:
    return re.findall(r'class="field-key">([^<]*)<', html)


def a_line(rows: Rows, tenant: Tenant, thread_id: UUID | None = None) -> tuple[UUID, UUID]:
    """A thread with one run of two nodes; the second was lost once, and given back once. (thread, run)"""
    thread_id = rows.thread(tenant, thread_id)
    error = json.dumps({"error": "NodeCrashed", "message": SECRET})
    run_id = rows.run(tenant, thread_id, "error", error=error)
    first = rows.checkpoint(tenant, thread_id, run_id, step=0)
    one, two = rows.worker("io@one/11", 11), rows.worker("io@two/22", 22)
    rows.execution(tenant, thread_id, run_id, "plan", first, worker=one, started_at="2026-11-25 10:00:00+00",
                   finished_at="2026-11-25 10:00:01.5+00")  # fmt: skip
    lost = {"worker": "io@three/33", "attempt": 1, "at": "2026-11-25T10:00:02Z"}
    given_back = {**lost, "worker": "io@four/44", "attempt": 2, "given_back": True}
    rows.execution(tenant, thread_id, run_id, "act", first, worker=two, attempts=2, error="TimeoutError",
                   lost_to=json.dumps([lost, given_back]))  # fmt: skip
    return thread_id, run_id


def test_the_front_page_says_what_is_where(superuser: Client) -> None:
    html = page(superuser, "index")

    assert "node execution" in html
    assert 'href="/docs"' in html
    assert "Flower" in html


@pytest.mark.parametrize("name", LISTS)
def test_every_list_answers_and_counts_no_table(superuser: Client, rows: Rows, tenant: Tenant, name: str) -> None:
    a_line(rows, tenant)

    with CaptureQueriesContext(connection) as queries:
        page(superuser, f"tenants_{name}_changelist", **({} if name in ("tenant", "worker") else {"tenant": tenant.id}))

    counts = [query["sql"] for query in queries if "COUNT(" in query["sql"]]
    assert counts
    assert all("LIMIT 5000" in sql for sql in counts)


def test_a_list_without_a_tenant_chosen_is_empty_and_says_what_to_do(
    superuser: Client, rows: Rows, tenant: Tenant, other: Tenant
) -> None:
    thread_id, _ = a_line(rows, tenant)

    html = page(superuser, "tenants_thread_changelist")

    assert str(thread_id) not in html
    assert "Choose a tenant" in html
    assert str(thread_id) in page(superuser, "tenants_thread_changelist", tenant=tenant.id)
    assert str(thread_id) not in page(superuser, "tenants_thread_changelist", tenant=other.id)


@pytest.mark.parametrize("name", ["thread", "run"])
def test_search_finds_an_exact_id_and_nothing_else(superuser: Client, rows: Rows, tenant: Tenant, name: str) -> None:
    thread_id, run_id = a_line(rows, tenant)
    sought = str({"thread": thread_id, "run": run_id}[name])

    assert sought in page(superuser, f"tenants_{name}_changelist", q=sought)
    for wrong in (sought[:-1], "%", sought[:8], "' OR 1=1 --"):
        html = page(superuser, f"tenants_{name}_changelist", q=wrong)
        assert sought not in html
        assert "takes a whole UUID" in html


def test_the_status_filter_finds_runs(superuser: Client, rows: Rows, tenant: Tenant) -> None:
    thread_id, failed = a_line(rows, tenant)
    done = rows.run(tenant, thread_id, "success")

    html = page(superuser, "tenants_run_changelist", tenant=tenant.id, status="error")

    assert str(failed) in html
    assert str(done) not in html


def test_items_of_the_store_are_listed_by_namespace_without_their_values(
    superuser: Client, rows: Rows, tenant: Tenant, other: Tenant
) -> None:
    for namespace, key in (("users.bo", "k1"), ("users", "k2"), ("users-2", "k3"), ("docs", "k4")):
        rows.item(tenant, namespace, key, expires_at="2027-01-02 03:04:05+00" if key == "k1" else None)
    rows.item(other, "users", "theirs")

    html = page(superuser, "tenants_storeitem_changelist", tenant=tenant.id)

    assert _listed_items(html) == ["k4", "k2", "k3", "k1"]
    assert "1234" in html
    assert SECRET not in html
    for sought, found in (("users", ["k2", "k1"]), ("users.bo", ["k1"]), ("k3", ["k3"]), ("user", []), ("%", [])):
        assert _listed_items(page(superuser, "tenants_storeitem_changelist", tenant=tenant.id, q=sought)) == found


@pytest.mark.parametrize("name", ["tenants_thread_line", "tenants_run_page"])
def test_a_line_shows_who_executed_what_and_who_was_lost(
    superuser: Client, rows: Rows, tenant: Tenant, name: str
) -> None:
    thread_id, run_id = a_line(rows, tenant)
    rows.execution(tenant, thread_id, run_id, "wait", status="ready", outcome="retry", tries=1)

    html = page(superuser, name, tenant.id, {"tenants_thread_line": thread_id, "tenants_run_page": run_id}[name])

    for told in (
        "plan",
        "act",
        "io@one/11",
        "io@two/22",
        "lost to io@three/33 (attempt 1)",
        "given back by io@four/44 (attempt 2)",
        "waits for try 2, due 20",
        "1.500",
        "TimeoutError",
    ):
        assert told in html
    assert html.index(">plan<") < html.index(">act<")


def test_a_thread_shows_its_checkpoints_by_size(superuser: Client, rows: Rows, tenant: Tenant) -> None:
    thread_id, _ = a_line(rows, tenant)

    html = page(superuser, "tenants_thread_line", tenant.id, thread_id)

    assert f"<td>{len(SECRET) * 10}</td><td>1</td>" in html


def test_no_page_shows_what_a_tenant_said(superuser: Client, rows: Rows, tenant: Tenant) -> None:
    thread_id, run_id = a_line(rows, tenant)
    pages = [page(superuser, f"tenants_{name}_changelist", tenant=tenant.id) for name in ("thread", "run", "audit")]
    pages += [page(superuser, "tenants_thread_line", tenant.id, thread_id)]
    pages += [page(superuser, "tenants_run_page", tenant.id, run_id)]

    assert "NodeCrashed" in pages[-1]
    assert not [html for html in pages if SECRET in html]


def test_two_tenants_may_use_the_same_thread_id(superuser: Client, rows: Rows, tenant: Tenant, other: Tenant) -> None:
    thread_id, mine = a_line(rows, tenant)
    _, theirs = a_line(rows, other, thread_id)

    html = page(superuser, "tenants_thread_line", tenant.id, thread_id)

    assert str(mine) in html
    assert str(theirs) not in html


def test_a_list_of_many_rows_is_read_by_an_index(superuser: Client, root: psycopg.Connection, tenant: Tenant) -> None:
    root.execute(
        "INSERT INTO farm.thread (tenant_id, thread_id, created_at)"
        " SELECT %s, gen_random_uuid(), now() - n * interval '1 second' FROM generate_series(1, 60000) n",
        [tenant.id],
    )
    root.execute("ANALYZE farm.thread")

    with CaptureQueriesContext(connection) as queries:
        html = page(superuser, "tenants_thread_changelist", tenant=tenant.id)

    assert "The list leads to the newest 5000" in html
    for query in [query["sql"] for query in queries if '"farm"."thread"' in query["sql"]]:
        plan = "\n".join(row[0] for row in root.execute(f"EXPLAIN {query.replace('%', '%%')}").fetchall())
        assert "Seq Scan on thread" not in plan, plan


# --------------------------------------------------------------------------- whose pages they are


def test_a_member_sees_his_tenant_and_no_other(
    member_of: Callable[[Tenant, str], Client], rows: Rows, tenant: Tenant, other: Tenant
) -> None:
    client = member_of(tenant, "owner")
    mine, theirs = a_line(rows, tenant), a_line(rows, other)
    rows.item(other, "users", "an-item-of-theirs")

    for query in ({"q": "users"}, {"tenant": other.id}, {"q": "an-item-of-theirs"}):
        assert _listed_items(page(client, "tenants_storeitem_changelist", **query)) == []
    assert str(mine[0]) in page(client, "tenants_thread_changelist")  # his only tenant is chosen for him
    for name, sought in (("thread", theirs[0]), ("run", theirs[1])):
        assert f"/{sought}/" not in page(client, f"tenants_{name}_changelist", q=sought)
        assert f"/{sought}/" not in page(client, f"tenants_{name}_changelist", tenant=other.id)
    for name in ("tenant", "apikey", "audit", "thread", "run"):
        assert other.slug not in page(client, f"tenants_{name}_changelist")


@pytest.mark.parametrize(
    "name", ["tenants_thread_line", "tenants_run_page", "tenants_run_cancel", "tenants_run_retry", "tenants_issue_key"]
)
def test_what_is_another_tenants_is_not_there(
    member_of: Callable[[Tenant, str], Client], rows: Rows, tenant: Tenant, other: Tenant, name: str
) -> None:
    client = member_of(tenant, "owner")
    thread_id, run_id = a_line(rows, other)
    more = [] if name == "tenants_issue_key" else [thread_id if name == "tenants_thread_line" else run_id]
    method = client.post if name in ("tenants_run_cancel", "tenants_run_retry") else client.get

    theirs = method(reverse(f"admin:{name}", args=[other.id, *more]))
    nobodys = method(reverse(f"admin:{name}", args=[new_id(), *([new_id()] if more else [])]))
    mixed = [method(reverse(f"admin:{name}", args=[tenant.id, *more]))] if more else []

    assert {answer.status_code for answer in [theirs, nobodys, *mixed]} == {404}
    assert theirs.content == nobodys.content


def test_workers_are_shown_to_those_who_run_the_farm(
    superuser: Client, member_of: Callable[[Tenant, str], Client], rows: Rows, tenant: Tenant
) -> None:
    rows.worker("io@one/4711", 4711)

    assert "io@one/4711" in page(superuser, "tenants_worker_changelist")
    assert member_of(tenant, "owner").get(reverse("admin:tenants_worker_changelist")).status_code == 403


def test_who_is_not_logged_in_is_asked_to(own_database: object, tenant: Tenant) -> None:
    answer = Client().get(reverse("admin:tenants_thread_line", args=[tenant.id, new_id()]))

    assert answer.status_code == 302
    assert "/login/" in answer.headers["Location"]


@pytest.mark.parametrize("name", ["thread", "run", "storeitem", "worker", "audit", "apikey"])
def test_what_the_flow_writes_cannot_be_added_or_changed_here(superuser: Client, rows: Rows, name: str) -> None:
    for url in (f"/admin/tenants/{name}/add/", f"/admin/tenants/{name}/{new_id()}/delete/"):
        assert superuser.post(url).status_code in (302, 403, 404)
    assert superuser.get(f"/admin/tenants/{name}/add/").status_code in (403, 404)
