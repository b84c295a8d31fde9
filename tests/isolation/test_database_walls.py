"""P5, the first wall, with the others off: a connection as farm_app, and SQL that forgets every WHERE.

The tables and functions are read from the catalogue, so that a new one is tested without being named here.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from agentfarm.engine.steps import SegmentResult
from agentfarm.engine.store_config import StoreConfig, StoreIndex
from agentfarm.persistence.database import Databases
from agentfarm.persistence.store import PostgresStores
from agentfarm.persistence.tables import TENANT_TABLES
from agentfarm.records import Claimed
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand, begin, go_on, own_writes, settled, start
from tests.integration.persistence.postgres import Home

TABLES = [table.name for table in TENANT_TABLES]

#: Columns that hold state; for the healer also those that hold words of a tenant (metadata, texts of errors, channels).
STATE = {
    "farm_ops": {
        *("spec", "body", "replaced_body", "blob", "metadata", "config", "error", "refs", "key", "task_path"),
        *("namespace", "value", "vector", "field"),
    },
    "farm_admin": {"spec", "body", "replaced_body", "blob", "value", "vector"},
}


#: Whatever is asked for, every item is as good as another: a semantic search that knows no walls of its own.
LIKE_ALL = StoreConfig(StoreIndex.of({"embed": lambda texts: [[1.0] for _ in texts], "dims": 1, "fields": ["text"]}))


@pytest.fixture
def both(home: Home, hand: Hand, acme: Tenant, globex: Tenant) -> tuple[Claimed, Claimed]:
    """Both tenants have a thread with the same id, rows in every table, and a node that is being executed."""
    thread_id = uuid4()
    return fill(home, hand, acme, thread_id), fill(home, hand, globex, thread_id)


def fill(home: Home, hand: Hand, tenant: Tenant, thread_id: UUID) -> Claimed:
    first = hand.claim(start(home, tenant, thread_id))
    (to_one,) = hand.commit(first, begin(first, "one", secret=f"secret of {tenant.slug} " * 50)).ready
    one = hand.claim(to_one)
    to_a, _ = hand.commit(one, go_on(one, "a", "b")).ready
    a = hand.claim(to_a)
    assert a.call is not None
    saver = a.saver
    config = {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": "", "checkpoint_id": a.call.checkpoint_id}}
    saver.put_writes(config, [("secret", f"secret of {tenant.slug}")], str(uuid4()))  # type: ignore[arg-type]
    home.query(
        "INSERT INTO farm.dead_letter"
        " (tenant_id, run_id, thread_id, checkpoint_id, execution_id, graph_id, node, attempts)"
        " VALUES (%s, %s, %s, %s, %s, 'agent', 'one', 6) RETURNING 1",
        *(tenant.id, first.message.run_id, thread_id, first.message.checkpoint_id, first.message.execution_id),
    )
    home.query(
        "INSERT INTO farm.idempotency_key (tenant_id, name, digest, run_id) VALUES (%s, 'same', '', %s) RETURNING 1",
        *(tenant.id, first.message.run_id),
    )
    store = PostgresStores(Databases(home.app), LIKE_ALL, max_value_bytes=1000).of(tenant)
    store.put(("secrets",), "secret", {"text": f"secret of {tenant.slug}"}, ttl=5)
    return a


@pytest.fixture
def as_globex(home: Home, globex: Tenant) -> Iterator[psycopg.Connection[Any]]:
    """The app's own role, in a transaction of globex. Rolled back."""
    with psycopg.connect(home.url("farm_app")) as connection:
        connection.execute("SELECT set_config('farm.tenant', %s, true)", (str(globex.id),))
        yield connection
        connection.rollback()


# --------------------------------------------------------------------------- tables


def test_every_table_that_has_a_tenant_is_filled_for_both(
    home: Home, both: object, acme: Tenant, globex: Tenant
) -> None:
    for table in TABLES:
        found = home.query(f"SELECT DISTINCT tenant_id FROM farm.{table}")
        assert {row[0] for row in found} == {acme.id, globex.id}, table


@pytest.mark.parametrize("table", TABLES)
def test_a_query_that_forgets_its_tenant_sees_one_tenant(
    table: str, both: object, as_globex: psycopg.Connection[Any], globex: Tenant
) -> None:
    found = as_globex.execute(f"SELECT DISTINCT tenant_id FROM farm.{table}").fetchall()

    assert found == [(globex.id,)]


@pytest.mark.parametrize("table", TABLES)
def test_nothing_of_another_tenant_can_be_changed_or_removed(
    table: str, home: Home, both: object, as_globex: psycopg.Connection[Any], acme: Tenant
) -> None:
    mine = home.query(f"SELECT count(*) FROM farm.{table} WHERE tenant_id = %s", acme.id)

    updated = as_globex.execute(f"UPDATE farm.{table} SET tenant_id = tenant_id WHERE tenant_id = %s", (acme.id,))
    assert updated.rowcount == 0
    assert as_globex.execute(f"DELETE FROM farm.{table} WHERE tenant_id = %s", (acme.id,)).rowcount == 0
    as_globex.execute(f"DELETE FROM farm.{table}")
    as_globex.commit()

    assert home.query(f"SELECT count(*) FROM farm.{table} WHERE tenant_id = %s", acme.id) == mine


@pytest.mark.parametrize("table", TABLES)
def test_no_row_can_be_given_to_another_tenant(
    table: str, both: object, as_globex: psycopg.Connection[Any], acme: Tenant
) -> None:
    columns = [
        row[0]
        for row in as_globex.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (f"farm.{table}",),
        )
    ]
    others = ", ".join(column for column in columns if column != "tenant_id")
    copied = f"INSERT INTO farm.{table} (tenant_id, {others}) SELECT '{acme.id}', {others} FROM farm.{table}"

    for attempt in (copied, f"UPDATE farm.{table} SET tenant_id = '{acme.id}'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"), as_globex.transaction():
            as_globex.execute(attempt)


@pytest.mark.parametrize("table", TABLES)
def test_the_same_id_tells_nobody_that_another_tenant_has_it(
    table: str, both: object, home: Home, globex: Tenant, acme: Tenant
) -> None:
    """No unique index spans tenants, so a conflict can never be an oracle."""
    keys = home.query(
        """SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_index i
             CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(attnum, n)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE i.indrelid = %s::regclass AND i.indisunique GROUP BY i.indexrelid""",
        f"farm.{table}",
    )

    assert keys
    assert all(columns[0][0] == "tenant_id" for columns in keys)


@pytest.mark.parametrize("how", ["never set", "emptied", "set outside of a transaction"])
@pytest.mark.parametrize("table", TABLES)
def test_a_connection_without_a_tenant_sees_nothing(
    table: str, how: str, home: Home, both: object, acme: Tenant
) -> None:
    with home.connect("farm_app") as connection:
        if how == "emptied":
            connection.execute("SET farm.tenant = ''")
        if how == "set outside of a transaction":
            connection.execute("SELECT set_config('farm.tenant', %s, true)", (str(acme.id),))

        assert connection.execute(f"SELECT count(*) FROM farm.{table}").fetchone() == (0,)


def test_a_pooled_connection_keeps_no_tenant(home: Home, both: object, acme: Tenant) -> None:
    with home.app.transaction(acme) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM farm.thread").scalar_one() == 1
    for _ in range(5):
        with home.app.transaction_of_nobody() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM farm.thread").scalar_one() == 0


# --------------------------------------------------------------------------- functions


def test_a_prepared_function_answers_each_tenant_with_its_own(
    hand: Hand, both: tuple[Claimed, Claimed], acme: Tenant, globex: Tenant
) -> None:
    """A tenant folded into a plan would answer the second with the first one's rows."""
    for claimed, mine, other in ((both[0], acme, globex), (both[1], globex, acme)) * 3:
        history = list(claimed.saver.list({"configurable": {"thread_id": str(claimed.thread_id)}}))
        told = repr([found.checkpoint["channel_values"] for found in history])

        assert len(history) == 2
        assert f"secret of {mine.slug}" in told
        assert f"secret of {other.slug}" not in told


def test_the_functions_of_the_store_see_the_tenant_of_the_transaction_alone(
    as_globex: psycopg.Connection[Any], home: Home, both: object, acme: Tenant
) -> None:
    """They take no tenant that could be another's."""
    before = facts(home, acme.id)

    listed = as_globex.execute("SELECT farm.store_namespaces('', '[]', NULL, 100, 0)").fetchall()
    as_globex.execute("UPDATE farm.store_item SET expires_at = now() - interval '1 s'")
    swept = as_globex.execute("SELECT farm.store_sweep(100)").fetchone()
    as_globex.execute("SELECT farm.store_refresh('{secrets}', '{secret}')")
    as_globex.execute("SELECT farm.store_put('{secrets}', '{secret}', '{NULL}', '{NULL}', '{}', '{}', '{}')")
    as_globex.commit()

    assert (listed, swept) == ([(["secrets"],)], (1,))
    assert facts(home, acme.id) == before
    assert home.query("SELECT tenant_id FROM farm.store_item") == [(acme.id,)]


def test_no_message_of_one_tenant_moves_the_run_of_another(
    home: Home, hand: Hand, both: tuple[Claimed, Claimed], globex: Tenant
) -> None:
    of_acme = both[0]
    forged = replace(of_acme.message, tenant_id=globex.id)

    assert hand.refusal(forged) == "gone"
    assert hand.refusal(replace(forged, execution_id=UUID(int=0))) == "gone"
    assert hand.executions.open_at_head(forged) == ()
    assert hand.commit(of_acme, settled(of_acme, "done")).ended is None


def test_every_function_of_a_tenant_refuses_the_ids_of_another(
    home: Home, both: tuple[Claimed, Claimed], globex: Tenant
) -> None:
    """Called with globex as tenant and every other id acme's, nothing of acme's may change, whatever is answered."""
    message, claimed = both[0].message, both[0]
    given: dict[str, Any] = {
        "p_tenant": globex.id,
        "p_thread": claimed.thread_id,
        "p_run": message.run_id,
        "p_ckpt": message.checkpoint_id,
        "p_exec": message.execution_id,
        "p_fence": claimed.fence,
        "p_worker": claimed.saver.held.worker,  # type: ignore[attr-defined]
    }
    before, said, called = facts(home, message.tenant_id), [], set()
    with home.connect("farm_app") as connection:
        for name, statement, arguments in functions_of_tenants(connection):
            params = [given.get(argument, made_up(kind)) for argument, kind in arguments]
            try:
                said.append(repr(connection.execute(statement, params).fetchall()))  # type: ignore[arg-type]
            except psycopg.Error as error:
                said.append(repr(error))
            called.add(name)

    assert {"claim", "commit", "settle", "admit", "bury", "put_checkpoint", "forget_thread", "cancel_run"} <= called
    assert not [text for text in said if "secret of acme" in text]
    assert facts(home, message.tenant_id) == before


def test_no_function_leaves_its_tenant_to_who_has_the_connection_next(
    home: Home, both: tuple[Claimed, Claimed]
) -> None:
    message = both[0].message
    given: dict[str, Any] = {
        "p_tenant": message.tenant_id,
        "p_thread": both[0].thread_id,
        "p_run": message.run_id,
        "p_ckpt": message.checkpoint_id,
        "p_exec": message.execution_id,
    }
    left = {}
    with home.connect("farm_app") as connection:
        for name, statement, arguments in functions_of_tenants(connection):
            params = [given.get(argument, made_up(kind)) for argument, kind in arguments]
            with contextlib.suppress(psycopg.Error):  # most refuse what is made up, some after they have set the tenant
                connection.execute(statement, params)  # type: ignore[arg-type]
            left[name] = connection.execute("SELECT farm.tenant()").fetchone()

    assert {"claim", "claim_advance", "open_at_head"} <= left.keys()
    assert {name for name, tenant in left.items() if tenant != (None,)} == set()


def functions_of_tenants(connection: psycopg.Connection[Any]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(name, how to call it, [(argument, its type)]) of all that take a tenant. INOUT arguments are given as NULL."""
    rows = connection.execute(
        """SELECT p.proname, p.prokind::text, u.n, p.proargnames[u.n], format_type(u.t, NULL),
                  coalesce(p.proargmodes[u.n]::text, 'i')
             FROM pg_proc p CROSS JOIN LATERAL unnest(p.proargtypes::oid[]) WITH ORDINALITY u(t, n)
            WHERE p.pronamespace = 'farm'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE')
              AND 'p_tenant' = ANY (p.proargnames) AND p.proname NOT LIKE 'ops%'
            ORDER BY p.proname, u.n"""
    ).fetchall()
    found = []
    for (name, kind), group in itertools.groupby(rows, key=lambda row: (row[0], row[1])):
        arguments = [(row[3], row[4], row[5]) for row in group]
        places = ", ".join("NULL" if mode == "b" else f"%s::{of}" for _, of, mode in arguments)
        verb = "CALL" if kind == "p" else "SELECT * FROM"
        taken = [(argument, of) for argument, of, mode in arguments if mode != "b"]
        found.append((name, f"{verb} farm.{name}({places})", taken))
    return found


def made_up(kind: str) -> object:
    if kind == "boolean":
        return True
    if kind == "interval":
        return "0 s"
    if kind in {"integer", "bigint"}:
        return 0
    return None


def facts(home: Home, tenant_id: UUID) -> dict[str, Any]:
    return {
        table: sorted(map(repr, home.query(f"SELECT t::text FROM farm.{table} t WHERE tenant_id = %s", tenant_id)))
        for table in TABLES
    }


# --------------------------------------------------------------------------- the other roles


@pytest.mark.parametrize("role", ["farm_ops", "farm_admin"])
def test_neither_healer_nor_operator_can_read_state(role: str, home: Home) -> None:
    readable = home.query(
        """SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'farm'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
              AND has_column_privilege(%s, c.oid, a.attnum, 'SELECT')""",
        role,
    )

    assert ("run", "status") in readable
    assert [(table, column) for table, column in readable if column in STATE[role]] == []


def test_the_healer_can_write_nothing_but_leases_times_and_whose_workers(home: Home) -> None:
    writable = home.query(
        """SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'farm'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
              AND has_column_privilege('farm_ops', c.oid, a.attnum, 'UPDATE')"""
    )
    creatable = home.query(
        """SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'farm'::regnamespace AND c.relkind = 'r'
              AND has_any_column_privilege('farm_ops', c.oid, 'INSERT')"""
    )

    leases = {"status", "queue", "fence", "worker", "available_at", "published_at", "publishes", "lost_to"}
    assert {tuple(row) for row in writable} == {
        *(("node_execution", column) for column in leases),
        *(("superstep", column) for column in ("fence", "worker", "published_at")),
        ("run", "build"),
        ("worker", "ended_at"),
        ("worker", "lost"),
    }
    assert creatable == []


def test_the_owner_of_the_tables_sees_no_row_of_them(home: Home, both: object) -> None:
    with home.connect("farm_owner") as connection:
        for table in TABLES:
            assert connection.execute(f"SELECT count(*) FROM farm.{table}").fetchone() == (0,), table


def test_the_app_owns_nothing_and_may_do_no_ddl(home: Home) -> None:
    owned = home.query("SELECT relname FROM pg_class WHERE relowner = 'farm_app'::regrole")
    assert owned == []
    for statement in (
        "ALTER TABLE farm.thread DISABLE ROW LEVEL SECURITY",
        "DROP POLICY wall ON farm.thread",
        "CREATE TABLE farm.mine (x int)",
        "TRUNCATE farm.thread",
        "SET ROLE farm_owner",
        "ALTER ROLE farm_app BYPASSRLS",
    ):
        with home.connect("farm_app") as connection, pytest.raises(psycopg.Error) as refused:
            connection.execute(statement)  # type: ignore[arg-type]
        assert refused.value.sqlstate == "42501", statement


def test_an_error_of_the_database_names_no_value(home: Home, hand: Hand, both: tuple[Claimed, Claimed]) -> None:
    """What Postgres says about a row it refuses would show the row."""
    from agentfarm.persistence.store_errors import StoreFailed

    claimed = both[0]
    assert claimed.call is not None
    wrong = replace(claimed.call, name="\x00 secret of acme", execution_id=str(uuid4()))
    result = SegmentResult(ops=[own_writes(claimed, ("x", "secret of acme"))], next=(wrong,))

    with pytest.raises(StoreFailed) as refused:
        hand.commit(claimed, result)

    shown = f"{refused.value} {refused.value.facts} {refused.value.__cause__} {refused.value.__context__}"
    assert not re.search("secret", shown)
