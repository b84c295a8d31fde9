"""Any value of a graph's state as JSON bytes, in the shapes that the Agent Server's clients read.

Messages and models become dicts (`model_dump`), dataclasses and Interrupts too; sets become lists, bytes base64,
exceptions {"error", "message"}. Never raises: what has no JSON becomes the name of its type, never its repr, which may
hold anything.
"""

import base64
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from typing import Any

import orjson
from langchain_core.runnables import Runnable
from langgraph.types import Send
from pydantic import BaseModel

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS

#: orjson gives up at 255 levels of what it is helped with.
DEPTH = 200

_ADDRESSES = (IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)


def to_json(value: Any) -> bytes:
    """UTF-8 JSON. Datetimes are RFC 3339, UUIDs and enums their value, NaN and infinities null."""
    try:
        return orjson.dumps(value, default=simplify, option=OPTIONS)
    except (TypeError, ValueError, RecursionError):
        # A key, a number, a string or a depth that JSON has no room for: rare, so that it may cost a second walk.
        return orjson.dumps(_plain(value, DEPTH, set()), default=name_of_type, option=OPTIONS)


def simplify(value: Any) -> Any:
    """One step from a value that orjson does not know towards one that it does."""
    if isinstance(value, type):
        return name_of_type(value)
    for known, simple in _SIMPLE:
        if isinstance(value, known):
            return simple(value)
    for method in ("model_dump", "dict", "_asdict"):  # pydantic's, pydantic 1's, a named tuple's
        if callable(dump := getattr(value, method, None)) and not isinstance(value, Runnable):
            return _dump_or_name(value, dump)
    return name_of_type(value)


def name_of_type(value: Any) -> str:
    cls = value if isinstance(value, type) else type(value)
    return f"<{cls.__module__}.{cls.__qualname__}>"


def _dump_model(model: BaseModel) -> Any:
    # Without warnings: a field that holds another type than it declares is the graph's own business.
    return _dump_or_name(model, lambda: model.model_dump(warnings=False))


def _dump_or_name(value: Any, dump: Callable[[], Any]) -> Any:
    try:
        return dump()
    except Exception:  # the user's own serializer, which may fail in any way
        return name_of_type(value)


def _error(error: BaseException) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def _decimal(number: Decimal) -> int | float:
    return int(number) if number.as_tuple().exponent == 0 else float(number)


_SIMPLE: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (BaseModel, _dump_model),
    (BaseException, _error),
    ((set, frozenset, deque), list),
    ((bytes, bytearray, memoryview), lambda value: base64.b64encode(value).decode()),
    (timedelta, timedelta.total_seconds),
    (Decimal, _decimal),
    (tzinfo, lambda zone: zone.tzname(None) or str(zone)),
    ((*_ADDRESSES, PurePath), str),
    (re.Pattern, lambda pattern: pattern.pattern),
    (complex, str),
    (Send, lambda send: {"node": send.node, "input": send.arg}),
)


# --------------------------------------------------------------------------- the second walk


def _plain(value: Any, depth: int, around: set[int]) -> Any:
    """Only dicts with string keys, lists, strings, 64-bit integers, floats, booleans and None."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, depth, around)
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < (1 << 64) else str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # lone surrogates
    if depth == 0 or id(value) in around:
        return name_of_type(value)
    around = around | {id(value)}
    if isinstance(value, Mapping):
        return {_key(key): _plain(inner, depth - 1, around) for key, inner in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_asdict"):
        return [_plain(inner, depth - 1, around) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        public = [field.name for field in fields(value) if not field.name.startswith("_")]
        return {name: _plain(getattr(value, name, None), depth - 1, around) for name in public}
    try:
        return orjson.loads(orjson.dumps(value, option=OPTIONS))  # datetimes, UUIDs, arrays
    except (TypeError, ValueError, RecursionError):
        return _plain(simplify(value), depth - 1, around)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key.encode("utf-8", "replace").decode()
    if isinstance(key, tuple) and all(isinstance(part, str | int | float | bool | None) for part in key):
        return str(key).encode("utf-8", "replace").decode()
    try:
        return str(next(iter(orjson.loads(orjson.dumps({key: None}, option=OPTIONS)))))
    except (TypeError, ValueError):
        return str(key) if isinstance(key, int) else name_of_type(key)
