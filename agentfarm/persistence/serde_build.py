"""How each kind of stored value is made again, once its class is found and may be made.

A class may have changed since the value was stored: a field that it has gained gets its default, one that it has lost
is dropped. What has no default now is not invented: that raises, and the reader says so.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, KeysView, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel

from agentfarm.engine._langgraph_serde import KEYWORDS, POSITIONAL, PYDANTIC_1, SINGLE, send_from_args
from agentfarm.persistence.state_types import attributes_of

#: What a defaultdict may make by itself when it is read back.
FACTORIES: dict[str, type] = {cls.__name__: cls for cls in (int, list, dict, set, str, float, tuple, bool)}

_IMMUTABLE = (str, int, float, bytes, tuple)


def build(code: int, cls: Any, payload: Any, more: list[Any], find: Callable[[str, str], Any]) -> Any:
    """code     the extension's: how the class takes its payload
    more     what our writer put behind the payload; empty for stock's
    find     the class behind a (module, name)
    raises   whatever a constructor raises
    """
    if code == SINGLE:
        return _single(cls, payload, more, find)
    if code == POSITIONAL:
        if isinstance(cls, type) and issubclass(cls, BaseException):
            return _exception(cls, payload, more)
        return send_from_args(payload) if cls.__name__ == "Send" else cls(*payload)
    if code == KEYWORDS:
        if dataclasses.is_dataclass(cls):
            return _dataclass(cls, payload, more)
        return _attrs(cls, payload) if attributes_of(cls) is not None else cls(**payload)
    return _old_model(cls, payload, more) if code == PYDANTIC_1 else _model(cls, payload, more)


# --------------------------------------------------------------------------- built-in types and their subclasses


def _single(cls: Any, payload: Any, more: list[Any], find: Callable[[str, str], Any]) -> Any:
    if cls is memoryview:
        return memoryview(payload if not more or more[0] else bytearray(payload))
    if isinstance(cls, type) and issubclass(cls, (set, frozenset)):
        return cls(map(_tuple_again, payload))
    if isinstance(cls, type) and issubclass(cls, Enum):
        return cls(payload if any(one.value == payload for one in cls) else _tuple_again(payload))
    if not isinstance(cls, type) or not (more or _is_plain_subclass(cls)):
        return cls(payload)
    if issubclass(cls, collections.deque):
        return cls(payload, more[0])
    if issubclass(cls, collections.defaultdict):
        return cls(_factory(more[0], find), payload)
    return _plain_subclass(cls, payload, more[0] if more else {})


def _tuple_again(part: Any) -> Any:
    """Of what cannot be a list (in a set, of an enum), stock has made one."""
    return tuple(map(_tuple_again, part)) if type(part) is list else part


def _factory(told: Any, find: Callable[[str, str], Any]) -> Any:
    if told is None or isinstance(told, str):
        return told and FACTORIES[told]
    return find(*told)


def _is_plain_subclass(cls: type) -> bool:
    return cls.__module__ not in ("builtins", "collections") and issubclass(cls, (str, int, float, bytes, list, dict))


def _plain_subclass(cls: Any, payload: Any, attributes: Mapping[str, Any]) -> Any:
    """By the built-in's own constructor: the subclass may take other arguments."""
    base = next(base for base in cls.__mro__ if base.__module__ in ("builtins", "collections"))
    if issubclass(cls, _IMMUTABLE):
        value = base.__new__(cls, payload)
    else:
        value = base.__new__(cls)
        base.__init__(value, payload)
    if attributes:
        value.__dict__.update(attributes)
    return value


def _exception(cls: Any, args: list[Any], more: list[Any]) -> Any:
    """Without its own constructor, which may take other arguments than those it passes on."""
    value = cls.__new__(cls, *args)
    base = next(base for base in cls.__mro__ if base.__module__ == "builtins" and "__init__" in vars(base))
    base.__init__(value, *args)
    if more:
        attributes, cause, suppresses = more
        if attributes:
            value.__setstate__(attributes)
        value.__cause__ = cause
        value.__suppress_context__ = suppresses
    return value


# --------------------------------------------------------------------------- classes with fields


@functools.lru_cache(4096)
def fields_of(model: type[BaseModel]) -> KeysView[str]:
    """Names, in their order. Pydantic answers by way of a descriptor, which costs as much as a message's payload."""
    return dict.fromkeys(model.model_fields).keys()


def _dataclass(cls: Any, payload: dict[str, Any], more: list[Any]) -> Any:
    """By the constructor, so that fields added since get their defaults; then, of what we wrote, the rest as it was.

    The rest: fields with init=False, what __post_init__ changed, and beside an InitVar what else it has made.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    beside = more[0] if more else None
    if beside is not None and payload.keys() == fields.keys():  # its constructor takes what is no field: InitVar
        value = object.__new__(cls)
    else:
        value = cls(**{name: part for name, part in payload.items() if name in fields and fields[name].init})
        beside = None
    for name, part in payload.items():
        if name in fields and (more or not fields[name].init):
            object.__setattr__(value, name, part)
    if beside:
        value.__dict__.update(beside)
    return value


def _attrs(cls: Any, payload: dict[str, Any]) -> Any:
    """As `_dataclass`, for classes made by attrs."""
    arguments = dict(attributes_of(cls) or ())
    if payload.keys() == arguments.keys():
        value = object.__new__(cls)
    else:
        value = cls(**{argument: payload[name] for name, argument in arguments.items() if argument and name in payload})
    for name, part in payload.items():
        if name in arguments:
            object.__setattr__(value, name, part)
    return value


def _model(cls: Any, payload: dict[str, Any], more: list[Any]) -> Any:
    if len(more) >= 4 and payload.keys() == fields_of(cls):
        _, fields_set, extra, private, *made_anew = more
        # As it was: not validated again, defaults not made anew.
        value = cls.model_construct() if made_anew else cls.__new__(cls)
        state = {"__dict__": payload, "__pydantic_fields_set__": set(fields_set), "__pydantic_extra__": extra}
        state["__pydantic_private__"] = value.__pydantic_private__ if made_anew else private
        value.__setstate__(state)
        return value
    try:  # stock's, or a model that has changed since
        return cls.model_validate(payload, by_name=True, by_alias=False)
    except Exception:
        _need(payload, {name for name, field in cls.model_fields.items() if field.is_required()})
        return cls.model_construct(**payload)  # as stock: the model without its validation


def _old_model(cls: Any, payload: dict[str, Any], more: list[Any]) -> Any:
    """Of pydantic.v1."""
    if more and payload.keys() == cls.__fields__.keys():
        value = cls.__new__(cls)
        for name, part in (("__dict__", payload), ("__fields_set__", set(more[0])), *more[1].items()):
            object.__setattr__(value, name, part)
        return value
    try:
        return cls(**payload)
    except Exception:
        _need(payload, {name for name, field in cls.__fields__.items() if field.required})
        return cls.construct(**payload)


def _need(payload: Mapping[str, Any], required: set[str]) -> None:
    if missing := sorted(required - payload.keys()):
        raise LackingFields(missing)


class LackingFields(ValueError):
    """The class has gained fields without a default."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"it has no value for the required {', '.join(names)}")
