"""What comes back as itself: 75 kinds of value, picked to find losses, through every pair of serializers.

"kept" is stock's promise and ours beside each other: where stock keeps a value, ours must; a stock reader must never
do worse with our bytes than with its own; and the values that ours loses are listed by name.
"""

import collections
import dataclasses
import enum
import ipaddress
import logging
import pathlib
import re
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send
from pydantic import BaseModel, Field, PrivateAttr, SecretStr

from agentfarm.persistence.serde import FaithfulSerializer


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Kind(str, enum.Enum):  # noqa: UP042  # the old spelling is what graphs have
    A = "a"


class Flag(enum.Flag):
    X = 1
    Y = 2


class Outer:
    class Inner(enum.Enum):
        ONE = "one"

    @dataclasses.dataclass
    class Data:
        x: int


class Point(NamedTuple):
    x: int
    y: Any = None


@dataclasses.dataclass
class Plain:
    a: Any
    b: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: Any


@dataclasses.dataclass
class NoInit:
    a: int
    b: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.b = self.a * 2


class Animal(BaseModel):
    name: str


class Dog(Animal):
    tricks: list[str] = []


class Zoo(BaseModel):
    boss: Animal
    any: Any = None
    pair: tuple[int, ...] = ()


class Aliased(BaseModel):
    x: int = Field(alias="theX")


class Private(BaseModel):
    a: int = 0
    _p: Any = PrivateAttr(default=None)


class Excluded(BaseModel):
    a: int = 0
    hidden: int = Field(default=0, exclude=True)


class Loose(BaseModel):
    model_config = {"extra": "allow"}
    a: int = 0


class Secret(BaseModel):
    s: SecretStr


class Name(str):
    __slots__ = ()


class Bag(dict[str, int]):
    pass


def make_local_classes() -> tuple[Any, Any, Any]:
    """Classes that no import finds, as a graph factory makes them."""

    class Shade(enum.Enum):
        DARK = "dark"

    @dataclasses.dataclass
    class Local:
        a: int

    class Model(BaseModel):
        a: int

    return Shade, Local, Model


LOCAL_CLASSES = _Shade, _Local, _Model = make_local_classes()


def _private() -> Private:
    value = Private(a=1)
    value._p = ("x", 2)
    return value


def _changed_after_init() -> NoInit:
    value = NoInit(3)
    value.b = 99
    return value


VALUES: dict[str, Any] = {
    "tuple": (1, 2),
    "tuple nested": {"a": [(1, (2, ())), ()]},
    "tuple as dict key": {(1, 2): 3},
    "set": {1, 2},
    "set of tuples": {(1, 2)},
    "frozenset": frozenset({1}),
    "set of frozensets": {frozenset({1, 2})},
    "deque": deque([1, 2]),
    "deque with maxlen": deque([1], maxlen=3),
    "OrderedDict": OrderedDict(b=1, a=2),
    "Counter": Counter("aab"),
    "defaultdict": defaultdict(int, a=1),
    "namedtuple": Point(1, (2, 3)),
    "dataclass": Plain((1,), {Color.RED}),
    "dataclass frozen slots": Frozen((1,)),
    "dataclass init=False": _changed_after_init(),
    "dataclass in class": Outer.Data(1),
    "dataclass local to a function": _Local(1),
    "Enum": Color.RED,
    "Enum with a tuple": Color.PAIR,
    "IntEnum": Level.LOW,
    "str Enum": Kind.A,
    "Flag combined": Flag.X | Flag.Y,
    "Enum in class": Outer.Inner.ONE,
    "Enum local to a function": _Shade.DARK,
    "Enum as dict key": {Color.RED: 1},
    "pydantic": Zoo(boss=Animal(name="a"), pair=(1, 2)),
    "pydantic subclass in field": Zoo(boss=Dog(name="d", tricks=["sit"])),
    "pydantic Any field": Zoo(boss=Animal(name="a"), any=(Dog(name="x"), Point(1))),
    "pydantic alias": Aliased(theX=1),
    "pydantic private attribute": _private(),
    "pydantic exclude=True": Excluded(a=1, hidden=5),
    "pydantic extra": Loose(a=1, z=(1, 2)),  # type: ignore[call-arg]
    "pydantic SecretStr": Secret(s=SecretStr("hush")),
    "pydantic local to a function": _Model(a=1),
    "pydantic fields_set": Private(a=0),
    "datetime naive": datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001  # what graphs hold
    "datetime utc": datetime(2026, 1, 2, tzinfo=UTC),
    "datetime ZoneInfo fold": datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    "datetime as dict key": {datetime(2026, 1, 1): 1},  # noqa: DTZ001
    "date": date(2026, 1, 1),
    "time": time(1, 2, tzinfo=UTC),
    "timedelta": timedelta(1, 2, 3),
    "timezone": timezone(timedelta(hours=2)),
    "UUID": uuid.UUID(int=1),
    "UUID as dict key": {uuid.UUID(int=1): 1},
    "Decimal": Decimal("1.10"),
    "complex": 1 + 2j,
    "Fraction": Fraction(1, 3),
    "int > 64 bit": 2**70,
    "float nan": float("nan"),
    "float inf": float("inf"),
    "bytes": {"a": b"x"},
    "bytearray nested": {"a": bytearray(b"x")},
    "NUL in a string": "a\x00b",
    "lone surrogate": "a\ud800b",
    "None and bool as keys": {None: 1, True: 2, 1.5: 3},
    "range": range(1, 5, 2),
    "Path": pathlib.Path("/a/b"),
    "PurePosixPath": pathlib.PurePosixPath("a/b"),
    "re.Pattern": re.compile("a+", re.IGNORECASE),
    "ip address": ipaddress.ip_address("::1"),
    "str subclass": Name("n"),
    "dict subclass": Bag(a=1),
    "AIMessage": AIMessage("x", id="1", tool_calls=[{"name": "f", "args": {"a": (1,)}, "id": "t"}]),
    "AIMessageChunk": AIMessageChunk("x", id="1"),
    "ToolMessage artifact": ToolMessage("x", tool_call_id="1", artifact=(1, {2})),
    "Document": Document("x", metadata={"t": (1,)}),
    "Send": Send("n", {"a": (1, 2)}),
    "Command": Command(update={"a": (1,)}, goto="x"),
    "Interrupt": Interrupt((1, 2), id="x"),
    "Overwrite": Overwrite((1,)),
    "delta snapshot": _DeltaSnapshot([(1,)]),
    "lc:1 envelope from a client": {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}},
    "exception": ValueError("x"),
    "class object": Plain,
    "lambda": lambda: 1,
}
TYPES: list[type] = [
    *(Color, Level, Kind, Flag, Outer.Inner, Outer.Data, Point, Plain, Frozen, NoInit, Animal, Dog, Zoo),
    *(Aliased, Private, Excluded, Loose, Secret, Name, Bag),
    *LOCAL_CLASSES,
]
#: What ours does not keep either.
LOST = {
    *("Enum as dict key", "datetime as dict key", "UUID as dict key", "bytearray nested", "lone surrogate"),
    *("Fraction", "exception", "class object", "lambda"),
}

STOCK_STRICT = JsonPlusSerializer(allowed_msgpack_modules=[(cls.__module__, cls.__name__) for cls in TYPES])
STOCK_OPEN = JsonPlusSerializer(allowed_msgpack_modules=True)
OURS = FaithfulSerializer(types=TYPES)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Stock warns of each of the values that it loses on purpose here."""
    stock = logging.getLogger("langgraph.checkpoint.serde.jsonplus")
    level = stock.level
    stock.setLevel(logging.ERROR)
    yield
    stock.setLevel(level)


def same(a: Any, b: Any) -> bool:
    """Equal and of one type, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and a != a:
        return bool(b != b)
    if isinstance(a, list | tuple | deque):
        alike = len(a) == len(b) and all(map(same, a, b)) and getattr(a, "maxlen", 0) == getattr(b, "maxlen", 0)
        return alike and getattr(a, "__dict__", None) == getattr(b, "__dict__", None)
    if isinstance(a, dict):
        alike = len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
        return alike and all(same(a[k], b[k]) for k in a) and _factory(a) == _factory(b)
    if isinstance(a, set | frozenset):
        return a == b and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, BaseModel):
        parts = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
        return all(same(getattr(a, part), getattr(b, part)) for part in parts)
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, datetime | time):
        return a == b and a.fold == b.fold and type(a.tzinfo) is type(b.tzinfo) and str(a.tzinfo) == str(b.tzinfo)
    if isinstance(a, Send):
        return a.node == b.node and same(a.arg, b.arg)
    if isinstance(a, BaseException):
        return repr(a) == repr(b)
    return bool(a == b)


def _factory(value: Any) -> Any:
    return value.default_factory if isinstance(value, collections.defaultdict) else None


@cache
def fate(name: str, writer: JsonPlusSerializer, reader: JsonPlusSerializer) -> str:
    """One of "kept", "lost" (something else came back), or the error's name."""
    try:
        back = reader.loads_typed(writer.dumps_typed(VALUES[name]))
    except Exception as error:
        return type(error).__name__
    return "kept" if same(VALUES[name], back) else "lost"


@pytest.mark.parametrize("name", VALUES)
def test_ours_keeps_every_value_but_the_listed_ones(name: str) -> None:
    assert (fate(name, OURS, OURS) == "kept") == (name not in LOST), fate(name, OURS, OURS)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("stock", [STOCK_STRICT, STOCK_OPEN], ids=["strict", "open"])
def test_a_stock_reader_does_no_worse_with_our_bytes_than_with_its_own(name: str, stock: JsonPlusSerializer) -> None:
    if fate(name, stock, stock) == "kept":
        assert fate(name, OURS, stock) == "kept"
    elif fate(name, OURS, OURS) in ("kept", "lost"):
        assert fate(name, OURS, stock) in ("kept", "lost")


@pytest.mark.parametrize("name", VALUES)
def test_ours_reads_what_stock_has_written(name: str) -> None:
    if fate(name, STOCK_STRICT, STOCK_STRICT) == "kept":
        assert fate(name, STOCK_STRICT, OURS) == "kept"


@pytest.mark.parametrize("name", sorted(VALUES.keys() - LOST - {"class object", "lambda"}))
@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: Send("node", value),
        lambda value: Send("node", {"deep": [value]}),
        lambda value: Interrupt(value, id="1"),
        lambda value: Command(resume=value),
        lambda value: Command(update={"x": value}, goto=[Send("n", value)]),
        lambda value: Command(resume={"interrupt-id": value}),
        lambda value: [("channel", value)],
    ],
    ids=["Send", "Send deep", "interrupt", "resume", "update and goto", "resume map", "writes"],
)
def test_a_value_survives_every_way_through_a_graph(name: str, wrap: Any) -> None:
    value = wrap(VALUES[name])

    assert same(OURS.loads_typed(OURS.dumps_typed(value)), value)
