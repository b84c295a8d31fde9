"""What Python sends in binary is what the functions of Postgres take: under a wrong oid it would be another value."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from agentfarm import persistence
from agentfarm.persistence.wire import Prepared
from tests.services import OwnDatabase


def _prepared() -> Iterator[Prepared]:
    for module in pkgutil.iter_modules(persistence.__path__, f"{persistence.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Prepared):
                yield value


CALLS = sorted({statement.name: statement for statement in _prepared()}.values(), key=lambda statement: statement.name)


@pytest.fixture(scope="module")
def root(database: OwnDatabase) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.root_url, autocommit=True) as connection:
        yield connection


def test_the_hot_calls_were_found() -> None:
    names = {statement.name for statement in CALLS}

    assert {"claim", "claim_advance", "load_step", "commit", "settle", "retry_later", "open_at_head"} <= names


@pytest.mark.parametrize("statement", CALLS, ids=lambda statement: statement.name)
def test_a_call_sends_what_its_function_takes(root: psycopg.Connection[Any], statement: Prepared) -> None:
    found = re.search(r"farm\.(\w+)\((.*)\)", statement.sql)
    assert found is not None
    answers = re.findall(r"\bNULL\b", found[2])  # of a procedure: its INOUT parameters

    routines = root.execute(
        """SELECT p.proargtypes::oid[] FROM pg_proc p
            WHERE p.pronamespace = 'farm'::regnamespace AND p.proname = %s""",
        [found[1]],
    ).fetchall()

    assert len(routines) == 1, "one function of that name"
    takes = list(routines[0][0])
    assert takes[: len(statement.oids)] == list(statement.oids)
    assert len(takes) == len(statement.oids) + len(answers)
