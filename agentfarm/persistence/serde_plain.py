"""What ormsgpack writes by itself though it comes back as something else: odd dict keys, bytearrays, memoryviews.

ormsgpack never asks about the key of a dict or about a bytearray. Looking at every dict and list of every value would
cost more than packing them; so packing without `OPT_NON_STR_KEYS` finds the former, a byte in its result the latter.
"""

from collections.abc import Callable
from typing import Any

from agentfarm.engine._langgraph_serde import SINGLE

_CONTAINERS = frozenset({dict, list})
_BUFFERS = frozenset({bytearray, memoryview})

#: Keys that msgpack has a form of its own for.
_PLAIN_KEYS = frozenset({str, float, bool, type(None), bytes})

Extend = Callable[..., Any]


def holds_a_bytearray(value: Any, data: bytes) -> bool:
    """Whether the value, packed as `data`, holds one where only ormsgpack has seen it: in dicts and lists."""
    # How msgpack begins bytes. A number or a text may contain the same byte, which costs a look and nothing else.
    if not (b"\xc4" in data or b"\xc5" in data or b"\xc6" in data):
        return False
    todo = [value]
    while todo:
        inner = todo.pop()
        parts = inner.values() if type(inner) is dict else inner if type(inner) is list else (inner,)
        kinds = set(map(type, parts))
        if kinds & _BUFFERS:
            return True
        if kinds & _CONTAINERS:
            todo += [part for part in parts if type(part) in _CONTAINERS]
    return False


def with_care(value: Any, extend: Extend) -> Any:
    """The value, its odd dicts and buffers replaced by what `extend` makes of (code, class, payload, ...)."""
    cls = type(value)
    if cls is dict:
        if all(map(_is_plain_key, value)):
            return {key: with_care(part, extend) for key, part in value.items()}
        return extend(SINGLE, dict, [[key, part] for key, part in value.items()])
    if cls is list:
        return [with_care(part, extend) for part in value]
    if cls is bytearray:
        return extend(SINGLE, bytearray, bytes(value))
    if cls is memoryview:
        if value.format != "B" or value.ndim != 1:
            raise TypeError("memoryview")
        return extend(SINGLE, memoryview, bytes(value), value.readonly)
    return value


def _is_plain_key(key: Any) -> bool:
    cls = type(key)
    if cls is int:
        return bool(-(1 << 63) <= key < 1 << 64)
    return cls in _PLAIN_KEYS or bool(cls is tuple and all(map(_is_plain_key, key)))
