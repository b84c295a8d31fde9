"""Client's JSON on its way into a jsonb column.

Postgres refuses what JSON texts may hold and jsonb may not: NUL characters, lone surrogates, NaN. Refused here by name,
so that a client reads which field it was, and no driver's error text, which repeats the value, is ever made.
"""

import json
from collections.abc import Mapping
from typing import Any

from agentfarm.errors import InvalidInput


def check_jsonb(where: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that jsonb takes.

    where   the field, as the client named it
    raises  InvalidInput; it says what kind of value it was, never the value
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(where=where, why="has half of a surrogate pair in a string") from None
    except (TypeError, ValueError, RecursionError):
        raise InvalidInput(where=where, why="takes JSON alone: no NaN, no Infinity, not too deep") from None
    if "\\u0000" in text and _has_nul(value):
        raise InvalidInput(where=where, why="has a NUL character in a string")
    return dict(value)


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, Mapping):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return any(map(_has_nul, value))
    return False
