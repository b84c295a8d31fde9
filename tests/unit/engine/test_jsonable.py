"""Any value as JSON: the shapes that clients read, and never an exception."""

import dataclasses
import enum
import ipaddress
import json
import re
import uuid
import warnings
from collections import deque, namedtuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel, model_serializer

from agentfarm.engine.jsonable import to_json

SECRET = "do not tell"


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    n: int
    tags: set[str] = set()


class Broken(BaseModel):
    n: int

    @model_serializer
    def fail(self) -> dict[str, Any]:
        raise ValueError(SECRET)


@dataclasses.dataclass
class Point:
    x: Any
    _hidden: int = 2


class Opaque:
    def __repr__(self) -> str:
        return SECRET


Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024  # the untyped one, as users write it

KNOWN: dict[str, tuple[Any, Any]] = {
    "plain": ({"a": [1, 2.5, True, None, "é"]}, {"a": [1, 2.5, True, None, "é"]}),
    "uuid": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "datetime": (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
    "date": (date(2026, 1, 2), "2026-01-02"),
    "timedelta": (timedelta(minutes=1), 60.0),
    "enum": ({"c": Colour.RED}, {"c": "red"}),
    "decimal": ([Decimal(3), Decimal("1.5")], [3, 1.5]),
    "bytes": (b"abc", "YWJj"),
    "tuple": ((1, (2,)), [1, [2]]),
    "set": ({1}, [1]),
    "deque": (deque([1, 2]), [1, 2]),
    "namedtuple": (Pair(1, {2}), {"left": 1, "right": [2]}),
    "dataclass": (Point(b"a"), {"x": "YQ=="}),
    "model": (Model(n=1, tags={"t"}), {"n": 1, "tags": ["t"]}),
    "pattern": (re.compile("a+"), "a+"),
    "address": (ipaddress.ip_address("::1"), "::1"),
    "path": (PurePosixPath("/a"), "/a"),
    "exception": (ValueError("boom"), {"error": "ValueError", "message": "boom"}),
    "interrupt": (Interrupt({"q": 1}, "id"), {"value": {"q": 1}, "id": "id", "response_schema": None}),
    "send": (Send("node", {"x": 1}), {"node": "node", "input": {"x": 1}}),
    "command": (Command(goto="a"), {"graph": None, "update": None, "resume": None, "goto": "a"}),
    "not a number": ([float("nan"), float("inf")], [None, None]),
    "keys": ({1: "a", None: "b", uuid.UUID(int=1): "c"}, {"1": "a", "null": "b", str(uuid.UUID(int=1)): "c"}),
    "pair as a key": ({(1, "a"): 1}, {"(1, 'a')": 1}),
    "lone surrogate": ({"\ud800": "\ud800"}, {"?": "?"}),
    "large number": ([1 << 80, -(1 << 63)], [str(1 << 80), -(1 << 63)]),
    "type": ([int, Model], ["<builtins.int>", f"<{__name__}.Model>"]),
    "opaque": ([Opaque(), {Opaque(): 1}], [f"<{__name__}.Opaque>", {f"<{__name__}.Opaque>": 1}]),
    "runnable": (RunnableLambda(len), "<langchain_core.runnables.base.RunnableLambda>"),
    "own serializer fails": (Broken(n=1), f"<{__name__}.Broken>"),
}


@pytest.mark.parametrize(("value", "told"), KNOWN.values(), ids=KNOWN)
def test_a_value_is_told_as_clients_read_it(value: Any, told: Any) -> None:
    text = to_json(value)

    assert json.loads(text) == told
    assert SECRET.encode() not in text


def test_messages_are_told_as_langchain_dumps_them() -> None:
    messages = [
        HumanMessage("hi", id="1"),
        AIMessage("", id="2", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c"}]),
        AIMessageChunk("to", id="3"),
    ]

    told = json.loads(to_json(messages))

    assert told == [json.loads(message.model_dump_json()) for message in messages]
    assert [message["type"] for message in told] == ["human", "ai", "AIMessageChunk"]


def test_a_document_is_told_with_its_metadata() -> None:
    told = json.loads(to_json(Document("text", metadata={"at": date(2026, 1, 2)})))

    assert (told["page_content"], told["metadata"]) == ("text", {"at": "2026-01-02"})


def test_a_field_that_holds_another_type_than_it_declares_warns_nobody() -> None:
    model = Model(n=1)
    model.n = "not a number"  # type: ignore[assignment]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert json.loads(to_json(model)) == {"n": "not a number", "tags": []}


def test_what_holds_itself_ends_at_the_name_of_its_type() -> None:
    circle: list[Any] = [1]
    circle.append(circle)

    assert json.loads(to_json(circle)) == [1, "<builtins.list>"]


def test_a_depth_that_no_client_reads_is_cut() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": deep}

    assert b"<builtins.dict>" in to_json(deep)


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes()
    | st.just(Opaque())
    | st.builds(Point, st.integers()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner)
        | st.builds(Point, inner)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(ODD)
def test_it_never_raises(value: Any) -> None:
    json.loads(to_json(value))
