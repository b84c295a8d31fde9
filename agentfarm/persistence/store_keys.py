"""Where an item is: its namespace as the text that farm.store_item holds, and its key.

Namespaces are compared label by label: ("foo",) is no prefix of ("foobar",). Joined by dots, which no label holds, all
below a prefix is one range of text.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from langgraph.store.base import InvalidNamespaceError, ListNamespacesOp, MatchCondition

from agentfarm.errors import InvalidInput
from agentfarm.persistence.store_values import check_text

#: Bytes. Together with the field of a vector they make a key of a B-tree, of which an entry takes 2,704.
MAX_NAMESPACE_BYTES: Final = 1000
MAX_KEY_BYTES: Final = 1000
MAX_FIELD_BYTES: Final = 500


def namespace_text(namespace: Iterable[str]) -> str:
    """Labels were checked (langgraph.store.base.validate_op_namespace). Raises InvalidInput."""
    return _bounded(".".join(namespace), "namespace", MAX_NAMESPACE_BYTES)


def own_namespace_text(namespace: Iterable[str]) -> str:
    """Of a namespace that is to hold an item. Raises InvalidNamespaceError for the one without labels, InvalidInput."""
    if not (text := namespace_text(namespace)):
        raise InvalidNamespaceError("Namespace cannot be empty.")
    return text


def namespace_of(text: str) -> tuple[str, ...]:
    return tuple(text.split("."))


def key_text(key: object) -> str:
    """Raises InvalidInput."""
    if not isinstance(key, str):
        raise InvalidInput(where="key", why=f"is a {type(key).__name__}; keys are text")
    return _bounded(str.__str__(key), "key", MAX_KEY_BYTES)


def field_text(field: object) -> str:
    """A path of `index`. Raises InvalidInput."""
    if not isinstance(field, str):
        raise InvalidInput(where="index", why="is False or a list of paths, which are text")
    return _bounded(str.__str__(field), "a path of index", MAX_FIELD_BYTES)


def below(text: str) -> tuple[str, Mapping[str, str]]:
    """Of items (i) in a namespace or below it, the condition and its parameters; of '' it is all."""
    if not text:
        return "true", {}
    places = {"at": text, "from": f"{text}.", "to": f"{text}/"}  # '/' comes after '.'
    return "(i.namespace = :at OR i.namespace >= :from AND i.namespace < :to)", places


def list_parameters(op: ListNamespacesOp) -> Mapping[str, Any]:
    """Of farm.store_namespaces. Raises InvalidInput."""
    conditions = [_condition(condition) for condition in op.match_conditions or ()]
    prefixes = (path for kind, path in conditions if kind == "prefix")
    known = max((namespace_text(_before_wildcard(path)) for path in prefixes), key=len, default="")
    if op.max_depth is not None and op.max_depth < 1:
        raise InvalidInput(where="max_depth", why="is 1 or more")
    return {
        "below": known,
        "conditions": orjson.dumps(conditions).decode(),
        "depth": op.max_depth,
        **page(op.limit, op.offset),
    }


def page(limit: int, offset: int) -> Mapping[str, int]:
    """Raises InvalidInput."""
    given: tuple[tuple[str, object], ...] = (("limit", limit), ("offset", offset))  # a graph's, of any type
    for name, value in given:
        if not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise InvalidInput(where=name, why="is 0 or more, and below 2 billion")
    return {"limit": limit, "offset": offset}


def _condition(condition: MatchCondition) -> tuple[str, list[str]]:
    if condition.match_type not in ("prefix", "suffix"):
        raise InvalidInput(where="match_type", why="is 'prefix' or 'suffix'")
    return condition.match_type, [check_text(label, "namespace") for label in condition.path]


def _before_wildcard(path: list[str]) -> list[str]:
    return path[: path.index("*")] if "*" in path else path


def _bounded(text: str, where: str, most: int) -> str:
    if len(check_text(text, where).encode()) > most:
        raise InvalidInput(where=where, why=f"is longer than {most} bytes")
    return text
