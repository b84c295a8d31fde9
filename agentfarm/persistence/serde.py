"""Values to bytes and back as what they were.

`JsonPlusSerializer` is made for a value that is read again now and then. A farm that executes each node in another
process reads every value at every node, so what it loses (tuples, tuples in sets, enums and models that no import
finds, time zones, the fields of a subclass ...) would be lost in the middle of a run.

The format is stock's: msgpack, the same extension codes, the same envelope [module, name, payload]. What a stock
reader has no room for is added behind the payload, where it does not look; so each reads what the other wrote, and the
stock reader gets what it would have got from its own writer, or more. No pickle, ever. Only stock's safe types, an
allowlist and the classes that the operator's graph names (state_types.py) are written or called.

What cannot be kept raises ValueLost when it is saved: a run that fails there names the type, a node that found a dict
where its state had an object would not. Lost without a word, as in stock: dict keys that are enums, datetimes or UUIDs
become strings, a bytearray inside of something becomes bytes, exceptions become their repr, and two references to one
object become two objects. Measured over 75 kinds of value: tests/contract/test_serde_values.py.
"""

import copy
from collections.abc import Iterable
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentfarm.engine._langgraph_serde import normalize_allowlist
from agentfarm.errors import ValueLost
from agentfarm.persistence.serde_read import Reader
from agentfarm.persistence.serde_write import Writer
from agentfarm.persistence.state_types import types_of


class FaithfulSerializer(JsonPlusSerializer):
    """JsonPlusSerializer that gives values back as what they were, and that is strict whatever the environment says.

    types                    classes of the graph's state; need not be importable
    allowed_msgpack_modules  further (module, name) pairs, as stock takes them; True is refused
    raises                   ValueLost from dumps and dumps_typed, for a value that would not come back
    """

    def __init__(
        self,
        *,
        types: Iterable[type] = (),
        allowed_msgpack_modules: Iterable[tuple[str, ...] | type] | Literal[True] | None = None,
    ) -> None:
        if allowed_msgpack_modules is True:
            raise ValueError("allowed_msgpack_modules=True would let stored bytes call any function")
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=allowed_msgpack_modules)
        self.types = frozenset(types)
        known = {(cls.__module__, cls.__name__): cls for cls in self.types}  # as stock names them
        self._known = known | {(cls.__module__, cls.__qualname__): cls for cls in self.types}
        self._arm()

    def _arm(self) -> None:
        self._reader = Reader(self._known, self._allowed_msgpack_modules)
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
        if obj is None:
            return "null", b""
        if type(obj) is bytes:
            return "bytes", obj
        if type(obj) is bytearray:
            return "bytearray", bytes(obj)
        return "msgpack", self._writer.write(obj)


def dump_channel(serde: SerializerProtocol, channel: str, value: Any) -> tuple[str, bytes]:
    """`serde.dumps_typed`, for callers who know the channel: ValueLost names it."""
    try:
        return serde.dumps_typed(value)
    except ValueLost as error:
        raise ValueLost(channel=channel, type=error.facts["type"]) from error


_plain = FaithfulSerializer()
_serializers: "WeakKeyDictionary[Any, FaithfulSerializer]" = WeakKeyDictionary()


def serde_of(graph: Any) -> FaithfulSerializer:
    """The serializer for threads of this graph; made once a graph and process.

    graph  a compiled Pregel, or None: plain values and LangChain's messages only
    """
    if graph is None:
        return _plain
    if (serde := _serializers.get(graph)) is None:
        serde = _serializers[graph] = FaithfulSerializer(types=types_of(graph))
    return serde


__all__ = ["FaithfulSerializer", "dump_channel", "serde_of", "types_of"]
