"""How a connection to Postgres is made, and how long it may keep silent.

The server limits what a statement may take, and TCP notices a host that is gone. Neither notices a server that is
reached and says nothing: a frozen one, or a proxy whose other side is cut. So every wait of ours has an end.
"""

from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors, generators, pq
from psycopg.abc import PQGen

from agentfarm.conf import Settings
from agentfarm.persistence.wire import Prepared

T = TypeVar("T")

#: A statement of ours takes milliseconds; one that takes this long is stuck behind a lock or a dead disk, and its
#: caller is better told.
STATEMENT_TIMEOUT_SECONDS: Final = 30

#: No answer within this is a lost connection: the server itself would have ended the statement before.
ANSWER_SECONDS: Final = STATEMENT_TIMEOUT_SECONDS + 2.0

#: The same for a hot call, as long as a lease: what waits longer than that was taken over by another worker.
HOT_ANSWER_SECONDS: Final = 15.0

#: What a statement ends with that was carried out.
ANSWERED: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)

#: A peer that vanished without a word (cut cable, lost host) is noticed after 5 + 3 x 2 seconds.
_KEEPALIVES: Final[dict[str, Any]] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class Silent(psycopg.OperationalError):
    """The server did not answer in time: the connection is of no more use, and others to the same server may not be."""


class BinaryCursor(psycopg.Cursor[Any]):
    """psycopg's, whose answers come in Postgres' binary format."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = pq.Format.BINARY


class BoundedConnection(psycopg.Connection[Any]):
    """psycopg's, whose every wait ends."""

    answer_seconds: float = ANSWER_SECONDS

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return super().wait(gen, interval=interval, timeout=self.answer_seconds if timeout is None else timeout)
        except errors._WaitTimeout:  # psycopg's own name: it has no public one
            self.pgconn.finish()  # an answer that comes later would be taken for that of the next statement
            raise Silent("the server did not answer in time") from None

    def begin(self, statement: bytes) -> None:
        """Begin a transaction with a statement: one round trip, where psycopg's own BEGIN takes one for itself.

        raises  psycopg.Error
        """
        self.pgconn.send_query(b"BEGIN; " + statement)
        for result in self.wait(generators.execute(self.pgconn)):
            if result.status not in ANSWERED:
                raise errors.error_from_result(result, encoding=self.info.encoding)

    def execute_prepared(self, name: bytes, statement: Prepared, params: Any) -> pq.abc.PGresult:
        """The answer to one hot call; an error of the server's is in it. Raises psycopg.Error, for example Silent."""
        self.pgconn.send_query_prepared(name, params, statement.formats, 1)
        return self._hot_answer()

    def prepare(self, name: bytes, statement: Prepared) -> pq.abc.PGresult:
        self.pgconn.send_prepare(name, statement.sql.encode(), list(statement.oids))
        return self._hot_answer()

    def command(self, sql: bytes) -> pq.abc.PGresult:
        """BEGIN, COMMIT, ROLLBACK around hot calls. Raises psycopg.Error, for example Silent."""
        self.pgconn.send_query(sql)
        return self._hot_answer()

    def _hot_answer(self) -> pq.abc.PGresult:
        answers: list[pq.abc.PGresult] = self.wait(generators.execute(self.pgconn), timeout=HOT_ANSWER_SECONDS)
        return answers[-1]


def connect(
    url: str,
    settings: Settings,
    *,
    application: str,
    options: str = "",
    answer_seconds: float | None = None,
    **more: Any,
) -> BoundedConnection:
    """url  as libpq reads it: with several hosts and target_session_attrs=read-write, the one that takes writes now

    raises  psycopg.OperationalError
    """
    connection = BoundedConnection.connect(
        url,
        connect_timeout=max(1, round(settings.connect_timeout_seconds)),
        application_name=application,
        options=options,
        **_KEEPALIVES,
        **more,
    )
    if answer_seconds is not None:
        connection.answer_seconds = answer_seconds
    return connection
