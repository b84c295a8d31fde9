"""The writing half of the serializer: values to bytes, and what cannot be written is named.

Whatever ormsgpack cannot write by itself comes to `Writer.default`, which answers with an extension in stock's
envelope, [module, name, payload], and behind it what a stock reader has no room for.
"""

import collections
import dataclasses
import logging
import pathlib
import threading
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from functools import lru_cache
from sys import modules as loaded_modules
from typing import Any

import ormsgpack
from pydantic import BaseModel

from agentfarm.engine._langgraph_serde import (
    DELTA,
    KEYWORDS,
    METHOD,
    OPTIONS,
    POSITIONAL,
    PYDANTIC_2,
    SINGLE,
    DeltaSnapshot,
    SendProtocol,
    stock_writer,
)
from agentfarm.errors import ValueLost
from agentfarm.persistence.serde_read import FACTORIES, SAFE_TYPES
from agentfarm.persistence.state_types import is_named_tuple

logger = logging.getLogger(__name__)

WRITE_OPTIONS = (
    OPTIONS | ormsgpack.OPT_PASSTHROUGH_TUPLE | ormsgpack.OPT_PASSTHROUGH_SUBCLASS | ormsgpack.OPT_PASSTHROUGH_BIG_INT
)

#: Whose subclasses stock writes as the plain type.
PLAIN = (str, int, float, list, dict, bytes)


class _Lost(threading.local):
    """The type that could not be written. ormsgpack drops the exception that says it."""

    name: str | None = None

    def forget(self) -> str | None:
        name, self.name = self.name, None
        return name


class Writer:
    def __init__(self, types: frozenset[type], knows: Callable[[str, str], bool]) -> None:
        self.types = types
        self.knows = knows
        self.stock = stock_writer(self.pack_envelope)
        self.lost = _Lost()

    def write(self, value: Any) -> bytes:
        """Raises ValueLost."""
        self.lost.forget()
        try:
            return self.pack(value)
        except (TypeError, ormsgpack.MsgpackEncodeError) as error:
            name = self.lost.forget() or _blame(error, value)
            raise ValueLost(
                f"A {name} cannot be saved between two nodes. Put plain data into the state, or name the type in the "
                "graph's state schema.",
                type=name,
            ) from None

    def pack(self, value: Any) -> bytes:
        return ormsgpack.packb(value, default=self.default, option=WRITE_OPTIONS)

    def pack_envelope(self, parts: Any) -> bytes:
        """[module, name, payload, ...] of stock's writer: the outer tuple is the format's, not the value's."""
        if type(parts) is tuple:
            if len(parts) > 2 and isinstance(parts[1], str) and not self.knows(parts[0], parts[1]):
                raise self.loss(f"{parts[0]}.{parts[1]}")
            parts = list(parts)
        return self.pack(parts)

    def ext(self, code: int, cls: type, payload: Any, *more: Any) -> ormsgpack.Ext:
        module, name = name_of(cls)
        if not self.knows(module, name):
            raise self.loss(f"{module}.{name}")
        return ormsgpack.Ext(code, self.pack([module, name, payload, *more]))

    def loss(self, name: str) -> TypeError:
        self.lost.name = self.lost.name or name
        return TypeError(name)

    def default(self, value: Any) -> Any:
        """What ormsgpack does not write by itself. The order matters: what is common comes first."""
        cls = type(value)
        if cls is tuple:
            return self.ext(SINGLE, cls, list(value))
        if isinstance(value, DeltaSnapshot):  # a named tuple, but of the format
            return ormsgpack.Ext(DELTA, self.pack(value.value))
        if isinstance(value, BaseModel):
            return self.model(value, cls)
        if isinstance(value, Enum):
            return self.ext(SINGLE, cls, value.value)
        if isinstance(value, tuple):
            return self.tuple_subclass(value, cls)
        if isinstance(value, PLAIN):
            return self.plain_subclass(value, cls)
        if isinstance(value, set | frozenset):
            return self.ext(SINGLE, cls, list(value))
        if isinstance(value, collections.deque):
            return self.ext(SINGLE, cls, list(value), value.maxlen)
        if dataclasses.is_dataclass(cls) and not isinstance(value, SendProtocol):
            names = (field.name for field in dataclasses.fields(cls))
            return self.ext(KEYWORDS, cls, {name: getattr(value, name) for name in names if hasattr(value, name)})
        return self.other(value, cls)

    def model(self, value: BaseModel, cls: type[BaseModel]) -> Any:
        """Shallow: nested values are written as what they are, where `model_dump` cuts a subclass down."""
        values, fields = value.__dict__, cls.model_fields
        if values.keys() != fields.keys():  # cached properties live there too
            values = {name: values[name] for name in fields if name in values}
        state = [list(value.__pydantic_fields_set__), value.__pydantic_extra__, value.__pydantic_private__]
        try:
            return self.ext(PYDANTIC_2, cls, values, "model_validate_json", *state)
        except (TypeError, ormsgpack.MsgpackEncodeError):
            if not self.knows(*name_of(cls)):
                raise
        # Something inside cannot be written as what it is, for example a private attribute. As stock writes it, then:
        # plain data, which the model's fields make whole again. A value behind `Any` stays plain data.
        _warn_once(f"{cls.__module__}.{cls.__qualname__}", self.lost.forget())
        return self.stock(value)

    def tuple_subclass(self, value: Any, cls: type) -> Any:
        if is_named_tuple(cls):
            return self.ext(KEYWORDS, cls, dict(value._asdict()))
        return self.ext(SINGLE, cls, list(value)) if cls in self.types else self.default(tuple(value))

    def plain_subclass(self, value: Any, cls: type) -> Any:
        """Kept where the graph or the list of safe types names it, plain as in stock otherwise."""
        if cls is int:
            return self.ext(SINGLE, cls, str(value))  # of more than 64 bits
        base = next(base for base in PLAIN if isinstance(value, base))
        plain = base(value)
        if cls is collections.defaultdict:
            factory = getattr(value.default_factory, "__name__", "")
            return self.ext(SINGLE, cls, plain, factory if FACTORIES.get(factory) is value.default_factory else None)
        if cls in self.types or name_of(cls) in SAFE_TYPES:
            return self.ext(SINGLE, cls, plain)
        return plain

    def other(self, value: Any, cls: type) -> Any:
        if cls is complex:
            return self.ext(POSITIONAL, cls, [value.real, value.imag])
        if cls is range:
            return self.ext(POSITIONAL, cls, [value.start, value.stop, value.step])
        if cls is datetime and (value.fold or hasattr(value.tzinfo, "key")):
            return self.ext_method(value)
        if isinstance(value, pathlib.PurePath) and not isinstance(value, pathlib.Path):
            return self.ext(POSITIONAL, cls, list(value.parts))
        if isinstance(value, type):
            raise self.loss(f"class ({value.__module__}.{value.__qualname__})")
        try:
            return self.stock(value)
        except TypeError:
            raise self.loss(f"{cls.__module__}.{cls.__qualname__}") from None

    def ext_method(self, value: datetime) -> ormsgpack.Ext:
        parts = ["datetime", "datetime", value.isoformat(), "fromisoformat", value.tzinfo, value.fold]
        return ormsgpack.Ext(METHOD, self.pack(parts))


@lru_cache(4096)
def name_of(cls: type) -> tuple[str, str]:
    """(module, name) as stock has it where that leads to the class; else (in a class, in a function) qualified."""
    found = getattr(loaded_modules.get(cls.__module__), cls.__name__, None) is cls
    return cls.__module__, cls.__name__ if found else cls.__qualname__


def _blame(error: Exception, value: Any) -> str:
    """What to call a value that ormsgpack itself refused. Its text tells of the kind, never of the value."""
    text = str(error).lower()
    if "recursion" in text:
        return f"{type(value).__qualname__} nested too deeply (or containing itself)"
    if "key" in text:
        return f"{type(value).__qualname__} with dict keys that are neither strings nor numbers"
    return type(value).__qualname__


_warned: set[str] = set()


def _warn_once(model: str, inner: str | None) -> None:
    if model in _warned or len(_warned) > 1000:
        return
    _warned.add(model)
    logger.warning(
        "a model is saved as plain data: something in it has a type that the graph's state schema does not name",
        extra={"model": model, "type": inner or "unknown"},
    )
