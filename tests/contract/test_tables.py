"""What SQLAlchemy believes is what Django has migrated, and every table of tenants stands behind its wall."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from agentfarm.persistence.database import _FUNCTIONS
from agentfarm.persistence.tables import SCHEMA, TENANT_TABLES, metadata
from tests.services import OwnDatabase


@pytest.fixture(scope="module")
def root(database: OwnDatabase) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.root_url, autocommit=True) as connection:
        yield connection


def test_the_tables_are_those_that_are_migrated(database: OwnDatabase) -> None:
    engine = create_engine(make_url(database.root_url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:

        def is_ours(name: str | None, kind: str, parents: Any) -> bool:
            return kind != "schema" or name == SCHEMA

        options = {"include_schemas": True, "include_name": is_ours, "compare_type": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    engine.dispose()

    assert [str(difference) for difference in found] == []


def test_every_table_of_tenants_is_walled(root: psycopg.Connection[Any]) -> None:
    rows = root.execute(
        """SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
                  ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid
                         AND p.polname = 'wall' AND p.polpermissive AND p.polcmd = '*'
                         AND p.polroles = ARRAY['farm_app'::regrole::oid]
                         AND pg_get_expr(p.polqual, c.oid) = '(tenant_id = farm.tenant())'
                         AND pg_get_expr(p.polwithcheck, c.oid) = '(tenant_id = farm.tenant())')
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
            WHERE c.relnamespace = 'farm'::regnamespace AND c.relkind IN ('r', 'p')"""
    ).fetchall()

    assert {row[0] for row in rows} == {table.name for table in TENANT_TABLES}
    assert [row for row in rows if row[1:] != (True, True, ["wall"])] == []


def test_the_app_is_under_no_other_policy_than_the_wall(root: psycopg.Connection[Any]) -> None:
    rows = root.execute(
        """SELECT c.relname, p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
            WHERE c.relnamespace = 'farm'::regnamespace AND p.polname <> 'wall'
              AND (0 = ANY (p.polroles) OR 'farm_app'::regrole = ANY (p.polroles))"""
    ).fetchall()

    assert rows == []


def test_every_unique_index_begins_with_the_tenant(root: psycopg.Connection[Any]) -> None:
    rows = root.execute(
        """SELECT c.relname, i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
            WHERE c.relnamespace = 'farm'::regnamespace AND i.indisunique AND c.relname <> 'worker'
              AND a.attname <> 'tenant_id'"""
    ).fetchall()

    assert rows == []


def test_no_foreign_key_lets_one_tenant_ask_for_anothers_row(root: psycopg.Connection[Any]) -> None:
    assert (
        root.execute(
            "SELECT conname FROM pg_constraint WHERE connamespace = 'farm'::regnamespace AND contype = 'f'"
        ).fetchall()
        == []
    )


def test_no_function_is_for_everybody(root: psycopg.Connection[Any]) -> None:
    rows = root.execute(
        """SELECT p.oid::regprocedure::text FROM pg_proc p
            WHERE p.pronamespace = 'farm'::regnamespace AND p.prorettype <> 'trigger'::regtype
              AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0))"""
    ).fetchall()

    assert rows == []


def test_the_hot_functions_run_with_their_callers_rights(root: psycopg.Connection[Any]) -> None:
    """A function that ran as the tables' owner would be a door in the wall."""
    definers = {
        row[0]
        for row in root.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'farm'::regnamespace AND prosecdef")
    }

    assert definers & (_FUNCTIONS["app"] | _FUNCTIONS["ops"]) == set()
    # Those of the control tables (tenants/sql): each is bounded by the id that it is asked for.
    assert definers <= {"find_api_key", "mark_api_key_used", "find_tenant", "checkpoint_sizes"}


def test_the_tenant_is_read_anew_by_every_plan(root: psycopg.Connection[Any]) -> None:
    """IMMUTABLE would be folded into the plan of the tenant who came first."""
    assert root.execute(
        "SELECT provolatile::text FROM pg_proc WHERE oid = 'farm.tenant()'::regprocedure"
    ).fetchone() == ("s",)


def test_the_files_of_the_schema_may_be_run_again(database: OwnDatabase) -> None:
    """A later migration replaces functions and walls by running their files."""
    from agentfarm.persistence.sql import read_sql

    with psycopg.connect(database.owner_url) as owner:
        for name in ("admit.sql", "hot.sql", "heal.sql", "store.sql", "walls.sql"):
            owner.execute(read_sql(name))  # type: ignore[arg-type]
        rights = """SELECT count(*) FROM pg_proc WHERE pronamespace = 'farm'::regnamespace
                       AND has_function_privilege('farm_app', oid, 'EXECUTE')"""
        count = owner.execute(rights).fetchone()
        owner.rollback()
        assert owner.execute(rights).fetchone() == count
