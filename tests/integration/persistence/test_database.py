"""The way to Postgres: who may start, whose rows a transaction sees, and what its errors become."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from psycopg import pq
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import make_url

from agentfarm.errors import (
    HeadMoved,
    LeaseLost,
    Misconfigured,
    RoleCanBypassIsolation,
    SchemaNotMigrated,
    StoreUnavailable,
    Unavailable,
)
from agentfarm.persistence import connections, wire
from agentfarm.persistence import database as module
from agentfarm.persistence.connections import BoundedConnection
from agentfarm.persistence.database import Database, Databases, check_at_start
from agentfarm.persistence.store_errors import CheckpointOutOfOrder, StoreFailed
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import ROOT, Home

PING = wire.Prepared("ping", "SELECT 1 AS one", "")
PID = wire.Prepared("pid", "SELECT pg_backend_pid() AS one", "")


@contextlib.contextmanager
def connected(home: Home, url: str) -> Iterator[Database]:
    database = Database(home.settings, url=SecretStr(url))
    try:
        yield database
    finally:
        database.dispose()


# --------------------------------------------------------------------------- at start


def test_the_roles_of_a_migrated_home_may_start(home: Home) -> None:
    check_at_start(home.app)
    check_at_start(home.ops, setting="DATABASE_OPS_URL", role="ops")


@pytest.mark.parametrize(
    ("role", "why"),
    [("farm_root", "is a superuser"), ("farm_owner", "owns our tables"), ("farm_admin", "see the rows of all")],
)
def test_a_role_that_could_see_over_the_walls_may_not_start(home: Home, role: str, why: str) -> None:
    with connected(home, home.url(role)) as database, pytest.raises(RoleCanBypassIsolation, match=why):
        check_at_start(database)


def test_a_role_that_bypasses_row_level_security_may_not_start(home: Home) -> None:
    url = make_url(home.url("farm_root")).set(username="bypassing", password="x")
    with home.connect() as root:
        root.execute("CREATE ROLE bypassing LOGIN BYPASSRLS PASSWORD 'x'")
        root.execute(f"GRANT CONNECT ON DATABASE {home.name} TO bypassing")  # type: ignore[arg-type]
        try:
            with (
                connected(home, url.render_as_string(hide_password=False)) as database,
                pytest.raises(RoleCanBypassIsolation, match="has BYPASSRLS"),
            ):
                check_at_start(database)
        finally:
            root.execute(f"REVOKE ALL ON DATABASE {home.name} FROM bypassing")  # type: ignore[arg-type]
            root.execute("DROP ROLE bypassing")


def test_a_member_of_the_owner_may_not_start(home: Home) -> None:
    with home.connect() as root:
        root.execute("GRANT farm_owner TO farm_app")
        try:
            with pytest.raises(RoleCanBypassIsolation, match="owns our tables"):
                check_at_start(home.app)
        finally:
            root.execute("REVOKE farm_owner FROM farm_app")


def test_a_schema_that_lacks_something_is_named(own_home: Home) -> None:
    with own_home.connect() as root:
        root.execute("DROP TABLE farm.superstep; DROP FUNCTION farm.end_run")

    with pytest.raises(SchemaNotMigrated, match=r"lacks table farm\.superstep, function farm\.end_run"):
        check_at_start(own_home.app)


def test_a_process_whose_serializer_is_not_strict_may_not_start() -> None:
    code = """
import agentfarm.persistence.database as database
try:
    database.check_at_start(None)
except database.StrictSerializerOff:
    print("refused")
"""
    off = {"LANGGRAPH_STRICT_MSGPACK": "false", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=off, capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "refused", done.stderr


# --------------------------------------------------------------------------- transactions


def test_a_transaction_knows_its_tenant_and_the_next_one_does_not(home: Home, acme: Tenant) -> None:
    with home.app.transaction(acme) as connection:
        assert connection.execute(text("SELECT farm.tenant()")).scalar_one() == acme.id
    with home.app.transaction_of_nobody() as connection:
        assert connection.execute(text("SELECT farm.tenant()")).scalar_one() is None


def test_bytes_come_as_they_are_where_that_is_asked_for_and_as_text_for_the_next(home: Home, acme: Tenant) -> None:
    def format_of_answers(*, binary: bool) -> pq.Format:
        with home.app.transaction(acme, binary=binary) as connection:
            answer = connection.execute(text("SELECT '\\x00ff'::bytea"))
            form = answer.cursor.format  # type: ignore[union-attr]  # psycopg's
            assert answer.scalar_one() == b"\x00\xff"
            return pq.Format(form)

    with contextlib.suppress(LookupError), home.app.transaction(acme, binary=True):
        raise LookupError
    assert format_of_answers(binary=False) is pq.Format.TEXT
    assert format_of_answers(binary=True) is pq.Format.BINARY
    assert format_of_answers(binary=False) is pq.Format.TEXT


def test_a_transaction_that_raises_leaves_nothing(home: Home, acme: Tenant) -> None:
    insert = text("INSERT INTO farm.thread (tenant_id, thread_id) VALUES (:id, :id)")

    def insert_and_fail() -> None:
        with home.app.transaction(acme) as connection:
            connection.execute(insert, {"id": acme.id})
            raise LookupError

    with pytest.raises(LookupError):
        insert_and_fail()

    assert home.query("SELECT count(*) FROM farm.thread") == [(0,)]


def test_a_home_that_nobody_configured_is_named(home: Home) -> None:
    with pytest.raises(Misconfigured, match="No home 'far' is configured here; there is main"):
        Databases(home.app).at("far")


# --------------------------------------------------------------------------- errors


def test_a_server_that_is_not_there_is_unavailable(home: Home, acme: Tenant) -> None:
    nowhere = Database(home.settings, url=SecretStr("postgresql://farm_app@127.0.0.1:1/none"))

    with pytest.raises(StoreUnavailable), nowhere.transaction(acme):
        pass
    with pytest.raises(StoreUnavailable):
        nowhere.call(PING, [])


def cut_all(home: Home) -> None:
    home.query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND usename = 'farm_app'",
        home.name,
    )


def test_connections_that_were_cut_while_idle_are_replaced_unseen(home: Home, acme: Tenant) -> None:
    home.app.call(PING, [])
    cut_all(home)
    assert home.app.call(PING, []).number("one") == 1

    cut_all(home)
    with home.app.transaction(acme) as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_connection_that_is_cut_in_the_middle_is_unavailable_and_replaced(own_home: Home, acme: Tenant) -> None:
    suicide = "SELECT pg_terminate_backend(pg_backend_pid())"
    with own_home.connect() as root:
        root.execute(
            "CREATE FUNCTION farm.suicide() RETURNS bool LANGUAGE sql SECURITY DEFINER AS " + f"$$ {suicide} $$"
        )  # type: ignore[arg-type]

    with pytest.raises(StoreUnavailable):
        own_home.app.call(wire.Prepared("suicide", "SELECT farm.suicide()", ""), [])
    with pytest.raises(StoreUnavailable), own_home.app.transaction(acme) as connection:
        connection.execute(text("SELECT farm.suicide()"))

    assert own_home.app.call(PING, []).number("one") == 1


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A backend that is reached and says nothing, as behind a proxy whose other side is cut: TCP sees no fault."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_server_that_falls_silent_is_unavailable_in_time_and_left(
    home: Home, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HOT_ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(BoundedConnection, "answer_seconds", 0.3)
    with connected(home, home.url("farm_app")) as database:
        with frozen(database.call(PID, []).number("one")):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                database.call(PING, [])
            assert database.call(PING, []).number("one") == 1

        with frozen(database.call(PID, []).number("one")):
            with pytest.raises(StoreUnavailable), database.transaction(acme):
                pass
            with database.transaction(acme) as connection:
                assert connection.execute(text("SELECT 1")).scalar_one() == 1
        assert time.monotonic() - began < 5


def test_of_several_hosts_the_one_that_takes_writes_is_taken(home: Home, acme: Tenant) -> None:
    url = make_url(home.url("farm_app"))
    hosts = f"127.0.0.1:1,{url.host}:{url.port}"
    several = f"postgresql://{url.username}:{url.password}@{hosts}/{url.database}?target_session_attrs=read-write"

    with connected(home, several) as database:
        assert database.call(PING, []).number("one") == 1
        with database.transaction(acme) as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_server_that_takes_no_writes_any_more_is_left(home: Home, acme: Tenant) -> None:
    """As the old one after a failover."""
    become_standby = "SELECT set_config('default_transaction_read_only', 'on', false)"
    write = f"INSERT INTO farm.thread (tenant_id, thread_id) VALUES ('{acme.id}', '{acme.id}')"
    with connected(home, home.url("farm_app")) as database:
        database.call(wire.Prepared("standby", become_standby, ""), [])
        with pytest.raises(StoreUnavailable):
            database.call(wire.Prepared("write", write, ""), [])
        assert database.call(PID, []).number("one")

        with database.transaction(acme) as connection:
            connection.exec_driver_sql(become_standby)
        with pytest.raises(StoreUnavailable), database.transaction(acme) as connection:
            connection.exec_driver_sql(write)
        with database.transaction(acme) as connection:
            read_only = connection.exec_driver_sql("SHOW default_transaction_read_only").scalar_one()
            assert read_only == "off"


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("40P01", StoreUnavailable),
        ("57014", StoreUnavailable),
        ("55P03", StoreUnavailable),
        ("53300", StoreUnavailable),
        ("53100", StoreUnavailable),
        ("25006", StoreUnavailable),
        ("AF001", HeadMoved),
        ("AF002", LeaseLost),
        ("AF003", CheckpointOutOfOrder),
        ("23505", StoreFailed),
        ("22P02", StoreFailed),
    ],
)
def test_each_error_of_postgres_has_one_meaning(home: Home, acme: Tenant, state: str, error: type[Exception]) -> None:
    raising = f"DO $$ BEGIN RAISE EXCEPTION USING errcode = '{state}', message = 'ids only', detail = 'the row'; END $$"

    with pytest.raises(error) as by_call:
        home.app.call(wire.Prepared(f"raise_{state}", raising, ""), [])
    with pytest.raises(error) as by_core, home.app.transaction(acme) as connection:
        connection.exec_driver_sql(raising)

    for raised in (by_call.value, by_core.value):
        assert type(raised) is error
        assert "the row" not in str(raised)
        assert isinstance(raised, Unavailable) == (error is StoreUnavailable)


def test_a_pool_that_is_used_up_is_unavailable(home: Home, acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POOL_TIMEOUT_SECONDS", 0.2)
    small = Database(home.settings.model_copy(update={"database_pool_size": 1}))

    with (
        small.transaction(acme),
        small.transaction(acme),
        pytest.raises(StoreUnavailable, match="AGENTFARM_DATABASE_POOL_SIZE"),
    ):
        small.call(PING, [])

    assert small.call(PING, []).number("one") == 1
    small.dispose()


def test_a_hot_call_leaves_its_connection_as_it_was(home: Home, acme: Tenant) -> None:
    """The same pool serves transactions; neither may find the other's."""
    for _ in range(3):
        home.app.call(PING, [])
        with home.app.transaction(acme) as connection:
            connection.execute(text("SELECT 1"))
    open_ones = home.query("SELECT state FROM pg_stat_activity WHERE usename = 'farm_app' AND datname = %s", home.name)
    assert set(open_ones) == {("idle",)}


def test_a_rollback_does_not_forget_the_prepared_calls(home: Home, acme: Tenant) -> None:
    """psycopg would answer it with DEALLOCATE ALL, once it has prepared a statement of its own."""

    def roll_back() -> None:
        with home.app.transaction(acme) as connection:
            for _ in range(20):
                connection.execute(text("SELECT 1"))
            raise LookupError

    home.app.call(PING, [])
    for _ in range(3):
        with pytest.raises(LookupError):
            roll_back()
        assert home.app.call(PING, []).number("one") == 1
    assert home.app.engine.pool.checkedin() == 1  # type: ignore[attr-defined]  # it was the same connection
    with home.app.transaction_of_nobody() as connection:
        names = {row[0] for row in connection.execute(text("SELECT name FROM pg_prepared_statements"))}
        assert names == {"ping"}
        connection.exec_driver_sql("DEALLOCATE ALL")
    assert home.app.call(PING, []).number("one") == 1


def test_plans_are_generic(home: Home) -> None:
    mode = wire.Prepared("mode", "SELECT current_setting('plan_cache_mode') AS mode", "")
    assert home.app.call(mode, []).text("mode") == "force_generic_plan"


def test_state_is_compressed_by_lz4_where_the_server_has_it(home: Home) -> None:
    [(has_it,)] = home.query("SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'")

    compressed = home.query("SELECT count(*) FROM pg_attribute WHERE attcompression = 'l' AND attrelid > 16384")

    assert compressed == [(7 if has_it else 0,)]
