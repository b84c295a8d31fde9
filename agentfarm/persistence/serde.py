"""Values to bytes and back as what they were.

`JsonPlusSerializer` is made for a value that is read again now and then. A farm that executes each node in another
process reads every value at every node, so what it loses (tuples, tuples in sets, enums and models that no import
finds, time zones, dict keys that are no strings, exceptions, the fields of a subclass ...) would be lost in the middle
of a run.

The format is stock's: msgpack, the same extension codes, the same envelope [module, name, payload]. What a stock
reader has no room for is added behind the payload, where it does not look; so each reads what the other wrote, and the
stock reader gets what it would have got from its own writer, or more. No pickle, ever. Only stock's safe types, an
allowlist and the classes that the operator's graph names (state_types.py) are written or called.

What cannot be kept raises ValueLost when it is saved, and StateUnreadable when it is read: a run that fails there names
the type, a node that found a dict where its state had an object would not. What a graph wants to have passed on as
plain data all the same, its entry in langgraph.json says. The one thing that is lost by design: two references to one
object become two objects. docs/how-to/values-in-state.md tells it to authors, tests/contract/test_serde_values.py has
the kinds of value.
"""

import copy
import logging
import threading
from collections.abc import Iterable
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send

from agentfarm.engine._langgraph_serde import ERROR, INTERRUPT, RESULT, RESUME, SENDS, normalize_allowlist
from agentfarm.errors import StateUnreadable, ValueLost
from agentfarm.persistence.serde_read import Known, Reader, Unreadable
from agentfarm.persistence.serde_write import Refused, Writer
from agentfarm.persistence.state_types import types_of

logger = logging.getLogger(__name__)


class FaithfulSerializer(JsonPlusSerializer):
    """JsonPlusSerializer that gives values back as what they were, and that is strict whatever the environment says.

    types                    classes of the graph's state; need not be importable
    allowed_msgpack_modules  further (module, name) pairs, as stock takes them; True is refused
    softens                  what cannot be kept is written as plain data, where it has such a form
    lenient                  what cannot be made is read as plain data
    raises                   ValueLost from dumps and dumps_typed, StateUnreadable from loads_typed
    """

    def __init__(
        self,
        *,
        types: Iterable[type] = (),
        allowed_msgpack_modules: Iterable[tuple[str, ...] | type] | Literal[True] | None = None,
        softens: bool = False,
        lenient: bool = False,
    ) -> None:
        if allowed_msgpack_modules is True:
            raise ValueError("allowed_msgpack_modules=True would let stored bytes call any function")
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=allowed_msgpack_modules)
        self.types = frozenset(types)
        self.softens, self.lenient = softens, lenient
        self.softened = _Softened()
        self._known = _by_name(self.types)
        self._arm()

    def _arm(self) -> None:
        self._reader = Reader(self._known, self._allowed_msgpack_modules, lenient=self.lenient)
        self._writer = Writer(self.types, self._reader.knows)
        self._unpack_ext_hook = self._reader.revive

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[tuple[str, ...] | type]) -> "FaithfulSerializer":
        """A copy that may read these too. LangGraph's compile() calls this; the copy keeps our way of reading."""
        have = cast("set[tuple[str, ...]]", self._allowed_msgpack_modules or set())
        extra = normalize_allowlist(extra_allowlist)
        if extra <= have:
            return self
        clone = copy.copy(self)
        clone._allowed_msgpack_modules = have | extra
        clone._arm()
        return clone

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """As stock, also of an exception that is the whole value: what a node failed with is kept as its repr."""
        return self.dump(_as_text(obj) if isinstance(obj, BaseException) else obj, softens=False)

    def dump(self, value: Any, *, place: str = "The state", softens: bool = True) -> tuple[str, bytes]:
        """Raises ValueLost, which begins with the place.

        softens  if this serializer does at all
        """
        if value is None:
            return "null", b""
        if type(value) is bytes:
            return "bytes", value
        if type(value) is bytearray:
            return "bytearray", bytes(value)
        try:
            data = self._writer.write(value, softens=softens and self.softens)
        except Refused as refused:
            raise ValueLost(place=place, type=refused.name, todo=refused.todo) from None
        if self.softens:
            self.softened.add(place, self._writer.softened())
        return "msgpack", data

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return self.load(data)

    def load(self, data: tuple[str, bytes], *, place: str = "The state") -> Any:
        """Raises StateUnreadable, which begins with the place."""
        if data[0] != "msgpack":
            return super().loads_typed(data)
        try:
            return self._reader.load(data[1])
        except Unreadable as error:
            raise StateUnreadable(place=place, type=error.type, why=error.why) from None


#: As many as a run's record tells. Threads that write for no run never empty theirs.
MAX_SOFTENED = 100


class _Softened(threading.local):
    """What this thread has written as plain data: (place, type), each once. Whoever keeps a run's record empties it,
    before what it writes for that run and after."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, str], None] = {}

    def add(self, place: str, names: Iterable[str]) -> None:
        for name in names:
            if len(self.places) < MAX_SOFTENED:
                self.places[place, name] = None

    def take(self) -> list[tuple[str, str]]:
        places, self.places = self.places, {}
        return list(places)


def _by_name(types: Iterable[type]) -> Known:
    """By qualified name, and by the plain one that stock writes. Two of one name are left out: which one is meant?"""
    known: dict[tuple[str, str], set[type]] = {}
    for cls in types:
        for name in {cls.__name__, cls.__qualname__}:
            known.setdefault((cls.__module__, name), set()).add(cls)
    return {name: next(iter(found)) for name, found in known.items() if len(found) == 1}


def _as_text(error: BaseException) -> str:
    try:
        text = repr(error)
    except Exception:  # of the tenant's own code
        text = type(error).__name__
    return text.encode("utf-8", "replace").decode()


# --------------------------------------------------------------------------- who knows the channel

#: Where else a value may be than in a channel: a run's input, config and context; answers to interrupts of one node.
RUN = "__run__"
CALL = "__call__"


def dump_channel(serde: SerializerProtocol, channel: str, value: Any) -> tuple[str, bytes]:
    """`serde.dumps_typed`, for callers who know the channel: ValueLost names it."""
    if not isinstance(serde, FaithfulSerializer):
        return serde.dumps_typed(value)
    if channel == ERROR:
        return serde.dumps_typed(value)
    return serde.dump(value, place=_place_of(channel, value))


def load_channel(serde: SerializerProtocol, channel: str, data: tuple[str, bytes]) -> Any:
    """`serde.loads_typed`, for callers who know the channel: StateUnreadable names it."""
    if not isinstance(serde, FaithfulSerializer):
        return serde.loads_typed(data)
    return serde.load(data, place=_place_of(channel, None))


def _place_of(channel: str, value: Any) -> str:
    """Where a value is, in the words of who wrote the graph."""
    if channel == SENDS and type(value) is Send:
        return f"The argument of Send to node {value.node!r}"
    return _PLACES.get(channel) or f"Channel {channel!r}"


_PLACES = {
    SENDS: "The argument of a Send",
    INTERRUPT: "The value of interrupt()",
    RESUME: "The answer to interrupt()",
    RESULT: "The result of a task",
    RUN: "What the run was asked for",
    CALL: "What goes with the call of a node",
    "": "The state",
}


# --------------------------------------------------------------------------- of a graph

#: Where no graph is served that would know its classes: plain values and messages. A value of another class is read as
#: its bare payload: it is looked at, and no node goes on with it.
_plain = {lossy: FaithfulSerializer(softens=lossy, lenient=True) for lossy in (False, True)}
_serializers: "WeakKeyDictionary[Any, FaithfulSerializer]" = WeakKeyDictionary()


def serde_of(graph: Any, *, lossy: bool = False) -> FaithfulSerializer:
    """The serializer for threads of this graph; made once a graph and process.

    graph  a compiled Pregel, or None: plain values and LangChain's messages only
    lossy  the graph's entry in langgraph.json asks for plain data instead of an error
    """
    if graph is None:
        return _plain[lossy]
    if (serde := _serializers.get(graph)) is None:
        serde = _serializers[graph] = FaithfulSerializer(types=types_of(graph), softens=lossy, lenient=lossy)
    return serde


__all__ = ["CALL", "RUN", "FaithfulSerializer", "dump_channel", "load_channel", "serde_of", "types_of"]
