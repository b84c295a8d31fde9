"""What comes back as itself: 150 kinds of value, picked to find losses, through every pair of serializers.

"kept" is stock's promise and ours beside each other: where stock keeps a value, ours must; a stock reader must never
do worse with our bytes than with its own. Ours keeps a value or refuses it by name: it loses none in silence.
tests/integration/persistence/test_value_matrix.py sends the same values through graphs.
"""

import collections
import dataclasses
import enum
import ipaddress
import logging
import pathlib
import re
import threading
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cache
from io import StringIO
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import attrs
import numpy as np
import pytest
from langchain_core.agents import AgentAction
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send
from pydantic import AnyUrl, BaseModel, Field, HttpUrl, PrivateAttr, SecretStr, computed_field
from pydantic import dataclasses as pydantic_dataclasses
from pydantic import v1 as pydantic_1

from agentfarm.errors import ValueLost
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


class Tagged(str):  # noqa: SLOT000  # it is to have attributes
    tag: Any = None


class Bag(dict[str, int]):
    pass


class Choosy(dict[str, int]):
    """Its constructor takes something else than a dict."""

    def __init__(self, *, limit: int) -> None:
        self.limit = limit


class Stack(list[Any]):
    pass


class Cents(int):
    pass


class Pair(tuple[Any, ...]):  # noqa: SLOT001  # as graphs have it
    pass


class Kinds(enum.StrEnum):
    A = "a"


class Bits(enum.IntFlag):
    X = 1
    Y = 2


class Planet(enum.Enum):
    EARTH = (5.9, 6.3)

    def __init__(self, mass: float, radius: float) -> None:
        self.mass = mass


@dataclasses.dataclass(kw_only=True)
class KeywordOnly:
    a: Any
    b: Any = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class WithInitVar:
    a: int
    scale: dataclasses.InitVar[int]
    b: int = dataclasses.field(init=False, default=0)

    def __post_init__(self, scale: int) -> None:
        self.b = self.a * scale
        self.beside = ("x", scale)


@dataclasses.dataclass
class Base:
    a: int


@dataclasses.dataclass
class Derived(Base):
    b: Any = None


@pydantic_dataclasses.dataclass
class Checked:
    a: int
    b: tuple[int, ...] = ()


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


class Computed(BaseModel):
    a: int

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def double(self) -> int:
        return self.a * 2


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Fish(BaseModel):
    kind: Literal["fish"] = "fish"
    depth: float = 1.0


class Owner(BaseModel):
    pet: Annotated[Cat | Fish, Field(discriminator="kind")]


class Linked(BaseModel):
    url: HttpUrl


class Locked(BaseModel):
    a: tuple[int, ...] = ()
    _lock: Any = PrivateAttr(default_factory=threading.Lock)


class Old(pydantic_1.BaseModel):
    a: int
    b: Any = None


class OldHolder(pydantic_1.BaseModel):
    old: Old
    any: Any = None


@attrs.define
class Slotted:
    a: Any
    _b: int = 2


class OutOfTune(Exception):
    """Its constructor takes something else than what it passes on."""

    def __init__(self, note: str, *, by: float) -> None:
        super().__init__(f"{note} by {by}")
        self.by = by


class NotNamed(Exception):
    """The graph does not name it."""


class Unknown(BaseModel):
    """The graph does not name it."""

    a: int = 0


class UnknownKind(enum.IntEnum):
    A = 1


class UnknownBag(dict[str, int]):
    pass


class UnknownWhen(datetime):
    pass


def _error(error: BaseException, *, cause: BaseException | None = None, note: str = "") -> BaseException:
    error.__cause__ = cause
    if note:
        error.add_note(note)
    return error


def _tagged() -> Tagged:
    value = Tagged("t")
    value.tag = ("x", 1)
    return value


def _choosy() -> Choosy:
    value = Choosy(limit=3)
    value["a"] = 1
    return value


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
    # -- enums
    "StrEnum": Kinds.A,
    "IntFlag combined": Bits.X | Bits.Y,
    "Enum with a constructor": Planet.EARTH,
    # -- dataclasses
    "dataclass kw_only": KeywordOnly(a=(1,), b=[{2}]),
    "dataclass InitVar": WithInitVar(2, 3),
    "dataclass derived": Derived(1, (2,)),
    "dataclass of pydantic": Checked(1, (1, 2)),
    # -- models
    "pydantic generic": Box[int](content=1),
    "pydantic computed field": Computed(a=2),
    "pydantic discriminated union": Owner(pet=Fish(depth=2.5)),
    "pydantic url": Linked(url="https://example.org/x"),  # type: ignore[arg-type]
    "pydantic private lock": Locked(a=(1, 2)),
    "pydantic unvalidated": Animal.model_construct(name=(1, 2)),  # type: ignore[arg-type]
    "pydantic v1": Old(a=1, b=(1, {2})),
    "pydantic v1 nested": OldHolder(old=Old(a=1), any=Old(a=2)),
    # -- dict keys
    "date as dict key": {date(2026, 1, 1): 1},
    "Decimal as dict key": {Decimal("1.10"): 1},
    "frozenset as dict key": {frozenset({1}): 1},
    "named tuple as dict key": {Point(1): 1},
    "tuple with an Enum as dict key": {(Color.RED, 1): 1},
    "str Enum as dict key": {Kind.A: 1},
    "IntEnum as dict key": {Level.LOW: 1},
    "str subclass as dict key": {Name("n"): 1},
    "big int as dict key": {2**70: 1},
    "bytes as dict key": {b"x": 1},
    "odd keys deep inside": {"a": [Plain({1: {Color.RED: [{uuid.UUID(int=2): (1,)}]}})]},
    "odd keys in a model": Zoo(boss=Animal(name="a"), any={Color.RED: {1: 2}}),
    "odd keys in a defaultdict": defaultdict(list, {Color.RED: [1]}),
    # -- bytes
    "bytearray in a dataclass": Plain(bytearray(b"x"), [bytearray(b"y")]),
    "memoryview": [memoryview(b"abc")],
    # -- collections
    "defaultdict of a dataclass": defaultdict(Plain, a=Plain(1)),
    "OrderedDict in a tuple": (OrderedDict(b=(1,)),),
    "str subclass with attributes": _tagged(),
    "dict subclass with a constructor": _choosy(),
    "list subclass": Stack([1, (2,)]),
    "int subclass": Cents(5),
    "tuple subclass": Pair((1, 2)),
    "deque of deques": deque([deque([1], maxlen=2)]),
    # -- times
    "time with ZoneInfo and fold": time(1, 2, 3, 4, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    "timezone with a name": timezone(timedelta(hours=1), "X"),
    "ZoneInfo": ZoneInfo("Asia/Tokyo"),
    "datetime before 1970": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    # -- numbers
    "negative big int": -(2**70),
    "float -0.0": -0.0,
    "Decimal nan": [Decimal("Infinity"), Decimal("-0.00")],
    "slice": slice(1, None, 2),
    # -- texts
    "any text": "ąćę ÄÖÜ 日本 🦜 " + "".join(map(chr, range(1, 0x300))),
    "texts with the marks of bytes": {"ąćę": ["ą" * 300, 1.5, 1e300]},
    # -- exceptions
    "exception in a list": [ValueError("x", 1)],
    "exception with a note and a cause": _error(KeyError("k"), cause=OSError(2, "no such", "f"), note="while trying"),
    "exception of the graph": OutOfTune("a", by=0.5),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    "ExceptionGroup": ExceptionGroup("g", [ValueError("x"), OutOfTune("b", by=1)]),
    # -- LangChain's
    "every kind of message": [
        *(HumanMessage("h", name="n", additional_kwargs={"t": (1,)}), SystemMessage("s"), RemoveMessage(id="1")),
        *(ChatMessage("c", role="r"), FunctionMessage("f", name="n")),
        *(ToolMessage([{"type": "text", "text": "t"}], tool_call_id="1", status="error", artifact={Color.RED: {1}}),),
        AIMessage("a", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
        AIMessageChunk("", tool_call_chunks=[{"name": "f", "args": "{", "id": "1", "index": 0}]),
    ],
    "text of a message": HumanMessage("x").text,
    "agent action": AgentAction("tool", {"a": (1,)}, "log"),
    "prompt values": [StringPromptValue(text="p"), ChatPromptValue(messages=[HumanMessage("x")])],
    # -- of pydantic, outside of a model
    "SecretStr": [SecretStr("hush")],
    "pydantic urls": [HttpUrl("https://example.org/x"), AnyUrl("ftp://example.org")],
    # -- of other libraries; more of them in test_serde_libraries.py
    "attrs": Slotted((1,), b=3),
    "numpy array": [np.arange(6.0).reshape(2, 3)],
    "numpy scalars": [np.float64(1.5), np.int64(-3), np.str_("x")],
    "numpy array of objects": np.array([object()]),
    # -- what cannot be kept
    "lock": {"a": threading.Lock()},
    "open file": [StringIO("x")],
    "generator": (n for n in range(3)),
    "module": re,
    "object": object(),
    "unknown model": Unknown(a=1),
    "unknown model in Any": Zoo(boss=Animal(name="a"), any=Unknown(a=1)),
    "unknown model in a message": AIMessage("x", response_metadata={"raw": Unknown(a=1)}),
    "unknown enum": UnknownKind.A,
    "unknown enum as dict key": {UnknownKind.A: 1},
    "unknown dict subclass": UnknownBag(a=1),
    "unknown exception": [NotNamed("x")],
    "unknown subclass of datetime": UnknownWhen(2026, 1, 1, tzinfo=UTC),
    "class of the same name": make_local_classes()[2](a=1),
    "defaultdict of a lambda": defaultdict(lambda: 1, a=1),
    "lone surrogate in a key": {"a\ud800b": 1},
    "lone surrogate deep inside": Plain(["a\ud800b"]),
    "memoryview of numbers": [memoryview(b"abcd").cast("h")],
}
TYPES: list[type] = [
    *(Color, Level, Kind, Flag, Outer.Inner, Outer.Data, Point, Plain, Frozen, NoInit, Animal, Dog, Zoo),
    *(Aliased, Private, Excluded, Loose, Secret, Name, Bag),
    *(Kinds, Bits, Planet, KeywordOnly, WithInitVar, Base, Derived, Checked, Box[int], Computed, Cat, Fish, Owner),
    *(Linked, Locked, Old, OldHolder, Tagged, Choosy, Stack, Cents, Pair, Slotted, OutOfTune),
    *LOCAL_CLASSES,
]
#: What no process could make again. Each is refused when it is saved.
REFUSED = {
    *("lone surrogate", "lone surrogate in a key", "lone surrogate deep inside", "class object", "lambda", "lock"),
    *(
        "numpy array of objects",
        "open file",
        "generator",
        "module",
        "object",
        "defaultdict of a lambda",
        "memoryview of numbers",
    ),
    *("class of the same name", *(name for name in VALUES if name.startswith("unknown "))),
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
        alike = alike and all(same(a[k], b[k]) for k in a) and _factory(a) == _factory(b)
        return alike and getattr(a, "__dict__", None) == getattr(b, "__dict__", None)
    if isinstance(a, set | frozenset):
        return a == b and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, Locked):
        return isinstance(b, Locked) and a.a == b.a and hasattr(b._lock, "acquire")
    if isinstance(a, pydantic_1.BaseModel):
        return same(a.__dict__, b.__dict__) and a.__fields_set__ == b.__fields_set__
    if isinstance(a, BaseModel):
        parts = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
        return all(same(getattr(a, part), getattr(b, part)) for part in parts)
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        alike = all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
        return alike and same(getattr(a, "__dict__", None), getattr(b, "__dict__", None))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, datetime | time):
        return a == b and a.fold == b.fold and type(a.tzinfo) is type(b.tzinfo) and str(a.tzinfo) == str(b.tzinfo)
    if isinstance(a, Send):
        return a.node == b.node and same(a.arg, b.arg)
    if isinstance(a, BaseException):
        if isinstance(a, BaseExceptionGroup):
            return a.message == b.message and same(list(a.exceptions), list(b.exceptions))
        alike = same(a.args, b.args) and same(a.__cause__, b.__cause__) and str(a) == str(b)
        return alike and same(vars(a), vars(b)) and a.__suppress_context__ == b.__suppress_context__
    if isinstance(a, str | int):
        return a == b and getattr(a, "__dict__", None) == getattr(b, "__dict__", None)
    if isinstance(a, Decimal | float):
        return repr(a) == repr(b)
    return bool(a == b)


def _factory(value: Any) -> Any:
    return value.default_factory if isinstance(value, collections.defaultdict) else None


@cache
def fate(name: str, writer: JsonPlusSerializer, reader: JsonPlusSerializer) -> str:
    """One of "kept", "lost" (something else came back), or the error's name."""
    dump = writer.dump if isinstance(writer, FaithfulSerializer) else writer.dumps_typed
    try:
        back = reader.loads_typed(dump(VALUES[name]))
    except Exception as error:
        return type(error).__name__
    return "kept" if same(VALUES[name], back) else "lost"


@pytest.mark.parametrize("name", VALUES)
def test_ours_keeps_a_value_or_refuses_it_by_name(name: str) -> None:
    assert fate(name, OURS, OURS) == ("ValueLost" if name in REFUSED else "kept")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_is_named_with_what_to_do(name: str) -> None:
    with pytest.raises(ValueLost) as refused:
        OURS.dump(VALUES[name], place="Channel 'c'")

    assert re.fullmatch(r"Channel 'c' holds a .+, which cannot be kept between two nodes\. .+\.", str(refused.value))
    assert "a\ud800b" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(VALUES.keys() - REFUSED))
def test_a_stock_reader_does_no_worse_with_our_bytes_than_with_its_own(name: str) -> None:
    for stock in (STOCK_STRICT, STOCK_OPEN):
        allowed = ("kept",) if fate(name, stock, stock) == "kept" else ("kept", "lost")
        assert fate(name, OURS, stock) in allowed


@pytest.mark.parametrize("name", VALUES)
def test_ours_reads_what_stock_has_written(name: str) -> None:
    if fate(name, STOCK_STRICT, STOCK_STRICT) == "kept":
        assert fate(name, STOCK_STRICT, OURS) == "kept"


@pytest.mark.parametrize("name", ["set of tuples", "Enum with a tuple", "Enum with a constructor"])
def test_ours_mends_what_stock_has_made_a_list_that_cannot_be_one(name: str) -> None:
    assert fate(name, STOCK_STRICT, OURS) == "kept"


#: How a value may be on its way between two nodes.
WAYS: dict[str, Callable[[Any], Any]] = {
    "Send": lambda value: Send("node", value),
    "Send deep": lambda value: Send("node", {"deep": [value]}),
    "interrupt": lambda value: (Interrupt(value, id="1"),),
    "resume": lambda value: Command(resume=value),
    "update and goto": lambda value: Command(update={"x": value}, goto=[Send("n", value)]),
    "resume map": lambda value: Command(resume={"interrupt-id": value}),
    "writes": lambda value: [("channel", value)],
}


@pytest.mark.parametrize("name", sorted(VALUES.keys() - REFUSED))
def test_a_value_survives_every_way_through_a_graph(name: str) -> None:
    for way, wrap in WAYS.items():
        value = wrap(VALUES[name])

        assert same(OURS.loads_typed(OURS.dumps_typed(value)), value), way
