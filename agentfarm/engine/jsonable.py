"""Values to JSON bytes, as clients of the Agent Server read them.

LangChain messages and other models become their `model_dump`, sets become lists, an object that JSON has no word for
becomes the name of its type: never its repr, which may hold anything. Never raises, since it is called inside of nodes.
"""

import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import Any

import orjson
from pydantic import BaseModel

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS

#: How deep a value is followed where orjson cannot: a reference to itself ends there.
MAX_DEPTH = 200


def to_json(value: object) -> bytes:
    """JSON. NaN and infinities become null; a lone surrogate becomes `?`; integers beyond 64 bit become strings."""
    try:
        return orjson.dumps(value, default=_default, option=OPTIONS)
    except (orjson.JSONEncodeError, RecursionError):
        return orjson.dumps(_plain(value, 0), option=OPTIONS)


def _default(value: Any) -> Any:
    """One step towards JSON, for a value that orjson does not know."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool | int | float):
        return _number(value)
    if hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | list | set | frozenset) or type(value).__name__ == "deque":
        return list(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", errors="replace")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if hasattr(value, "__slots__") and type(value).__module__.startswith("langgraph."):
        return {name: getattr(value, name, None) for name in _slots(type(value))}
    if type(value).__module__ in _TEXTUAL:
        return str(value)
    return f"<{type(value).__qualname__}>"


#: Modules whose values are written as their text: Decimal, UUID, paths, addresses, SecretStr (which hides itself).
_TEXTUAL = frozenset(
    {"decimal", "uuid", "pathlib", "pathlib._local", "ipaddress", "fractions", "zoneinfo", "pydantic.types"}
)


def _slots(cls: type) -> list[str]:
    return [
        name for base in reversed(cls.__mro__) for name in getattr(base, "__slots__", ()) if not name.startswith("__")
    ]


def _number(value: bool | float) -> Any:
    if isinstance(value, float):
        return float(value)
    return int(value) if -(1 << 63) <= value < 1 << 64 else str(int(value))


def _plain(value: Any, depth: int) -> Any:
    """The slow way, for what orjson refuses somewhere inside: lone surrogates, large integers, odd keys, cycles."""
    if value is None or isinstance(value, bool):
        return value
    if depth > MAX_DEPTH:
        return f"<{type(value).__qualname__}>"
    if type(value) is str:
        return value.encode("utf-8", "replace").decode()
    if type(value) in (int, float):
        return _number(value)
    if type(value) is dict:
        return {_key(key): _plain(one, depth + 1) for key, one in value.items()}
    if type(value) is list:
        return [_plain(one, depth + 1) for one in value]
    try:
        stepped = orjson.loads(orjson.dumps(value, option=OPTIONS))
    except (orjson.JSONEncodeError, RecursionError):
        stepped = _default(value)
    return _plain(stepped, depth + 1)


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.value
    return str(key).encode("utf-8", "replace").decode()
