"""The way to Postgres: one pool a process and home, transactions that are born with their tenant, and the hot calls.

What its errors become is store_errors.py's; which statements there are is everybody else's.
"""

import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, cast
from uuid import UUID

import psycopg
from psycopg import Cursor, pq
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy import exc as sa_errors
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import PoolProxiedConnection

from agentfarm.conf import Settings
from agentfarm.engine._langgraph_serde import STRICT_MSGPACK_ENABLED
from agentfarm.errors import (
    Misconfigured,
    RoleCanBypassIsolation,
    SchemaNotMigrated,
    StoreUnavailable,
    StrictSerializerOff,
)
from agentfarm.persistence.connections import (
    ANSWERED,
    STATEMENT_TIMEOUT_SECONDS,
    BinaryCursor,
    BoundedConnection,
    Silent,
    connect,
)
from agentfarm.persistence.store_errors import refusal, translate, translated
from agentfarm.persistence.tables import metadata
from agentfarm.persistence.wire import Answer, Param, Prepared
from agentfarm.tenancy import Tenant

#: A transaction that its process has forgotten must not hold its locks for ever.
IDLE_IN_TRANSACTION_SECONDS: Final = 60
POOL_TIMEOUT_SECONDS: Final = 10.0

#: Generic plans: with the default, Postgres plans the blob lookup of a claim anew at each call (0.40, not 0.20 ms CPU).
OPTIONS: Final = (
    "-c plan_cache_mode=force_generic_plan"
    f" -c statement_timeout={STATEMENT_TIMEOUT_SECONDS}s"
    f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_SECONDS}s"
    " -c timezone=UTC"
)

_NOT_PREPARED: Final = b"26000"

#: What a server says that takes no writes: after a failover, all connections to it are of no more use.
_READ_ONLY: Final = "25006"


class Database:
    """One home, as one role.

    home  its name
    url   who connects; DATABASE_URL when not given
    """

    def __init__(self, settings: Settings, home: str = "main", *, url: SecretStr | None = None) -> None:
        self.home = home
        self.engine = _make_engine((url or settings.database_url).get_secret_value(), settings)

    @contextmanager
    def transaction(self, tenant: Tenant | UUID, *, binary: bool = False) -> Iterator[Connection]:
        """A transaction that sees and writes this tenant's rows, and nobody else's. All of it is committed, or nothing.

        binary  answers come in Postgres' binary format: for rows that are bytes, of types that psycopg knows
        raises  StoreUnavailable, StoreFailed, and what the functions of sql/ refuse with
        """
        tenant_id = tenant.id if isinstance(tenant, Tenant) else tenant
        with translated(), self.engine.begin() as connection:
            driver = cast("BoundedConnection", connection.connection.driver_connection)
            self._begin(connection, driver, tenant_id)
            driver.cursor_factory = BinaryCursor if binary else Cursor
            try:
                yield connection
            finally:
                driver.cursor_factory = Cursor  # whoever has the connection next

    def _begin(self, connection: Connection, driver: BoundedConnection, tenant_id: UUID) -> None:
        try:
            # Hex digits, whatever it is: the simple protocol takes no parameters.
            driver.begin(f"SELECT set_config('farm.tenant', '{tenant_id.hex}', true)".encode())
        except psycopg.Error as error:
            connection.invalidate()
            if isinstance(error, psycopg.OperationalError):
                self.engine.dispose()  # those that are idle lead to the same server
            raise translate(error) from None

    @contextmanager
    def transaction_of_nobody(self) -> Iterator[Connection]:
        """A transaction without a tenant: row-level security shows it no row. For the healer and for checks."""
        with translated(), self.engine.begin() as connection:
            yield connection

    def call(self, statement: Prepared, params: Sequence[Param], *, again: bool = False) -> Answer:
        """A hot call: one round trip, outside of a transaction block, which the function opens and its end commits.

        params  in Postgres' binary format (wire.py), as the answer is
        again   it may be sent a second time when the connection turns out to be gone
        raises  StoreUnavailable: it may have been carried out; LeaseLost, HeadMoved, StoreFailed: it was not
        """
        try:
            return self._call(statement, params)
        except StoreUnavailable:
            if not again:
                raise
        return self._call(statement, params)

    def _call(self, statement: Prepared, params: Sequence[Param]) -> Answer:
        with self._lent() as line:
            return line.call(statement, params)

    def call_all(self, statement: Prepared, each: Sequence[Sequence[Param]]) -> list[Answer]:
        """The same function for each of these, in one transaction: one flush serves them all, or nothing is done.

        raises  StoreUnavailable: it may have been carried out; what the function refuses with: nothing was
        """
        with self._lent() as line, line.transaction():
            return [line.call(statement, params) for params in each]

    @contextmanager
    def _lent(self) -> Iterator["_Line"]:
        """A connection of the pool for hot calls, and what becomes of it when one fails."""
        with translated():
            pooled = self.engine.raw_connection()
        line = _Line(cast("BoundedConnection", pooled.driver_connection), pooled.info)
        try:
            yield line
        except psycopg.Error as error:
            pooled.invalidate()
            if isinstance(error, Silent):
                self.engine.dispose()
            raise translate(error) from None
        finally:
            if line.is_of_no_more_use and pooled.is_valid:
                pooled.invalidate()
                self.engine.dispose()  # those that are idle lead to the same server
            _give_back(pooled)

    def dispose(self, *, close: bool = True) -> None:
        """Give all connections up. close=False in a forked child: the sockets are its parent's."""
        self.engine.dispose(close=close)


class Databases:
    """The homes that this process can reach."""

    def __init__(self, *databases: Database) -> None:
        self._by_home = {database.home: database for database in databases}

    def at(self, home: str) -> Database:
        """Raises Misconfigured for a home that this process was not told of."""
        try:
            return self._by_home[home]
        except KeyError:
            known = ", ".join(self._by_home)
            raise Misconfigured(f"No home {home!r} is configured here; there is {known}.") from None

    def of(self, tenant: Tenant) -> Database:
        return self.at(tenant.home)

    def transaction(self, tenant: Tenant) -> AbstractContextManager[Connection]:
        """On the tenant's home; see Database.transaction."""
        return self.of(tenant).transaction(tenant)

    def dispose(self, *, close: bool = True) -> None:
        for database in self._by_home.values():
            database.dispose(close=close)


# --------------------------------------------------------------------------- connections


def _make_engine(url: str, settings: Settings) -> Engine:
    engine = create_engine(
        "postgresql+psycopg://",
        # The URL is libpq's to read: SQLAlchemy knows no list of hosts.
        # Once it has prepared something, psycopg answers a ROLLBACK with DEALLOCATE ALL, and our names are gone.
        creator=lambda: connect(url, settings, application="agentfarm", options=OPTIONS, prepare_threshold=None),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_pool_size,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_use_lifo=True,  # what is not needed ages out at the other end
        pool_recycle=1800,
        hide_parameters=True,
    )
    event.listen(engine, "checkout", _refuse_dead)
    event.listen(engine, "handle_error", _leave_read_only)
    return engine


def _refuse_dead(connection: Any, record: Any, proxy: Any) -> None:
    """A ping without a round trip: an idle connection has nothing to read, but for the end of a server that is gone."""
    if connection.closed:
        raise sa_errors.DisconnectionError
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    if poll.poll(0):
        raise sa_errors.DisconnectionError


def _leave_read_only(context: ExceptionContext) -> None:
    """Counts as a lost server: SQLAlchemy then makes the whole pool anew."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


@dataclass(slots=True)
class _Line:
    """A connection while it is lent for hot calls. info: what the pool keeps with it"""

    connection: BoundedConnection
    info: dict[Any, Any]
    is_of_no_more_use: bool = False

    def call(self, statement: Prepared, params: Sequence[Param]) -> Answer:
        """Raises what the server refuses with, and psycopg.Error."""
        return Answer(self._checked(_execute(self.connection, self.info, statement, params)))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._checked(self.connection.command(b"BEGIN"))
        try:
            yield
        except BaseException:
            if self.connection.pgconn.status == pq.ConnStatus.OK:
                self.connection.command(b"ROLLBACK")
            raise
        self._checked(self.connection.command(b"COMMIT"))

    def _checked(self, result: pq.abc.PGresult) -> pq.abc.PGresult:
        if result.status not in ANSWERED:
            state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            self.is_of_no_more_use = state == _READ_ONLY or self.connection.pgconn.status != pq.ConnStatus.OK
            raise refusal(result)
        return result


def _execute(
    connection: BoundedConnection, info: dict[Any, Any], statement: Prepared, params: Sequence[Param]
) -> pq.abc.PGresult:
    name = statement.name.encode()
    prepared: set[bytes] = info.setdefault("farm_prepared", set())
    if name in prepared:
        result = connection.execute_prepared(name, statement, params)
        if result.error_field(pq.DiagnosticField.SQLSTATE) != _NOT_PREPARED:
            return result
        prepared.clear()  # somebody said DEALLOCATE ALL, a pooler for example; nothing was executed
    result = connection.prepare(name, statement)
    if result.status not in ANSWERED:
        return result
    prepared.add(name)
    return connection.execute_prepared(name, statement, params)


def _give_back(pooled: PoolProxiedConnection) -> None:
    if pooled.is_valid:
        pooled.close()


# --------------------------------------------------------------------------- at start

#: What each role cannot work without.
_FUNCTIONS: Final[Mapping[str, frozenset[str]]] = {
    "app": frozenset(
        {
            "tenant",
            "claim",
            "commit",
            "settle",
            "read_end",
            "admit",
            "admit_alone",
            "end_run",
            "register",
            "beat",
            "store_put",
            "store_namespaces",
        }
    ),
    "ops": frozenset({"ops_sweep", "ops_lost", "ops_stalled", "ops_unannounced", "ops_expired"}),
}

_ROLE = text(
    """
    SELECT r.rolname, r.rolsuper, r.rolbypassrls,
           EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = 'farm' AND pg_has_role(r.oid, c.relowner, 'MEMBER')) AS owns,
           EXISTS (SELECT FROM pg_roles o
                    WHERE o.rolname IN ('farm_admin', 'farm_ops') AND pg_has_role(r.oid, o.oid, 'MEMBER')) AS sees_all
      FROM pg_roles r WHERE r.rolname = current_user
    """
)
_MISSING_TABLES = text("SELECT t FROM unnest(CAST(:tables AS text[])) t WHERE to_regclass(t) IS NULL ORDER BY t")
_HAVE_FUNCTIONS = text(
    "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'farm'"
)


def check_at_start(database: Database, *, setting: str = "DATABASE_URL", role: Literal["app", "ops"] = "app") -> None:
    """Refuse to start where tenants would not be safe from each other, or where the schema is not there.

    setting  the variable that the connection came from, for the error
    raises   RoleCanBypassIsolation, SchemaNotMigrated, StrictSerializerOff, StoreUnavailable
    """
    if not STRICT_MSGPACK_ENABLED:
        raise StrictSerializerOff
    with database.transaction_of_nobody() as connection:
        name, is_super, bypasses, owns, sees_all = connection.execute(_ROLE).one()
        refused = {
            "is a superuser": is_super,
            "has BYPASSRLS": bypasses,
            "owns our tables": owns,
            "has the policies of farm_admin or farm_ops, which see the rows of all": sees_all and role == "app",
        }
        for why in (why for why, is_so in refused.items() if is_so):
            raise RoleCanBypassIsolation(role=name, setting=setting, why=why)
        tables = [f"farm.{table.name}" for table in metadata.sorted_tables]
        missing = [f"table {row[0]}" for row in connection.execute(_MISSING_TABLES, {"tables": tables})]
        have = {row[0] for row in connection.execute(_HAVE_FUNCTIONS)}
        missing += [f"function farm.{function}" for function in sorted(_FUNCTIONS[role] - have)]
    if missing:
        raise SchemaNotMigrated(setting=setting, missing=", ".join(missing))
