"""Filters of a search: LangGraph's, as the conditions that farm.store_passes reads."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from agentfarm.errors import InvalidInput
from agentfarm.persistence.store_values import check_text, encode_operand

EQUALITY: Final = ("$eq", "$ne")
ORDER: Final = ("$gt", "$gte", "$lt", "$lte")

#: Conditions of one search, and how far a filter may look into a value.
MAX_CONDITIONS: Final = 100
MAX_PATH: Final = 20


def encode_filter(wanted: Mapping[str, Any] | None) -> str | None:
    """JSON: [[path, operator, operand], …]; None where all pass.

    {"a": 1} is {"a": {"$eq": 1}}; {"a": {"b": …}} looks at b inside of a.
    raises  InvalidInput: unknown operators, operands that have no order, values that are no JSON
    """
    if not wanted:
        return None
    if not isinstance(wanted, Mapping):
        raise InvalidInput(where="filter", why="is a dict")
    conditions = list(_conditions(wanted, ()))
    if len(conditions) > MAX_CONDITIONS:
        raise InvalidInput(where="filter", why=f"has more than {MAX_CONDITIONS} conditions")
    return orjson.dumps(conditions).decode()


def _conditions(wanted: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    if len(path) > MAX_PATH:
        raise InvalidInput(where="filter", why=f"looks more than {MAX_PATH} levels deep")
    for key, value in wanted.items():
        if not isinstance(key, str):
            raise InvalidInput(where="filter", why="has a key that is not text")
        here = (*path, check_text(key, "filter"))
        if not isinstance(value, Mapping) or not value:
            yield here, "$eq", _operand(value)
        elif any(isinstance(name, str) and name.startswith("$") for name in value):
            for operator, operand in value.items():
                yield here, _operator(operator, operand), _operand(operand)
        else:
            yield from _conditions(value, here)


def _operator(operator: object, operand: object) -> str:
    if operator in ORDER:
        if isinstance(operand, bool) or not isinstance(operand, int | float | str):
            raise InvalidInput(where="filter", why=f"{operator} compares with a number or a text")
    elif operator not in EQUALITY:
        raise InvalidInput(where="filter", why=f"has an unknown operator; there are {', '.join((*EQUALITY, *ORDER))}")
    return str(operator)


def _operand(value: object) -> orjson.Fragment:
    return orjson.Fragment(encode_operand(value))
