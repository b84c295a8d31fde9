"""Parameters and answers in Postgres' binary format, made by hand.

For the hot calls alone: psycopg's dumpers and loaders cost a worker 0.06 to 0.3 ms a statement, as much as Postgres
needs for the statement itself. Everything else goes through SQLAlchemy Core.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast
from uuid import UUID

from psycopg.pq.abc import PGresult

#: Type names as `Prepared.types` spells them, and their oids: fixed in Postgres' catalogue.
OIDS: Final = {
    "bool": 16,
    "bytea": 17,
    "int8": 20,
    "int4": 23,
    "text": 25,
    "float8": 701,
    "interval": 1186,
    "uuid": 2950,
    "jsonb": 3802,
    "bool[]": 1000,
    "bytea[]": 1001,
    "int4[]": 1007,
    "int8[]": 1016,
    "text[]": 1009,
    "uuid[]": 2951,
}

Param = bytes | None

_INT4 = struct.Struct(">i")
_INT8 = struct.Struct(">q")
_HEAD = struct.Struct(">iiIii")  # dimensions, has nulls, oid of the elements, length, first index
_INTERVAL = struct.Struct(">qii")  # microseconds, days, months
_NULL = _INT4.pack(-1)
_JSONB_VERSION = b"\x01"

TRUE: Final = b"\x01"
FALSE: Final = b"\x00"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that a connection prepares once, under its name.

    types  of its parameters, in order, one word each
    """

    name: str
    sql: str
    types: str
    oids: tuple[int, ...] = field(init=False)
    formats: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        oids = tuple(OIDS[word] for word in self.types.split())
        object.__setattr__(self, "oids", oids)
        object.__setattr__(self, "formats", (1,) * len(oids))


def function(name: str, types: str) -> Prepared:
    """A function of schema farm, called for its one row."""
    return Prepared(name, f"SELECT * FROM farm.{name}({_places(types)})", types)  # noqa: S608  # names of ours


def procedure(name: str, types: str, *, answers: int) -> Prepared:
    """A procedure of schema farm, with that many INOUT parameters at its end."""
    return Prepared(name, f"CALL farm.{name}({_places(types)}{', NULL' * answers})", types)


def _places(types: str) -> str:
    return ", ".join(f"${n + 1}" for n in range(len(types.split())))


# --------------------------------------------------------------------------- to Postgres


def put_bool(value: bool) -> bytes:  # one value is all there is
    return TRUE if value else FALSE


def put_int4(value: int) -> bytes:
    return _INT4.pack(value)


def put_int8(value: int) -> bytes:
    return _INT8.pack(value)


def put_text(value: str | None) -> Param:
    return None if value is None else value.encode()


def put_uuid(value: UUID | None) -> Param:
    return None if value is None else value.bytes


def put_seconds(value: float) -> bytes:
    """As an interval."""
    return _INTERVAL.pack(round(value * 1_000_000), 0, 0)


def put_jsonb(document: bytes | None) -> Param:
    """document  JSON, as bytes"""
    return None if document is None else _JSONB_VERSION + document


def put_array(oid: int, items: Sequence[Param]) -> bytes:
    """One dimension; None is NULL."""
    if not items:
        return struct.pack(">iiI", 0, 0, oid)
    out = [_HEAD.pack(1, int(None in items), oid, len(items), 1)]
    for item in items:
        if item is None:
            out.append(_NULL)
        else:
            out.append(_INT4.pack(len(item)))
            out.append(item)
    return b"".join(out)


def put_texts(items: Iterable[str]) -> bytes:
    return put_array(OIDS["text"], [item.encode() for item in items])


def put_texts_or_none(items: Iterable[str | None]) -> bytes:
    return put_array(OIDS["text"], [put_text(item) for item in items])


def put_uuids(items: Iterable[bytes | None]) -> bytes:
    return put_array(OIDS["uuid"], list(items))


def put_blobs(items: Iterable[bytes]) -> bytes:
    return put_array(OIDS["bytea"], list(items))


def put_ints(items: Iterable[int]) -> bytes:
    return put_array(OIDS["int4"], [_INT4.pack(item) for item in items])


def put_bigints(items: Iterable[int | None]) -> bytes:
    return put_array(OIDS["int8"], [None if item is None else put_int8(item) for item in items])


def put_bools(items: Iterable[bool]) -> bytes:
    return put_array(OIDS["bool"], [put_bool(item) for item in items])


# --------------------------------------------------------------------------- from Postgres


def get_array(value: Param) -> list[Param]:
    """The elements, NULLs as None; empty for NULL."""
    if value is None or len(value) <= 12:
        return []
    (length,) = _INT4.unpack_from(value, 12)
    at, items = 20, list[Param]()
    for _ in range(length):
        (size,) = _INT4.unpack_from(value, at)
        at += 4
        if size < 0:
            items.append(None)
        else:
            items.append(value[at : at + size])
            at += size
    return items


class Answer:
    """The rows of a hot call, by column name. `at` picks the row; functions answer with one, always."""

    __slots__ = ("_columns", "_result")

    def __init__(self, result: PGresult) -> None:
        self._result = result
        self._columns = {(result.fname(n) or b"").decode(): n for n in range(result.nfields)}

    @property
    def rows(self) -> int:
        return self._result.ntuples

    def raw(self, name: str, at: int = 0) -> Param:
        return self._result.get_value(at, self._columns[name])

    def number(self, name: str, at: int = 0) -> int:
        """int4 or int8. Raises TypeError for NULL."""
        return int.from_bytes(self.data(name, at), signed=True)

    def flag(self, name: str, at: int = 0) -> bool:
        """NULL is false."""
        return self.raw(name, at) == TRUE

    def text(self, name: str, at: int = 0) -> str:
        """NULL is empty."""
        return (self.raw(name, at) or b"").decode()

    def data(self, name: str, at: int = 0) -> bytes:
        """Raises TypeError for NULL."""
        if (value := self.raw(name, at)) is None:
            raise TypeError(f"{name} is NULL")
        return value

    def find_uuid(self, name: str, at: int = 0) -> UUID | None:
        return None if (value := self.raw(name, at)) is None else UUID(bytes=value)

    def uuid(self, name: str, at: int = 0) -> UUID:
        """Raises TypeError for NULL."""
        return UUID(bytes=self.data(name, at))

    def items(self, name: str, at: int = 0) -> list[bytes]:
        """The elements of an array; empty for NULL. Raises TypeError for a NULL among them."""
        items = get_array(self.raw(name, at))
        if None in items:
            raise TypeError(f"{name} has a NULL")
        return cast("list[bytes]", items)
