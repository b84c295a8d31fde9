"""Rows of PostgreSQL as files, and back: exactly the bytes that a build has stored."""

import json
from collections.abc import Iterator
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


def files() -> Iterator[tuple[str, str, Path]]:
    """(build, graph, file), oldest first."""
    for file in sorted(FOLDER.glob("*/*.rows.json")):
        yield file.parent.name, file.name.removesuffix(".rows.json"), file


def take(root: psycopg.Connection[Any], tenant_id: UUID) -> dict[str, list[Any]]:
    """{table: its rows of this tenant}; bytes as PostgreSQL writes them in text."""
    return {
        table: [
            row
            for (row,) in root.execute(
                f"SELECT to_jsonb(t) FROM farm.{table} t WHERE t.tenant_id = %s ORDER BY t::text",  # our tables
                [tenant_id],
            )
        ]
        for table in TABLES
    }


def put(root: psycopg.Connection[Any], rows: dict[str, list[Any]]) -> None:
    """Into a database of today: columns that are newer than the file get their defaults."""
    for table in TABLES:
        for row in rows[table]:
            columns = ", ".join(row)
            root.execute(
                f"INSERT INTO farm.{table} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::farm.{table}, %s)",  # noqa: E501
                [json.dumps(row)],
            )
