"""What Postgres' errors become. Drivers' errors end here.

`StoreUnavailable` says that trying again can help; `LeaseLost` and `HeadMoved` are what the functions of sql/hot.sql
refuse with; everything else is a bug of ours, which `StoreFailed` names by its SQLSTATE, without the row that Postgres
would show.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import pq
from sqlalchemy import exc as sa_errors

from agentfarm.errors import AgentFarmError, HeadMoved, LeaseLost, StoreUnavailable

#: SQLSTATEs, or their first two letters, after which trying again can help: lost connections, too many of them,
#: shutdowns, timeouts (57014: statement, 55P03: lock, 25P03: idle), deadlocks, serialisation, a full disk, and a server
#: that takes no writes (25006), as the old one does after a failover.
MAY_SUCCEED_LATER: Final = ("08", "53", "57", "58", "40001", "40P01", "55P03", "25P03", "25006")


class StoreFailed(AgentFarmError):
    """Postgres refused a statement: a bug of ours. The row that it complains about is not repeated."""

    code = "store_failed"
    says = "The database refused a statement (SQLSTATE {sqlstate}, {where}). Nothing was saved."


class CheckpointOutOfOrder(AgentFarmError):
    """A checkpoint would come before its parent, and so would never be the latest of its thread."""

    code = "checkpoint_out_of_order"


class SavedTwice(AgentFarmError):
    """An execution would save its writes a second time in one run: a fence did not hold."""

    code = "saved_twice"


#: What the functions of sql/ raise. Their texts are ours, and hold ids only.
_OURS: Final[Mapping[str, type[AgentFarmError]]] = {
    "AF001": HeadMoved,
    "AF002": LeaseLost,
    "AF003": CheckpointOutOfOrder,
    "AF004": SavedTwice,
}


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except sa_errors.TimeoutError as error:
        raise StoreUnavailable(
            "No connection to the database came free in time. Raise AGENTFARM_DATABASE_POOL_SIZE if this is common."
        ) from error
    except sa_errors.DBAPIError as error:
        # `from None`: the driver's text may show the row that it complains about.
        raise translate(error.orig, gone=error.connection_invalidated) from None
    except psycopg.Error as error:
        raise translate(error) from None


def translate(error: BaseException | None, *, gone: bool = False) -> AgentFarmError:
    if not isinstance(error, psycopg.Error):
        return StoreFailed(sqlstate="none", where=type(error).__name__)
    state = error.sqlstate or ""
    if gone or (not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)):
        return StoreUnavailable()
    constraint = error.diag.constraint_name or error.diag.table_name or type(error).__name__
    return _error_of(state, error.diag.message_primary or "", constraint)


def refusal(result: pq.abc.PGresult) -> AgentFarmError:
    def told(field: pq.DiagnosticField) -> str:
        return (result.error_field(field) or b"").decode(errors="replace")

    state = told(pq.DiagnosticField.SQLSTATE)
    if not state:  # libpq's own: the connection broke
        return StoreUnavailable()
    where = (
        told(pq.DiagnosticField.CONSTRAINT_NAME) or told(pq.DiagnosticField.TABLE_NAME) or "a function of schema farm"
    )
    return _error_of(state, told(pq.DiagnosticField.MESSAGE_PRIMARY), where)


def _error_of(state: str, message: str, where: str) -> AgentFarmError:
    if state in _OURS:
        return _OURS[state](message)
    if state.startswith(MAY_SUCCEED_LATER):
        return StoreUnavailable()
    return StoreFailed(sqlstate=state, where=where)
