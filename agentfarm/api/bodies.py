"""The one parser of request bodies. What it lets through can be stored, queried and sent back by everything behind it.

Refused here, since it would fail later and in a worse place: NUL characters (Postgres' text has none), lone surrogates
(no UTF-8), NaN and infinities (no JSON), integers beyond 64 bits (no msgpack), and nesting that a recursive reader
could not follow.
"""

import re
from itertools import accumulate
from typing import Any, Final

import orjson

from agentfarm.errors import BadRequest, InvalidInput

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_LONG_INTEGER: Final = re.compile(rb"(?<![\d.eE+-])-?\d{19,}(?![\d.eE])")
_BRACKETS: Final = b"[]{}"
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(_BRACKETS))
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1


def parse_json(raw: bytes, *, max_depth: int) -> Any:
    """The value in a body.

    raises  BadRequest (it is not JSON), InvalidInput (it is, and cannot be taken). Neither repeats what was sent.
    """
    if raw.count(b"[") + raw.count(b"{") > max_depth and _depth(raw) > max_depth:
        raise InvalidInput(where="body", why=f"is nested deeper than {max_depth} levels")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # orjson's own sentence names places and kinds, no content.
        raise BadRequest(why=f"the body is not JSON ({error.msg}, at character {error.pos})") from None
    if b"\\u0000" in raw and _has_nul(value):
        raise InvalidInput(where="body", why="holds a NUL character (\\u0000), which cannot be stored")
    if any(not MIN_INTEGER <= int(digits) <= MAX_INTEGER for digits in _long_integers(raw)):
        raise InvalidInput(where="body", why="holds an integer beyond 64 bits; send it as a string")
    return value


def _depth(raw: bytes) -> int:
    """How deep the brackets outside of strings go. Linear, without recursion: for what no parser should see."""
    brackets = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def _long_integers(raw: bytes) -> list[bytes]:
    if not _LONG_INTEGER.search(raw):
        return []
    # More digits than a 64-bit number has are enough to know: int() of a million digits would take seconds.
    return [digits[:24] for digits in _LONG_INTEGER.findall(_STRING.sub(b'"', raw))]


def _has_nul(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if "\x00" in one:
                return True
        elif isinstance(one, dict):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return False
