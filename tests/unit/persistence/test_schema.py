"""The roles that a migration needs: made where it may, named where it may not."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from agentfarm.errors import Misconfigured
from agentfarm.persistence.schema import ROLES, ensure_roles


class Server:
    """As much of a database as ensure_roles asks for."""

    def __init__(self, have: set[str], *, may_create: bool) -> None:
        self.have, self.may_create = set(have), may_create
        self.answer: list[tuple[Any, ...]] = []
        self.connection = self

    @contextlib.contextmanager
    def cursor(self) -> Iterator["Server"]:
        yield self

    def execute(self, sql: str, params: Any = None) -> None:
        if sql.startswith("CREATE ROLE"):
            assert self.may_create
            assert "NOLOGIN" in sql
            assert "NOBYPASSRLS" in sql
            self.have.add(sql.split()[2])
        elif "rolcreaterole" in sql:
            self.answer = [(self.may_create,)]
        else:
            self.answer = [(role,) for role in params[0] if role in self.have]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.answer

    def fetchone(self) -> tuple[Any, ...]:
        return self.answer[0]


def test_roles_that_are_there_are_left_alone() -> None:
    ensure_roles(None, Server(set(ROLES), may_create=False))  # type: ignore[arg-type]


def test_missing_roles_are_made_without_login_where_that_is_allowed() -> None:
    server = Server({"farm_app"}, may_create=True)

    ensure_roles(None, server)  # type: ignore[arg-type]

    assert server.have == set(ROLES)


def test_missing_roles_that_may_not_be_made_are_named_with_their_statements() -> None:
    with pytest.raises(Misconfigured) as refused:
        ensure_roles(None, Server({"farm_app"}, may_create=False))  # type: ignore[arg-type]

    sentence = str(refused.value)
    assert "CREATE ROLE farm_ops LOGIN PASSWORD '…' NOSUPERUSER NOBYPASSRLS" in sentence
    assert "CREATE ROLE farm_admin" in sentence
    assert "farm_app" not in sentence
