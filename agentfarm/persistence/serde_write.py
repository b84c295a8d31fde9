"""The writing half of the serializer: values to bytes, and what cannot be written is named.

Whatever ormsgpack cannot write by itself comes to `Writer.default`, which answers with an extension in stock's
envelope, [module, name, payload], and behind it what a stock reader has no room for.

A value is packed twice where it holds what ormsgpack would turn into something else without asking (a dict key that is
neither a string nor plain, a bytearray): first at full speed, then with serde_plain.py looking at each dict and list.
"""

import collections
import dataclasses
import functools
import pathlib
import threading
from collections.abc import Callable
from datetime import date, datetime, time
from enum import Enum
from fractions import Fraction
from sys import modules as loaded_modules
from typing import Any

import ormsgpack
from langgraph.types import Send
from pydantic import BaseModel
from pydantic.networks import _BaseUrl as PydanticUrl  # the base of AnyUrl, HttpUrl, …; its subclasses are public
from pydantic.v1 import BaseModel as OldModel

from agentfarm.engine._langgraph_serde import (
    DELTA,
    KEYWORDS,
    METHOD,
    NUMPY,
    OPTIONS,
    POSITIONAL,
    PYDANTIC_1,
    PYDANTIC_2,
    SINGLE,
    DeltaSnapshot,
    stock_writer,
)
from agentfarm.persistence.serde_build import FACTORIES, fields_of
from agentfarm.persistence.serde_plain import holds_a_bytearray, with_care
from agentfarm.persistence.serde_read import SAFE_TYPES, is_standard_error
from agentfarm.persistence.state_types import attributes_of, is_named_tuple

#: Without stock's two that lose in silence: keys become strings, lone surrogates question marks.
_FAST = (
    (OPTIONS & ~ormsgpack.OPT_NON_STR_KEYS & ~ormsgpack.OPT_REPLACE_SURROGATES)
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_BIG_INT
)
_CAREFUL = _FAST | ormsgpack.OPT_NON_STR_KEYS

#: Whose subclasses stock writes as the plain type.
PLAIN = (str, int, float, list, dict, bytes)

#: Classes of which a writer remembers whether it may write them. A node may make new ones for ever.
MAX_KNOWN = 4096

#: What to do about a value that was refused.
NAME_IT = (
    "Put plain data into the state; or make it a dataclass, a pydantic model, a named tuple or an enum which the "
    "graph's state schema names, or which is defined beside the graph's nodes."
)
_OF_THE_PROCESS = "It belongs to one process. Keep it outside of the state, and in the state what it is made from."
_SURROGATES = "Clean the text first: text.encode('utf-8', 'replace').decode()."
_TOO_DEEP = "Keep ids instead of the objects themselves."


class Refused(TypeError):
    """Why a value was not written: what it is, and what to do. ormsgpack drops it; `_Here` keeps it."""

    def __init__(self, name: str, todo: str) -> None:
        super().__init__(name)
        self.name, self.todo = name, todo


class _Here(threading.local):
    """What this thread is writing.

    refused   the first refusal
    careful   dicts and lists are looked at
    needs_care, softened  what was met
    softens   what would not come back is made plain
    """

    refused: Refused | None = None
    careful = False
    needs_care = False
    softens = False
    softened: "collections.Counter[str] | None" = None


class Writer:
    """types  classes of the graph's state
    knows  whether a class of this module and name comes back as itself
    """

    def __init__(self, types: frozenset[type], knows: Callable[[str, str, type], bool]) -> None:
        self.types = types
        self.knows_name = knows
        self.known: dict[type, bool] = {}
        self.stock = stock_writer(self.pack_envelope)
        self.here = _Here()

    def write(self, value: Any, *, softens: bool = False) -> bytes:
        """softens  what would not come back is written as plain data, where it has such a form

        raises   Refused
        """
        here = self.here
        here.softens = softens
        here.refused, here.careful, here.needs_care, here.softened = None, False, False, None
        try:
            return self.pack(value)
        except (TypeError, ormsgpack.MsgpackEncodeError) as error:
            if not here.needs_care:
                raise self._verdict(error, value) from None
        here.refused, here.careful = None, True
        try:
            return self.pack(value)
        except (TypeError, ormsgpack.MsgpackEncodeError) as error:
            raise self._verdict(error, value) from None
        finally:
            here.careful = False

    def softened(self) -> tuple[str, ...]:
        """The types that the last `write` of this thread made plain."""
        return tuple(self.here.softened or ())

    def pack(self, value: Any) -> bytes:
        if self.here.careful:
            return ormsgpack.packb(with_care(value, self.ext), default=self.default, option=_CAREFUL)
        try:
            data = ormsgpack.packb(value, default=self.default, option=_FAST)
        except TypeError as error:
            self.here.needs_care = self.here.needs_care or "key must" in str(error)
            raise
        if holds_a_bytearray(value, data):
            self.here.needs_care = True
            raise TypeError("bytearray")
        return data

    def pack_envelope(self, parts: Any) -> bytes:
        """[module, name, payload, ...] of stock's writer: the outer tuple is the format's, not the value's."""
        if type(parts) is tuple:
            if len(parts) > 2 and isinstance(parts[1], str) and not self.knows_name(parts[0], parts[1], object):
                raise self.refuse(f"{parts[0]}.{parts[1]}")
            parts = list(parts)
        return self.pack(parts)

    def ext(self, code: int, cls: type, payload: Any, *more: Any) -> Any:
        """The extension, or the bare payload of a class that would not come back, where that is asked for."""
        if self.knows(cls):
            return ormsgpack.Ext(code, self.pack([*name_of(cls), payload, *more]))
        return self.soften(cls, payload)

    def soften(self, cls: type, payload: Any) -> Any:
        name = full_name(cls)
        if not self.here.softens:
            raise self.refuse(name)
        if self.here.softened is None:
            self.here.softened = collections.Counter()
        self.here.softened[name] += 1
        return payload

    def refuse(self, name: str, todo: str = NAME_IT) -> Refused:
        refused = Refused(name, todo)
        self.here.refused = self.here.refused or refused
        return refused

    def _verdict(self, error: Exception, value: Any) -> Refused:
        """What was refused first; else what ormsgpack itself did not take. Its text tells of the kind, not the value"""
        if self.here.refused:
            return self.here.refused
        kind, text = type(value).__qualname__, str(error).lower()
        if "surrogate" in text or "utf-8" in text:
            return Refused("str with lone surrogates (no valid Unicode)", _SURROGATES)
        if "recursion" in text:
            return Refused(f"{kind} nested too deeply, or containing itself", _TOO_DEEP)
        return Refused(kind, NAME_IT)

    def knows(self, cls: type) -> bool:
        """Whether a value of this class comes back as itself."""
        if (known := self.known.get(cls)) is None:
            if len(self.known) > MAX_KNOWN:
                self.known.clear()
            known = self.known[cls] = self.knows_name(*name_of(cls), cls)
        return known

    # ----------------------------------------------------------------------- values

    def default(self, value: Any) -> Any:
        """ormsgpack's hook. Whatever goes wrong in it must leave a name, since ormsgpack drops the error."""
        try:
            return self.extend(value)
        except Refused:
            raise
        except RecursionError:
            raise self.refuse(
                f"{type(value).__qualname__} nested too deeply, or containing itself", _TOO_DEEP
            ) from None
        except Exception as error:
            if not (self.here.needs_care or self.here.refused):  # of the value's own code, or of ormsgpack
                refused = self._verdict(error, value)
                name = refused.name if refused.todo != NAME_IT else full_name(type(value))
                raise self.refuse(name, refused.todo) from None
            raise

    def extend(self, value: Any) -> Any:
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
        if dataclasses.is_dataclass(cls):
            return self.data_class(value, cls)
        return self.other(value, cls)

    def model(self, value: BaseModel, cls: type[BaseModel]) -> Any:
        """Shallow: nested values are written as what they are, where `model_dump` cuts a subclass down."""
        values, fields = value.__dict__, fields_of(cls)
        if values.keys() != fields:  # cached properties live there too
            values = {name: values[name] for name in fields if name in values}
        state = [_in_order(value.__pydantic_fields_set__), value.__pydantic_extra__]
        private = value.__pydantic_private__
        if private and not self.can_write(private):
            # A lock, a client: no part of what the model says. Its constructor makes it anew, as in stock.
            return self.ext(PYDANTIC_2, cls, values, "model_validate_json", *state, None, True)
        return self.ext(PYDANTIC_2, cls, values, "model_validate_json", *state, private)

    def can_write(self, value: Any) -> bool:
        here = self.here
        before = here.refused, here.needs_care
        try:
            self.pack(value)
        except (TypeError, ormsgpack.MsgpackEncodeError):
            if here.needs_care and not here.careful and here.refused is before[0]:
                raise  # not known yet: it is looked at again, with care
            here.refused, here.needs_care = before
            return False
        return True

    def old_model(self, value: OldModel, cls: type[OldModel]) -> Any:
        private = {name: getattr(value, name) for name in value.__private_attributes__ if hasattr(value, name)}
        return self.ext(PYDANTIC_1, cls, dict(value.__dict__), _in_order(value.__fields_set__), private)

    def data_class(self, value: Any, cls: type) -> Any:
        names = [field.name for field in dataclasses.fields(cls)]
        told = {name: getattr(value, name) for name in names if hasattr(value, name)}
        if not _takes_init_vars(cls):
            return self.ext(KEYWORDS, cls, told, None)
        # Its constructor cannot be called again: what that made beside the fields goes along.
        beside = {name: part for name, part in getattr(value, "__dict__", {}).items() if name not in names}
        return self.ext(KEYWORDS, cls, told, beside)

    def tuple_subclass(self, value: Any, cls: type) -> Any:
        if is_named_tuple(cls):
            return self.ext(KEYWORDS, cls, dict(value._asdict()))
        return self.ext(SINGLE, cls, list(value), *self.attributes(value))

    def plain_subclass(self, value: Any, cls: type) -> Any:
        if cls is int:
            return self.ext(SINGLE, cls, str(value))  # of more than 64 bits
        if numpy_type(cls):
            return self.number(value)
        plain = next(base for base in PLAIN if isinstance(value, base))(value)
        if isinstance(value, collections.defaultdict):
            return self.ext(SINGLE, cls, plain, self.factory(value.default_factory))
        if cls.__module__ == "collections" or name_of(cls) in SAFE_TYPES:
            return self.ext(SINGLE, cls, plain)
        return self.ext(SINGLE, cls, plain, *self.attributes(value))

    def attributes(self, value: Any) -> list[Any]:
        """What an instance of a subclass of str, dict, … carries besides."""
        cls: type = type(value)
        if _has_slots(cls):
            raise self.refuse(full_name(cls))
        return [dict(told)] if (told := getattr(value, "__dict__", None)) else []

    def factory(self, factory: Any) -> Any:
        if factory is None or FACTORIES.get(getattr(factory, "__name__", "")) is factory:
            return factory and factory.__name__
        if isinstance(factory, type) and factory in self.types and self.knows(factory):
            return list(name_of(factory))
        if self.here.softens:
            return self.soften(collections.defaultdict, None)
        raise self.refuse(
            "collections.defaultdict whose default_factory is code of the graph",
            "Give it a built-in type (list, int, …), or pass dict(value).",
        )

    def other(self, value: Any, cls: type) -> Any:
        if cls is complex:
            return self.ext(POSITIONAL, cls, [value.real, value.imag])
        if cls is range or cls is slice:
            return self.ext(POSITIONAL, cls, [value.start, value.stop, value.step])
        if cls is Fraction:
            return self.ext(POSITIONAL, cls, [value.numerator, value.denominator])
        if cls is datetime and (value.fold or hasattr(value.tzinfo, "key")):
            parts = ["datetime", "datetime", value.isoformat(), "fromisoformat", value.tzinfo, value.fold]
            return ormsgpack.Ext(METHOD, self.pack(parts))
        if isinstance(value, date | time) and not self.knows(cls):
            return self.soften(cls, value.isoformat())
        if isinstance(value, pathlib.PurePath) and not isinstance(value, pathlib.Path):
            return self.ext(POSITIONAL, cls, list(value.parts))
        if isinstance(value, BaseException):
            return self.exception(value, cls)
        if isinstance(value, OldModel):
            return self.old_model(value, cls)
        if isinstance(value, PydanticUrl):
            return self.ext(SINGLE, cls, str(value))
        if (attributes := attributes_of(cls)) is not None:
            told = {name: getattr(value, name) for name, _ in attributes if hasattr(value, name)}
            return self.ext(KEYWORDS, cls, told)
        return self.numpy_or_stock(value, cls)

    def exception(self, error: BaseException, cls: type) -> Any:
        """Type, arguments, attributes and notes; and its cause, where that can be kept. No traceback, no context."""
        if not (is_standard_error(*name_of(cls)) or self.knows(cls)):
            return self.soften(cls, repr(error))
        reduced: Any = error.__reduce__()
        attributes = dict(reduced[2]) if len(reduced) > 2 and reduced[2] else {}
        cause = error.__cause__
        kept = cause if cause is not None and self.can_write(cause) else None
        parts = [*name_of(cls), list(reduced[1]), attributes, kept, error.__suppress_context__]
        return ormsgpack.Ext(POSITIONAL, self.pack(parts))

    def numpy_or_stock(self, value: Any, cls: type) -> Any:
        if numpy_type(cls):
            return array(value) if _is_plain_array(value, cls) else self.number(value)
        if isinstance(value, type):
            raise self.refuse(f"class ({full_name(value)})", "Keep its name instead.")
        if hasattr(value, "node") and hasattr(value, "arg") and cls is not Send:
            raise self.refuse(full_name(cls))  # to stock a Send, of which these two are all
        try:
            return self.stock(value)
        except Refused:
            raise
        except TypeError:
            if self.here.refused or self.here.needs_care:
                raise
            raise self.refuse(full_name(cls), NAME_IT if _is_of_user_code(cls) else _OF_THE_PROCESS) from None

    def number(self, value: Any) -> Any:
        """A scalar of numpy: as a stock reader may have it, a plain value; behind it what it was."""
        cls = type(value)
        dtype = getattr(value, "dtype", None)
        plain = value.item() if dtype is not None and getattr(value, "ndim", 1) == 0 else value
        if dtype is None or dtype.kind not in "biufcSUMm" or type(plain) is cls:
            raise self.refuse(full_name(cls), "Turn it into a plain value, for example by .tolist() or .item().")
        return ormsgpack.Ext(SINGLE, self.pack(["numpy", cls.__name__, plain, dtype.str, value.tobytes()]))


# --------------------------------------------------------------------------- names


def _in_order(names: set[str]) -> list[str]:
    """A set has another order in each process; the same value is the same bytes wherever it is written (pieces.py)."""
    return sorted(names)


@functools.lru_cache(4096)
def name_of(cls: type) -> tuple[str, str]:
    """(module, name) as stock has it where that leads to the class; else (in a class, in a function) qualified."""
    found = getattr(loaded_modules.get(cls.__module__), cls.__name__, None) is cls
    return cls.__module__, cls.__name__ if found else cls.__qualname__


def full_name(cls: type) -> str:
    """As an error tells it."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def array(value: Any) -> ormsgpack.Ext:
    """As stock's; whose memoryview does not do for dates."""
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    return ormsgpack.Ext(NUMPY, ormsgpack.packb([value.dtype.str, list(value.shape), order, value.tobytes(order)]))


def numpy_type(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "numpy"


def _is_plain_array(value: Any, cls: type) -> bool:
    """Not of objects, whose pointers stock would write; not with named fields or a mask, which it would drop."""
    return cls.__name__ == "ndarray" and not value.dtype.hasobject and value.dtype.names is None


def _is_of_user_code(cls: type) -> bool:
    return cls.__module__ not in ("builtins", "_thread", "_io", "types") and not cls.__module__.startswith("_")


@functools.lru_cache(4096)
def _takes_init_vars(cls: type) -> bool:
    # A pseudo-field of dataclasses; there is no public way to ask.
    return any(field._field_type.name == "_FIELD_INITVAR" for field in cls.__dataclass_fields__.values())  # type: ignore[attr-defined]


@functools.lru_cache(4096)
def _has_slots(cls: type) -> bool:
    return any(
        base.__dict__.get("__slots__") for base in cls.__mro__ if base.__module__ not in ("builtins", "collections")
    )
