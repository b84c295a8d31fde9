"""The default key of a CachePolicy, equal for equal inputs in every process.

Stock pickles the input, and a pickle tells more than the value: whether two strings are one object, and the order of a
set, which differs from process to process. A message loaded from Postgres by two workers would be cached twice. Here
the value alone is written out. Keys of an author's own `key_func` stay as they are.
"""

import copyreg
import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import FunctionType
from typing import Any, Final

from pydantic import BaseModel

from agentfarm.engine import _langgraph as lg

#: Written as their repr, which says all of them and nothing else.
_PLAIN: Final = (int, float, complex, bool, type(None))


def digest_of(value: Any) -> bytes:
    """Takes the place of LangGraph's `_freeze`, whose answer is pickled and hashed.

    raises  whatever pickle raises for a value that it refuses: stock has no key for it either
    """
    parts: list[bytes] = []
    _write(value, parts.append, [])
    # A new object each time, also for equal values: pickle would tell one from two.
    return hashlib.sha256(b"".join(parts)).digest()


def _write(value: Any, out: Callable[[bytes], None], around: list[int]) -> None:
    """around  ids of the objects that this value is in: one that holds itself is named by its place"""
    kind = type(value)
    if kind is str:
        _text(b"s", value.encode("utf-8", "surrogatepass"), out)
    elif kind in _PLAIN:
        _text(b"p", f"{kind.__name__} {value!r}".encode(), out)
    elif kind is bytes:
        _text(b"b", value, out)
    elif id(value) in around:
        out(b"@%d" % around.index(id(value)))
    else:
        around.append(id(value))
        _write_object(value, out, around)
        around.pop()


def _write_object(value: Any, out: Callable[[bytes], None], around: list[int]) -> None:
    if isinstance(value, Enum):
        _write_name(type(value), out)
        _text(b"e", value.name.encode() if value.name else repr(value).encode(), out)  # flags may have no name
    elif type(value) in (list, tuple):  # as stock, which makes tuples of lists
        _write_each(b"[", value, out, around)
    elif type(value) is dict:
        _write_mapping(value, out, around)
    elif isinstance(value, set | frozenset):
        _write_name(type(value), out)
        _text(b"{", b"".join(sorted(_alone(item, around) for item in value)), out)
    elif isinstance(value, BaseModel):
        # What makes two models equal. Which fields were given and which defaulted is not of it.
        _write_name(type(value), out)
        _write_mapping(value.__dict__, out, around)
        more = (getattr(value, name, None) for name in ("__pydantic_extra__", "__pydantic_private__"))
        _write_each(b"m", tuple(more), out, around)
    elif isinstance(value, type):
        _write_name(value, out)
    elif isinstance(value, FunctionType):
        pickle.dumps(value)  # refuses what has no name that others could find it by
        _text(b"f", f"{value.__module__}.{value.__qualname__}".encode(), out)
    else:
        _write_as_pickled(value, out, around)


def _write_as_pickled(value: Any, out: Callable[[bytes], None], around: list[int]) -> None:
    """How pickle would make it again: by which function, from what, then filled with what."""
    registered = copyreg.dispatch_table.get(type(value))  # compiled patterns, unions of types
    made = registered(value) if registered else value.__reduce_ex__(4)
    if isinstance(made, str):
        _text(b"g", f"{getattr(value, '__module__', '')}.{made}".encode(), out)
        return
    function, arguments, state, items, pairs = (*made, None, None, None)[:5]
    _write(function, out, around)
    _write(arguments, out, around)
    _write(state, out, around)
    if items is not None:
        _write_each(b"[", tuple(items), out, around)
    if pairs is not None:
        _write_mapping(dict(pairs), out, around)


def _write_each(kind: bytes, values: Sequence[Any], out: Callable[[bytes], None], around: list[int]) -> None:
    out(b"%s%d:" % (kind, len(values)))
    for value in values:
        _write(value, out, around)


def _write_mapping(values: Mapping[Any, Any], out: Callable[[bytes], None], around: list[int]) -> None:
    out(b"<%d:" % len(values))
    for key, value in sorted(((_alone(key, around), value) for key, value in values.items()), key=_first):
        out(key)
        _write(value, out, around)


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _alone(value: Any, around: list[int]) -> bytes:
    parts: list[bytes] = []
    _write(value, parts.append, around)
    return hashlib.sha256(b"".join(parts)).digest()


def _write_name(cls: type, out: Callable[[bytes], None]) -> None:
    _text(b"n", f"{cls.__module__}.{cls.__qualname__}".encode(), out)


def _text(kind: bytes, text: bytes, out: Callable[[bytes], None]) -> None:
    """With its length, so that no value can spell another."""
    out(b"%s%d:" % (kind, len(text)))
    out(text)


lg.replace_freeze(digest_of)
