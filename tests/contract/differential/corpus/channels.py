"""What a state is made of: reducers, kinds of channels, schemas, models, values that are no JSON."""

import operator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, TypedDict
from uuid import UUID

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.channels import BinaryOperatorAggregate, DeltaChannel, EphemeralValue, LastValue, Topic
from langgraph.channels.untracked_value import UntrackedValue
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.types import Overwrite
from pydantic import BaseModel, Field

from tests.contract.differential.building import Log, line, says
from tests.contract.differential.scenario import AnyGraph, Run, Update, scenario


class Kinds(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    last: str
    total: Annotated[int, BinaryOperatorAggregate(int, operator.add)]
    topic: Annotated[list[str], Topic(str)]
    piled: Annotated[list[str], Topic(str, accumulate=True)]
    brief: Annotated[str, EphemeralValue(str)]


def _kinds(name: str) -> Any:
    def node(state: Kinds) -> Any:
        seen = {key: state.get(key) for key in ("last", "total", "topic", "piled", "brief")}
        return {"log": [[name, seen]], "last": name, "total": 2, "topic": name, "piled": [name, name], "brief": name}

    return node


class Untracked(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    scratch: Annotated[Any, UntrackedValue]


def _scratches(name: str) -> Any:
    def node(state: Untracked) -> Any:
        return {"log": [[name, state.get("scratch")]], "scratch": f"by {name}"}

    return node


class Delta(TypedDict, total=False):
    log: Annotated[list[Any], DeltaChannel(lambda old, new: [*old, *[one for many in new for one in many]])]
    count: int


def _delta(name: str) -> Any:
    def node(state: Delta) -> Any:
        return {"log": [f"{name} after {len(state['log'])}"], "count": state.get("count", 0) + 1}

    return node


class Input(TypedDict):
    question: str


class Output(TypedDict):
    answer: str


class Private(TypedDict):
    secret: int


class Whole(Input, Output):
    notes: Annotated[list[str], operator.add]


def _schemas() -> AnyGraph:
    def first(state: Input) -> Private:
        return {"secret": len(state["question"])}

    def second(state: Private) -> Any:
        return {"notes": [f"secret {state['secret']}"]}

    def third(state: Whole) -> Any:
        return {"answer": f"{state['question']} {state['notes']}"}

    return line({"first": first, "second": second, "third": third}, Whole, input_schema=Input, output_schema=Output)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int | None = None


class Model(BaseModel):
    name: str = "nobody"
    addresses: Annotated[list[Address], operator.add] = Field(default_factory=list)
    count: int = 0


def _model(state: Model) -> Any:
    return {
        "addresses": [Address(street=f"{state.name} street", number=len(state.addresses))],
        "count": state.count + 1,
    }


def _model_whole(state: Model) -> Model:
    return Model(name=state.name.upper(), count=state.count + 10)


@dataclass
class Point:
    x: int
    y: int = 0
    tags: frozenset[str] = frozenset()


@dataclass
class Data:
    points: Annotated[list[Point], operator.add] = field(default_factory=list)
    name: str = "none"


def _data(state: Data) -> Any:
    return {"points": [Point(len(state.points), 2, frozenset({"a"}))], "name": f"{state.name}!"}


class Values(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    values: dict[str, Any]


def _values(state: Values) -> Any:
    return {
        "values": {
            "when": datetime(2026, 11, 28, 12, 30, 5, 250, tzinfo=UTC),
            "long": timedelta(days=1, seconds=5),
            "tuple": (1, ("two", 3.5)),
            "set": {1, 2},
            "bytes": b"\x00\xff",
            "decimal": Decimal("1.50"),
            "uuid": UUID(int=7),
            "big": 2**70,
            "text": "ä \u2028 \U0001f600",
            "nan": float("inf"),
            "none": None,
            "nested": {"list": [{"deep": [()]}]},
        }
    }


def _reads_values(state: Values) -> Any:
    return {"log": [f"{key}: {type(value).__name__} {value!r}" for key, value in state["values"].items()]}


class Coloured(TypedDict, total=False):
    colour: Colour
    point: Point
    log: Annotated[list[Any], operator.add]


def _colours(state: Coloured) -> Any:
    return {"colour": Colour.BLUE, "point": Point(1, 2)}


def _reads_colours(state: Coloured) -> Any:
    return {"log": [state["colour"] is Colour.BLUE, repr(state["point"])]}


def _chat(*replies: Any) -> AnyGraph:
    def node_of(reply: Any) -> Any:
        return lambda state: {"messages": reply(state["messages"]) if callable(reply) else reply}

    return line({f"n{index}": node_of(reply) for index, reply in enumerate(replies)}, MessagesState)


def _overwrites() -> AnyGraph:
    def node(state: Log) -> Any:
        return {"log": Overwrite(["only this"])}

    return line({"a": says("a"), "o": node, "e": says("e")})


def _custom_reducer() -> AnyGraph:
    def merge(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any]:
        return {**(old or {}), **(new or {})}

    class Files(TypedDict, total=False):
        files: Annotated[dict[str, Any], merge]

    def write(name: str) -> Any:
        return lambda state: {"files": {name: f"{len(state.get('files', {}))} before"}}

    builder = StateGraph(Files)
    for name in ("one", "two", "three"):
        builder.add_node(name, write(name))
        builder.add_edge(START, name)
    return builder.compile()


class Renamed(TypedDict, total=False):
    text: Annotated[str, LastValue(str)]
    messages: Annotated[list[AnyMessage], add_messages]


HELLO = {"messages": [{"role": "user", "content": "hello", "id": "m1"}]}

SCENARIOS = [
    scenario(
        "channel_kinds",
        line({name: _kinds(name) for name in "abc"}, Kinds),
        Run({"last": "in", "total": 1, "brief": "in"}),
        Run({"total": 5}),
        features="topic ephemeral binary_operator turns",
    ),
    scenario(
        "channel_kinds_updated",
        line({name: _kinds(name) for name in "ab"}, Kinds),
        Run({"total": 1}),
        Update({"total": 3, "last": "hand"}, as_node="a"),
        Run(),
        features="topic ephemeral binary_operator update_state",
    ),
    scenario(
        "untracked",
        line({name: _scratches(name) for name in "abc"}, Untracked),
        Run({"log": [], "scratch": "in"}),
        Run({"log": []}),
        features="untracked inline turns",
    ),
    scenario(
        "delta",
        line({name: _delta(name) for name in "abc"}, Delta),
        Run({"log": ["in"]}),
        Run({"log": ["more"]}),
        Run({"log": ["and more"]}),
        features="delta_channel turns",
    ),
    scenario(
        "delta_replayed",
        line({name: _delta(name) for name in "abc"}, Delta),
        Run({"log": ["in"]}),
        Run({"log": ["more"]}),
        Run(at=2),
        features="delta_channel replay",
    ),
    scenario(
        "delta_forked",
        line({name: _delta(name) for name in "abc"}, Delta),
        Run({"log": ["in"]}),
        Update({"log": ["by hand"]}, at=2),
        Run(),
        features="delta_channel fork update_state",
    ),
    scenario("schemas", _schemas(), Run({"question": "why?"}), features="input_schema output_schema private_state"),
    scenario(
        "schemas_interrupted",
        _schemas(),
        Run({"question": "why?"}, interrupt_before=("third",)),
        Run(),
        features="input_schema output_schema private_state breakpoints",
    ),
    scenario(
        "pydantic",
        line({"a": _model, "b": _model_whole, "c": _model}, Model),
        Run({"name": "ann", "addresses": [{"street": "in"}]}),
        features="pydantic_state",
    ),
    scenario(
        "pydantic_refuses",
        line({"a": _model}, Model),
        Run({"name": 5, "count": "many"}),
        features="pydantic_state failing",
    ),
    scenario(
        "pydantic_turns",
        line({"a": _model}, Model),
        Run({"name": "ann"}),
        Run({"name": "bob"}),
        Update({"count": 7}),
        features="pydantic_state turns update_state",
    ),
    scenario(
        "dataclass",
        line({"a": _data, "b": _data}, Data),
        Run({"name": "x"}),
        Run({"name": "y"}),
        features="dataclass_state turns",
    ),
    scenario(
        "values_of_python", line({"a": _values, "b": _reads_values}, Values), Run({"log": []}), features="python_values"
    ),
    scenario(
        "values_of_classes",
        line({"a": _colours, "b": _reads_colours}, Coloured),
        Run({"log": []}),
        features="python_values enum dataclass",
    ),
    scenario(
        "chat",
        _chat([AIMessage("hi", id="a1")], [AIMessage("again", id="a2"), HumanMessage("oh", id="h1")]),
        Run(HELLO),
        features="messages",
    ),
    scenario(
        "chat_without_ids",
        _chat([AIMessage("hi")], [AIMessage("again")]),
        Run({"messages": "hello"}),
        features="messages",
    ),
    scenario(
        "chat_removes",
        _chat([AIMessage("hi", id="a1")], lambda messages: [RemoveMessage(messages[0].id)]),
        Run(HELLO),
        features="messages remove_message",
    ),
    scenario(
        "chat_removes_all",
        _chat([AIMessage("hi", id="a1")], [RemoveMessage(REMOVE_ALL_MESSAGES), HumanMessage("new", id="h9")]),
        Run(HELLO),
        Run(HELLO),
        features="messages remove_message turns",
    ),
    scenario("chat_replaces", _chat([AIMessage("hi", id="m1")]), Run(HELLO), features="messages"),
    scenario(
        "chat_removes_a_stranger",
        _chat([RemoveMessage("nobody")]),
        Run(HELLO),
        features="messages remove_message failing",
    ),
    scenario(
        "chat_updated_by_hand",
        _chat([AIMessage("hi", id="a1")]),
        Run(HELLO),
        Update({"messages": [{"role": "assistant", "content": "changed", "id": "a1"}]}),
        features="messages update_state",
    ),
    scenario("overwrite", _overwrites(), Run({"log": ["in"]}), features="overwrite"),
    scenario("reducer_of_ones_own", _custom_reducer(), Run({"files": {"in": "0"}}), features="reducer", parallel=True),
]
