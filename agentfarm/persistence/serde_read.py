"""The reading half of the serializer: bytes to values. What may be called is decided here, and nowhere else.

A stored value names a class and what to make it of. It is made only if the class is one that the graph names, or one
of the safe types, or on the allowlist; else the bare payload comes back, as in stock, and the listeners of
langgraph.checkpoint.serde.event_hooks hear of it.
"""

import collections
import dataclasses
import importlib
import threading
from datetime import datetime
from functools import reduce
from typing import Any

import ormsgpack

from agentfarm.engine._langgraph_serde import (
    DELTA,
    KEYWORDS,
    METHOD,
    NUMPY,
    POSITIONAL,
    PYDANTIC_2,
    SAFE_MSGPACK_TYPES,
    SINGLE,
    Allowlist,
    DeltaSnapshot,
    payload_instead,
    read_numpy,
    send_from_args,
    stock_judges,
)

READ_OPTIONS = ormsgpack.OPT_NON_STR_KEYS

#: Constructors without side effects that stock's list of safe types lacks.
SAFE_TYPES = SAFE_MSGPACK_TYPES | {
    ("builtins", "tuple"),
    ("builtins", "int"),
    ("builtins", "complex"),
    ("builtins", "range"),
    ("collections", "OrderedDict"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    ("pydantic.types", "SecretStr"),
    ("pydantic.types", "SecretBytes"),
    *((m, n) for m in ("pathlib", "pathlib._local") for n in ("PurePosixPath", "PureWindowsPath", "PurePath")),
}

#: What a defaultdict may make by itself when it is read back.
FACTORIES: dict[str, type] = {cls.__name__: cls for cls in (int, list, dict, set, str, float, tuple, bool)}

_LOCALS = "<locals>"


class _Refused(threading.local):
    """How many values came back as their bare payload so far, in this thread."""

    count = 0


class Reader:
    def __init__(self, known: dict[tuple[str, str], type], allowed: Allowlist) -> None:
        self.known = known
        self.names = SAFE_TYPES | (allowed if isinstance(allowed, set) else set())
        self.may_call, self.may_call_method = stock_judges(allowed)
        self.refused = _Refused()

    def knows(self, module: str, name: str) -> bool:
        """Whether a value of this class comes back as one. Asks nobody who would report it."""
        if (module, name) in self.known or (module, name) in self.names:
            return True
        return _LOCALS not in name and (module, name.rpartition(".")[2]) in self.names

    def read(self, data: bytes) -> Any:
        return ormsgpack.unpackb(data, ext_hook=self.revive, option=READ_OPTIONS)

    def revive(self, code: int, data: bytes) -> Any:
        """ormsgpack's hook: one extension back to its value, or to its bare payload where that is all one may have."""
        if code == NUMPY:
            return read_numpy(code, data)
        parts, refused = None, self.refused.count
        try:
            parts = self.read(data)
            if code == DELTA:
                return DeltaSnapshot(parts)
            module, name, payload, *more = parts
            if module == "builtins" and name == "tuple":
                return tuple(payload)
            if code == METHOD:
                return self.call_method(module, name, payload, more)
            cls = self.resolve(module, name)
            if cls is None:
                self.refused.count += 1
                return payload
            if code == PYDANTIC_2 and self.refused.count != refused:
                more = []  # something in it is not what it was: let the model look at it
            return _build(code, cls, payload, more)
        except Exception as error:  # whatever a constructor raises: as stock, the payload and a warning
            self.refused.count += 1
            return payload_instead(parts, error)

    def resolve(self, module: str, name: str) -> Any:
        """The class or function of that name, or None: it is not allowed. Raises where there is no such name."""
        if (cls := self.known.get((module, name))) is not None:
            return cls
        if not self.knows(module, name):
            self.may_call(module, name)  # refuses, and tells the listeners
            return None
        if _LOCALS in name:
            raise LookupError(name)
        return reduce(getattr, name.split("."), importlib.import_module(module))

    def call_method(self, module: str, name: str, payload: Any, more: list[Any]) -> Any:
        """datetime.fromisoformat: the only one that stock allows. Behind it, ours: time zone and fold."""
        method, *zone = more
        if not self.may_call_method(module, name, method):
            return payload
        value = datetime.fromisoformat(payload)
        return value.replace(tzinfo=zone[0], fold=zone[1]) if zone else value


def _build(code: int, cls: Any, payload: Any, more: list[Any]) -> Any:
    if code == SINGLE:
        if cls is collections.deque and more:
            return cls(payload, more[0])
        if cls is collections.defaultdict:
            return cls(FACTORIES.get(more[0]) if more else None, payload)
        return cls(payload)
    if code == POSITIONAL:
        return send_from_args(payload) if cls.__name__ == "Send" else cls(*payload)
    if code == KEYWORDS:
        return _dataclass(cls, payload) if dataclasses.is_dataclass(cls) else cls(**payload)
    return _model(code, cls, payload, more)


def _model(code: int, cls: Any, payload: dict[str, Any], more: list[Any]) -> Any:
    if code == PYDANTIC_2 and len(more) == 4 and payload.keys() == cls.model_fields.keys():
        value = cls.__new__(cls)  # as it was: not validated again, defaults not made anew
        value.__setstate__(
            {
                "__dict__": payload,
                "__pydantic_fields_set__": set(more[1]),
                "__pydantic_extra__": more[2],
                "__pydantic_private__": more[3],
            }
        )
        return value
    try:  # stock's, or a model that has changed since
        return cls(**payload)
    except Exception:  # a validator may raise anything; as stock, the model without its validation
        return (cls.model_construct if code == PYDANTIC_2 else cls.construct)(**payload)


def _dataclass(cls: Any, payload: dict[str, Any]) -> Any:
    """By the constructor, so that fields added since get their defaults; then the rest, as it was.

    The rest: fields with init=False, and what __post_init__ changed.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    value = cls(**{name: part for name, part in payload.items() if name not in fields or fields[name].init})
    for name, part in payload.items():
        if name in fields and getattr(value, name, payload) is not part:
            object.__setattr__(value, name, part)
    return value
