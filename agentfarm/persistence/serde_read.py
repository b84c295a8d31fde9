"""The reading half of the serializer: bytes to values. What may be called is decided here, and nowhere else.

A stored value names a class and what to make it of. It is made only if the class is one that the graph names, or one
of the safe types, or on the allowlist. Otherwise reading fails and says which class is missing: a node that found a
dict where its state had an object would go on with it. Stock hands out the bare payload there; so does this where the
graph asked for it (`"lossy_state": true`), or where there is no graph to ask. Listeners of
langgraph.checkpoint.serde.event_hooks hear of it either way. How each kind of value is made is serde_build.py's.
"""

import builtins
import importlib
import sys
import threading
from datetime import datetime
from functools import reduce
from typing import Any

import ormsgpack

from agentfarm.engine._langgraph_serde import (
    DELTA,
    METHOD,
    NUMPY,
    PYDANTIC_2,
    SAFE_MSGPACK_TYPES,
    Allowlist,
    DeltaSnapshot,
    payload_instead,
    read_numpy,
    stock_judges,
)
from agentfarm.persistence.serde_build import LackingFields, build

READ_OPTIONS = ormsgpack.OPT_NON_STR_KEYS

#: Constructors without side effects that stock's list of safe types lacks.
SAFE_TYPES = SAFE_MSGPACK_TYPES | {
    *(("builtins", name) for name in ("tuple", "int", "complex", "range", "slice", "dict", "bytearray", "memoryview")),
    *(("collections", name) for name in ("OrderedDict", "Counter", "defaultdict")),
    ("fractions", "Fraction"),
    *(("pydantic.types", name) for name in ("SecretStr", "SecretBytes")),
    *(("pydantic.networks", name) for name in ("AnyUrl", "HttpUrl", "AnyHttpUrl", "WebsocketUrl", "FileUrl", "FtpUrl")),
    *((m, n) for m in ("pathlib", "pathlib._local") for n in ("PurePosixPath", "PureWindowsPath", "PurePath")),
    ("langchain_core.messages.base", "TextAccessor"),
    ("langchain_core.runnables.utils", "AddableDict"),
    *(("langchain_core.agents", name) for name in ("AgentAction", "AgentActionMessageLog", "AgentFinish", "AgentStep")),
    *(("langchain_core.prompt_values", name) for name in ("StringPromptValue", "ChatPromptValue")),
    ("langgraph.store.base", "SearchItem"),
}

_LOCALS = "<locals>"

Known = dict[tuple[str, str], type]


class Unreadable(Exception):
    """A stored value that this process cannot make: `type` (module and name), and `why`. Neither tells the value."""

    def __init__(self, type: str, why: str) -> None:
        super().__init__(type)
        self.type, self.why = type, why


class _Here(threading.local):
    """What this thread met while reading.

    unreadable  why it stopped: ormsgpack drops the exception
    plain       how many values came back as their bare payload so far
    """

    unreadable: Unreadable | None = None
    plain = 0


class Reader:
    """known    the graph's classes by (module, name)
    allowed  further names, as stock takes them
    lenient  a value that cannot be made comes back as its bare payload
    """

    def __init__(self, known: Known, allowed: Allowlist, *, lenient: bool) -> None:
        self.known = known
        self.names = SAFE_TYPES | (allowed if isinstance(allowed, set) else set())
        self.may_call, self.may_call_method = stock_judges(allowed)
        self.lenient = lenient
        self.here = _Here()

    def knows(self, module: str, name: str, cls: type = object) -> bool:
        """Whether a value of this class comes back as one. Asks nobody who would report it.

        cls  the class itself, where it is at hand: another one of the same name would come back as this one
        """
        if (known := self.known.get((module, name))) is not None:
            return cls is object or known is cls
        if (module, name) in self.names:
            return True
        return _LOCALS not in name and (module, name.rpartition(".")[2]) in self.names

    def load(self, data: bytes) -> Any:
        """Raises Unreadable."""
        here = self.here
        here.unreadable, here.plain = None, 0
        try:
            return self.read(data)
        except ValueError:
            if here.unreadable is None:
                raise
            raise here.unreadable from None

    def read(self, data: bytes) -> Any:
        return ormsgpack.unpackb(data, ext_hook=self.revive, option=READ_OPTIONS)

    def revive(self, code: int, data: bytes) -> Any:
        """ormsgpack's hook: one extension back to its value."""
        if code == NUMPY:
            return self.array(code, data)
        parts, before = None, self.here.plain
        try:
            parts = self.read(data)
            if code == DELTA:
                return DeltaSnapshot(parts)
            module, name, payload, *more = parts
            if module == "builtins" and name == "tuple":
                return tuple(payload)
            if code == METHOD:
                return self.call_method(module, name, payload, more)
            if module == "numpy" and more:
                return read_number(name, *more)
            cls = self.resolve(module, name)
            if cls is None:
                return self.refuse(module, name, payload, "this build's graph names no such class")
            if code == PYDANTIC_2 and self.here.plain != before:
                more = []  # something in it is not what it was: let the model look at it
            return build(code, cls, payload, more, self.resolve)
        except Exception as error:  # whatever a constructor raises
            if self.here.unreadable is not None:
                raise
            return self.gone(parts, error)

    def refuse(self, module: object, name: object, payload: Any, why: str) -> Any:
        if self.lenient:
            self.here.plain += 1
            return payload
        self.here.unreadable = Unreadable(f"{module}.{name}", why)
        raise self.here.unreadable

    def gone(self, parts: Any, error: Exception) -> Any:
        if self.lenient:
            self.here.plain += 1
            return payload_instead(parts, error)  # as stock: with a warning
        if not isinstance(parts, list) or len(parts) < 3:
            raise error
        lacks = isinstance(error, AttributeError | ImportError | LookupError)
        why = str(error) if isinstance(error, LackingFields) else type(error).__name__
        return self.refuse(
            parts[0],
            parts[1],
            parts[2],
            "this build has no such class" if lacks else f"it does not take what was stored ({why})",
        )

    def resolve(self, module: str, name: str) -> Any:
        """The class or function of that name, or None: it is not allowed. Raises where there is no such name."""
        if (cls := self.known.get((module, name))) is not None:
            return cls
        if is_standard_error(module, name):
            return getattr(builtins, name)
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
            return self.refuse(module, name, payload, f"its method {method!r} may not be called")
        value = datetime.fromisoformat(payload)
        return value.replace(tzinfo=zone[0], fold=zone[1]) if zone else value

    def array(self, code: int, data: bytes) -> Any:
        """An array of numpy: one's own, where stock's is a view that nobody may write to."""
        view = read_numpy(code, data)
        if view is None:
            return self.refuse("numpy", "ndarray", None, "numpy is not installed here, or does not know its dtype")
        return view.copy(order="K")


def read_number(name: str, dtype: str, data: bytes) -> Any:
    numpy: Any = sys.modules.get("numpy") or importlib.import_module("numpy")
    return numpy.frombuffer(data, dtype=numpy.dtype(dtype))[0]


def is_standard_error(module: str, name: str) -> bool:
    """Python's own exceptions: kept like values, though stock keeps none."""
    found = getattr(builtins, name, None) if module == "builtins" else None
    return isinstance(found, type) and issubclass(found, BaseException)
