"""Rows of PostgreSQL as files, and back: exactly the bytes that a build has stored."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

FOLDER = Path(__file__).parent / "golden"

#: In the order in which they may be put back.
TABLES = (
    "thread",
    "thread_head",
    "run",
    "checkpoint",
    "checkpoint_blob",
    "checkpoint_write",
    "node_execution",
    "superstep",
)


#: What threads know nothing of: a tenant's items.
STORE_TABLES = ("store_item", "store_vector")

#: Of stock's PostgresSaver, in the schema that its connection finds first.
STOCK_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


def files() -> Iterator[tuple[str, str, Path]]:
    """(build, graph, file), oldest first."""
    for file in sorted(FOLDER.glob("*/*.rows.json")):
        yield file.parent.name, file.name.removesuffix(".rows.json"), file


def take(root: psycopg.Connection[Any], tenant_id: UUID) -> dict[str, list[Any]]:
    """{table: its rows of this tenant}; bytes as PostgreSQL writes them in text."""
    mine = "SELECT to_jsonb(t) FROM farm.{} t WHERE t.tenant_id = %s ORDER BY t::text"
    return {table: _rows(root, mine.format(table), tenant_id) for table in TABLES}


def take_store(root: psycopg.Connection[Any], tenant_id: UUID) -> dict[str, list[Any]]:
    """The same of its items, each row as text: Python would write the numbers of a value in another way."""
    mine = "SELECT to_jsonb(t)::text FROM farm.{} t WHERE t.tenant_id = %s ORDER BY t::text"
    return {table: _rows(root, mine.format(table), tenant_id) for table in STORE_TABLES}


def take_stocks(root: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """{table: all of its rows}."""
    return {table: _rows(root, f"SELECT to_jsonb(t) FROM {table} t ORDER BY t::text") for table in STOCK_TABLES}


def _rows(root: psycopg.Connection[Any], sql: str, *parameters: object) -> list[Any]:
    return [row for (row,) in root.execute(sql, parameters)]  # type: ignore[arg-type]  # of our tables


def put(root: psycopg.Connection[Any], rows: dict[str, list[Any]], tables: Sequence[str] = TABLES) -> None:
    """Into a database of today: columns that are newer than the file get their defaults."""
    for table in tables:
        name = table if tables is STOCK_TABLES else f"farm.{table}"
        for row in rows[table]:
            told = row if isinstance(row, str) else json.dumps(row)
            columns = ", ".join(json.loads(told))
            root.execute(
                f"INSERT INTO {name} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{name}, %s)", [told]
            )
