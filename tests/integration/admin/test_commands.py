"""farm_setup, farm_key, farm_executions: what they do and what they print."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from langgraph.pregel._call import identifier

from agentfarm import wiring
from agentfarm.conf import forget_settings
from agentfarm.ids import new_id
from tenants.models import APIKey, Tenant
from tests.integration.admin.conftest import audit_of
from tests.integration.admin.rows import SECRET, Rows
from tests.integration.admin.test_actions import opens
from tests.integration.admin.test_pages import a_line
from tests.services import OwnDatabase


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


@pytest.fixture(autouse=True)
def _admin_url(own_database: OwnDatabase, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DATABASE_ADMIN_URL", own_database.admin_url)
    forget_settings()
    yield
    monkeypatch.undo()
    forget_settings()


def set_up(*arguments: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(run("farm_setup", "--json", *arguments))
    return made


def test_a_fresh_farm_has_two_tenants_with_keys_and_an_admin(own_database: OwnDatabase, tmp_path: Path) -> None:
    made = set_up("--secrets", str(tmp_path / "secrets.json"))

    assert [tenant["slug"] for tenant in made["tenants"]] == ["demo", "other"]
    for tenant in made["tenants"]:
        assert opens(own_database, tenant["key"]) == tenant["slug"]
        assert str(Tenant.objects.get(slug=tenant["slug"]).id) == tenant["id"]
    user = authenticate(username=made["admin"]["user"], password=made["admin"]["password"])
    assert user is not None
    assert user.is_superuser


def test_a_second_call_prints_the_same(tmp_path: Path) -> None:
    path = str(tmp_path / "secrets.json")

    first = set_up("--secrets", path)
    keys = APIKey.objects.count()

    assert set_up("--secrets", path) == first
    assert APIKey.objects.count() == keys


def test_a_key_that_was_revoked_is_replaced(own_database: OwnDatabase, tmp_path: Path) -> None:
    path = str(tmp_path / "secrets.json")
    first = set_up("--secrets", path)["tenants"][0]["key"]
    run("farm_key", "revoke", first)

    second = set_up("--secrets", path)["tenants"][0]["key"]

    assert second != first
    assert opens(own_database, first) is None
    assert opens(own_database, second) == "demo"


def test_without_a_file_what_exists_is_not_made_again(tmp_path: Path) -> None:
    set_up("--secrets", str(tmp_path / "secrets.json"))
    keys = APIKey.objects.count()

    made = set_up()

    assert [tenant["key"] for tenant in made["tenants"]] == [None, None]
    assert made["admin"]["password"] is None
    assert APIKey.objects.count() == keys


def test_a_key_is_issued_listed_and_revoked(
    own_database: OwnDatabase, root: psycopg.Connection, tenant: Tenant
) -> None:
    key = run("farm_key", "issue", tenant.slug, "--name", "for tests")
    assert opens(own_database, key) == tenant.slug

    listed = json.loads(run("farm_key", "list", tenant.slug, "--json"))
    assert [(row["name"], row["revoked_at"]) for row in listed] == [("for tests", None)]
    assert key.split("_", 2)[2] not in json.dumps(listed)

    assert "is revoked" in run("farm_key", "revoke", listed[0]["id"])
    assert "revoked before" in run("farm_key", "revoke", key)
    assert opens(own_database, key) is None
    assert audit_of(root, tenant.id) == [("issued", "api key"), ("revoked", "api key")]


def test_wrong_names_are_told_what_there_is(tenant: Tenant) -> None:
    with pytest.raises(CommandError, match=tenant.slug):
        run("farm_key", "issue", "nobody")
    with pytest.raises(CommandError, match="neither the id nor the text"):
        run("farm_key", "revoke", "nonsense")
    with pytest.raises(CommandError, match="no such key"):
        run("farm_key", "revoke", str(new_id()))


def test_the_executions_of_a_run_are_told_without_its_state(rows: Rows, tenant: Tenant) -> None:
    _, run_id = a_line(rows, tenant)

    told = json.loads(run("farm_executions", "--run", str(run_id), "--json"))

    assert [(one["node"], one["attempts"], one["step"]) for one in told] == [("plan", 1, 1), ("act", 2, 1)]
    assert told[0]["worker"]["name"] == "io@one/11"
    assert told[0]["worker"]["pid"] == 11
    assert told[0]["seconds"] == 1.5
    lost = {"worker": "io@three/33", "attempt": 1, "at": "2026-11-25T10:00:02Z", "given_back": False}
    assert told[1]["lost_to"] == [lost, {**lost, "worker": "io@four/44", "attempt": 2, "given_back": True}]
    assert SECRET not in json.dumps(told)
    table = run("farm_executions", "--run", str(run_id))
    assert "lost to io@three/33 (attempt 1)  given back by io@four/44 (attempt 2)" in table
    assert "waits for" not in table


def test_a_node_that_waits_for_its_retry_tells_which_and_when(rows: Rows, tenant: Tenant) -> None:
    thread_id, run_id = a_line(rows, tenant)
    rows.execution(tenant, thread_id, run_id, "charge", status="ready", outcome="retry", tries=2, error="Declined",
                   available_at="2026-11-25 12:00:00+00")  # fmt: skip

    told = json.loads(run("farm_executions", "--run", str(run_id), "--json"))[-1]

    assert (told["next_try"], told["available_at"]) == (3, "2026-11-25T12:00:00+00:00")
    assert "waits for try 3 after Declined, due 2026-11-25 12:00:00 UTC" in run("farm_executions", "--run", str(run_id))


@pytest.mark.usefixtures("real_farm")
def test_a_tenant_s_cached_results_are_cleared(root: psycopg.Connection, tenant: Tenant, other: Tenant) -> None:
    caches, line = wiring.farm().caches, wiring.graphs().get("line")

    def entries() -> list[tuple[str, str, str]]:
        """(tenant, graph, node) of what is cached."""
        return [
            (owner.slug, graph_id, node)
            for owner in (tenant, other)
            for graph_id in ("line", "failing")
            for node in "ab"
            if caches.of(owner.id, graph_id, fingerprint=line.fingerprint).get([key(node)])
        ]

    def key(node: str) -> tuple[tuple[str, ...], str]:
        return ("__pregel_ns_writes", identifier(line.graph.nodes[node]) or "", node), "input"

    for owner in (tenant, other):
        for graph_id in ("line", "failing"):
            for node in "ab":
                caches.of(owner.id, graph_id, fingerprint=line.fingerprint).set({key(node): ([("log", [1])], None)})
    everything = entries()
    assert len(everything) == 8

    run("farm_cache", "clear", tenant.slug, "--graph", "line", "--node", "a")
    assert entries() == everything[1:]
    run("farm_cache", "clear", tenant.slug, "--graph", "line")
    assert entries() == everything[2:]
    run("farm_cache", "clear", tenant.slug)
    assert entries() == everything[4:]

    assert audit_of(root, tenant.id) == [("cleared", "node cache")] * 3
    with pytest.raises(CommandError, match="no node nowhere"):
        run("farm_cache", "clear", tenant.slug, "--graph", "line", "--node", "nowhere")
    with pytest.raises(CommandError, match="no tenant"):
        run("farm_cache", "clear", "nobody")


def test_a_run_that_is_not_there_is_said() -> None:
    with pytest.raises(CommandError, match="no run"):
        run("farm_executions", "--run", str(new_id()))
    with pytest.raises(CommandError, match="must be a UUID"):
        run("farm_executions", "--run", "1")


def test_the_graphs_that_are_served_are_listed_and_the_others_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("graph = (\n")
    (tmp_path / "langgraph.json").write_text('{"graphs": {"broken": "./broken.py:graph"}}')
    monkeypatch.setenv("AGENTFARM_CONFIG", str(tmp_path / "langgraph.json"))
    forget_settings()
    monkeypatch.setattr("tenants.management.commands.farm_graphs.graphs", wiring.graphs.__wrapped__)
    out = StringIO()

    with pytest.raises(CommandError, match="1 of 1"):
        call_command("farm_graphs", stdout=out)

    assert "broken.py" in out.getvalue()
    assert run("farm_graphs", "--file-only") == "broken"


def test_an_env_file_that_is_not_there_is_named_before_any_graph_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "langgraph.json").write_text('{"graphs": {"a": "./a.py:graph"}, "env": ".env"}')
    monkeypatch.setenv("AGENTFARM_CONFIG", str(tmp_path / "langgraph.json"))
    forget_settings()

    with pytest.raises(CommandError, match=r"\.env"):
        run("farm_graphs", "--file-only")
