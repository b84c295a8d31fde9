"""Values of the store's items on their way into jsonb: what is stored comes back equal, what would not is refused.

LangGraph promises JSON. What JSON has no room for (a datetime, a key that is a number, NaN) is refused by its place and
type, never turned into something else in silence: LangGraph's PostgresStore gives a key that is a number back as text,
and a named tuple as a list. Tuples alone come back as lists, as there. A subclass of text, number, list or dict comes
back as the plain one, which is equal, unless it has attributes of its own. jsonb has an order of its own for a dict's
keys, and no -0.0.
"""

import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import orjson

from agentfarm.errors import InvalidInput, TooLarge
from agentfarm.persistence.state_types import is_named_tuple

#: Levels of dicts and lists. The API takes half of it at most; it also ends a value that contains itself.
MAX_DEPTH: Final = 200

#: From here on Python and JSON write floats with an exponent, which jsonb would give back as integers.
_EXPONENT_FROM: Final = 1e16
#: What has nothing beside what JSON holds of it.
_BUILT_IN: Final = frozenset({type(None), bool, str, int, float, dict, list, tuple})

_MIN_INT64, _MAX_UINT64 = -(2**63), 2**64 - 1

#: How much of a key an error repeats.
_MAX_NAME: Final = 64


def encode_value(value: object, *, max_bytes: int) -> str:
    """The JSON of an item's value.

    raises  InvalidInput, which names the place and the type, never the value; TooLarge
    """
    if not isinstance(value, Mapping):
        raise InvalidInput(where="value", why=f"is {_a(value)}; an item's value is a dict with text as keys")
    text = orjson.dumps(_plain(value, "value", MAX_DEPTH)).decode()
    if len(text) > max_bytes or len(text.encode()) > max_bytes:
        raise TooLarge(what="The value of the item", limit_bytes=max_bytes)
    return text


def encode_operand(value: object) -> str:
    """The JSON of what a filter compares with. Raises InvalidInput."""
    return orjson.dumps(_plain(value, "filter", MAX_DEPTH)).decode()


def check_text(text: str, where: str) -> str:
    """The same text, where Postgres takes it. Raises InvalidInput."""
    if "\x00" in text:
        raise InvalidInput(where=where, why="has a NUL character, which cannot be stored; leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        why = "has half of a surrogate pair, which cannot be stored; text.encode('utf-8', 'replace').decode() cleans it"
        raise InvalidInput(where=where, why=why) from None
    return text


def _plain(value: object, where: str, depth: int) -> Any:
    """What orjson writes in such a way that jsonb gives back an equal value."""
    if type(value) not in _BUILT_IN:
        _check_is_whole(value, where)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(str.__str__(value), where)
    if isinstance(value, int):
        return _integer(value, where)
    if isinstance(value, float):
        return _float(float(value), where)
    if depth == 0:
        raise InvalidInput(where=_short(where), why=f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(inner, f"{where}.{_name(key)}", depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{n}]", depth - 1) for n, inner in enumerate(value)]
    raise InvalidInput(
        where=_short(where),
        why=f"is {_a(value)}, which JSON cannot hold; store text, numbers, lists and dicts, for example what "
        "isoformat(), str() or model_dump(mode='json') make of it",
    )


def _check_is_whole(value: object, where: str) -> None:
    """Raises InvalidInput for what has more to it than the JSON that it would pass as."""
    if is_named_tuple(type(value)):
        why = f"is {_a(value)}, whose fields have names that a list has not; store _asdict() of it"
        raise InvalidInput(where=_short(where), why=why)
    is_plain = isinstance(value, str | int | float | list | tuple | dict) and not isinstance(value, Enum)
    if is_plain and getattr(value, "__dict__", None):
        why = f"is {_a(value)} with attributes of its own, which JSON cannot hold; store a dict that has them as well"
        raise InvalidInput(where=_short(where), why=why)


def _integer(value: int, where: str) -> Any:
    if _MIN_INT64 <= value <= _MAX_UINT64:
        return int(value)
    try:
        return orjson.Fragment(int.__repr__(value))  # orjson has no longer ones, jsonb has
    except ValueError:
        raise InvalidInput(where=_short(where), why="is an integer of thousands of digits; store it as text") from None


def _float(value: float, where: str) -> Any:
    if not math.isfinite(value):
        raise InvalidInput(where=_short(where), why="is NaN or infinite, which JSON has not; store None or text")
    return orjson.Fragment(f"{value:.1f}") if abs(value) >= _EXPONENT_FROM else value


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidInput(
            where=_short(where),
            why=f"has a key that is {_a(key)}; JSON has text as keys; use str() of it",
        )
    return check_text(str.__str__(key), f"a key of {where}")


def _name(key: object) -> str:
    return re.sub(r"[^\w\-]", "?", str(key)[:_MAX_NAME])


def _short(where: str) -> str:
    """Of a path its ends."""
    return where if len(where) <= 4 * _MAX_NAME else f"{where[: 3 * _MAX_NAME]}…{where[-_MAX_NAME:]}"


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
