"""The control tables' walls, with the admin's pages out of the way: what each role may do in the database itself."""

import psycopg
import pytest
from psycopg import errors

from agentfarm.ids import new_id
from tenants.models import APIKey, Tenant, record
from tests.services import OwnDatabase

CONTROL = ["tenants_tenant", "tenants_member", "tenants_apikey", "tenants_audit"]
DJANGOS = ["auth_user", "django_session", "django_admin_log"]


@pytest.mark.parametrize("table", [*CONTROL, *DJANGOS])
@pytest.mark.parametrize("role", ["app_url", "ops_url"])
def test_web_workers_and_healer_read_no_control_table(own_database: OwnDatabase, role: str, table: str) -> None:
    with psycopg.connect(getattr(own_database, role)) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(f"SELECT * FROM public.{table}")


def test_the_web_process_is_told_one_key_and_cannot_list_them(own_database: OwnDatabase, tenant: Tenant) -> None:
    row, new = APIKey.issue(tenant, "one")
    APIKey.issue(tenant, "two")

    with psycopg.connect(own_database.app_url) as app:
        found = app.execute("SELECT * FROM farm.find_api_key(%s)", [row.id]).fetchall()
        assert found == [(new.hash, tenant.id, tenant.slug, "main", False, "postgres")]
        assert app.execute("SELECT * FROM farm.find_api_key(%s)", [new_id()]).fetchall() == []
        assert app.execute("SELECT * FROM farm.find_api_key(NULL)").fetchall() == []
        assert app.execute("SELECT * FROM farm.find_tenant(%s)", [tenant.slug]).fetchall() == [
            (tenant.id, tenant.slug, "main", False, "postgres")
        ]


@pytest.mark.parametrize("role", ["ops_url", "admin_url"])
def test_no_other_role_may_ask_for_keys(own_database: OwnDatabase, role: str) -> None:
    with psycopg.connect(getattr(own_database, role)) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM farm.find_api_key(%s)", [new_id()])


def test_a_setting_of_the_web_process_opens_nothing(own_database: OwnDatabase, tenant: Tenant) -> None:
    row, _ = APIKey.issue(tenant, "one")

    with psycopg.connect(own_database.app_url) as app:
        app.execute("SELECT set_config('farm.api_key', %s, true)", [str(row.id)])
        with pytest.raises(errors.InsufficientPrivilege):
            app.execute("SELECT * FROM public.tenants_apikey")


@pytest.mark.parametrize("table", ["tenants_member", "tenants_apikey", "tenants_audit"])
def test_the_owner_sees_no_row_of_a_tenant(own_database: OwnDatabase, tenant: Tenant, table: str) -> None:
    APIKey.issue(tenant, "one")
    record("test", "looked at", "tenant", tenant.id, tenant_id=tenant.id)

    with psycopg.connect(own_database.owner_url) as owner:
        assert owner.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_use_is_sampled_once_a_minute(own_database: OwnDatabase, tenant: Tenant) -> None:
    row, _ = APIKey.issue(tenant, "one")

    with psycopg.connect(own_database.app_url, autocommit=True) as app:
        used = []
        for _ in range(3):
            app.execute("SELECT farm.mark_api_key_used(%s)", [row.id])
            row.refresh_from_db()
            used.append(row.last_used_at)

    assert used[0] is not None
    assert used == [used[0]] * 3


@pytest.mark.parametrize("role", ["admin_url", "owner_url", "root_url"])
@pytest.mark.parametrize(
    "statement", ["UPDATE tenants_audit SET who = 'nobody'", "DELETE FROM tenants_audit", "TRUNCATE tenants_audit"]
)
def test_the_audit_is_only_added_to(own_database: OwnDatabase, tenant: Tenant, role: str, statement: str) -> None:
    record("test", "looked at", "tenant", tenant.id, tenant_id=tenant.id)

    with psycopg.connect(getattr(own_database, role), autocommit=True) as connection:
        if role == "owner_url" and "TRUNCATE" not in statement:
            # Row-level security leaves him no row to change, so that no trigger is reached either.
            assert connection.execute(statement).rowcount == 0
        else:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement)
    with psycopg.connect(own_database.root_url) as root:
        assert root.execute("SELECT count(*) FROM tenants_audit WHERE tenant_id = %s", [tenant.id]).fetchone() == (1,)


@pytest.mark.parametrize("statement", ["DELETE FROM tenants_tenant", "DELETE FROM tenants_apikey"])
def test_the_admin_deletes_neither_tenants_nor_keys(own_database: OwnDatabase, statement: str) -> None:
    with psycopg.connect(own_database.admin_url) as admin, pytest.raises(errors.InsufficientPrivilege):
        admin.execute(statement)


@pytest.mark.parametrize("column", ["spec", "body", "blob"])
def test_the_admin_cannot_read_state(own_database: OwnDatabase, column: str) -> None:
    tables = {
        "spec": ("run", "node_execution"),
        "body": ("checkpoint", "checkpoint_write"),
        "blob": ("checkpoint_blob",),
    }
    for table in tables[column]:
        with psycopg.connect(own_database.admin_url) as admin, pytest.raises(errors.InsufficientPrivilege):
            admin.execute(f"SELECT {column} FROM farm.{table}")


def test_every_table_of_the_app_that_has_a_tenant_is_walled(own_database: OwnDatabase) -> None:
    with psycopg.connect(own_database.root_url) as root:
        open_tables = root.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"
            " AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
        ).fetchall()
    assert open_tables == []
