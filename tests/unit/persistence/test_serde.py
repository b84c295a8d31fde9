"""The serializer calls nothing that the graph does not name, and says what it cannot keep."""

import dataclasses
import enum
import re
import threading
from typing import Annotated, Any, NamedTuple, TypedDict

import ormsgpack
import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.event_hooks import register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Interrupt, Send
from pydantic import BaseModel

from agentfarm.errors import StateUnreadable, ValueLost
from agentfarm.persistence.serde import FaithfulSerializer, dump_channel, load_channel, serde_of, types_of

HERE = __name__


class Unknown(BaseModel):
    a: int = 0


class Holder(BaseModel):
    u: Unknown
    anything: Any = None


class Shade(enum.Enum):
    DARK = "dark"


class Point(NamedTuple):
    x: int
    shade: Shade


@dataclasses.dataclass
class Note:
    text: str


@dataclasses.dataclass
class Flow:
    """Has what makes a Send to the stock writer."""

    node: str
    arg: int
    weight: float = 1.0


class Packet:
    """The same, and no dataclass."""

    def __init__(self, node: str, arg: int) -> None:
        self.node, self.arg, self.weight = node, arg, 1.0


class Connection:
    """Something that no serializer can keep."""


def trip(serde: JsonPlusSerializer, value: Any) -> Any:
    return serde.loads_typed(serde.dumps_typed(value))


def extension(code: int, *envelope: Any) -> tuple[str, bytes]:
    return "msgpack", ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(list(envelope))))


# --------------------------------------------------------------------------- what may be called


@pytest.mark.parametrize(
    ("code", "envelope", "payload"),  # payload: what a lenient reader gives
    [
        (0, ("os", "system", "echo called"), "echo called"),
        (1, ("builtins", "eval", ["1+1"]), ["1+1"]),
        (1, ("subprocess", "check_call", [["true"]]), [["true"]]),
        (2, ("builtins", "open", {"file": "x"}), {"file": "x"}),
        (3, ("datetime", "datetime", 0, "fromtimestamp"), 0),
        (0, (HERE, "Unknown.__init__.__globals__", 1), 1),
        (5, (HERE, "Unknown", {"a": 1}, "model_validate_json"), {"a": 1}),
        (0, (HERE, "Note.__class__", 1), 1),
    ],
    ids=str,
)
def test_a_stored_value_calls_nothing_that_the_graph_does_not_name(
    code: int, envelope: tuple[Any, ...], payload: Any
) -> None:
    stored = extension(code, *envelope)

    assert FaithfulSerializer(types=[Note], lenient=True).loads_typed(stored) == payload
    with pytest.raises(StateUnreadable, match=re.escape(".".join(envelope[:2]))):
        FaithfulSerializer(types=[Note]).loads_typed(stored)


def test_every_call_may_not_be_allowed() -> None:
    with pytest.raises(ValueError, match="any function"):
        FaithfulSerializer(allowed_msgpack_modules=True)


def test_pickled_bytes_are_refused() -> None:
    with pytest.raises(NotImplementedError):
        FaithfulSerializer().loads_typed(("pickle", b"\x80\x04N."))


def test_a_refused_class_is_reported_to_the_listeners() -> None:
    heard: list[Any] = []
    stop = register_serde_event_listener(heard.append)

    with pytest.raises(StateUnreadable):
        FaithfulSerializer().loads_typed(extension(0, "os", "system", "true"))

    stop()
    assert [(event["kind"], event["module"], event["name"]) for event in heard] == [("msgpack_blocked", "os", "system")]


def test_what_a_client_sends_as_a_constructor_stays_data() -> None:
    sent = {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain_core", "messages", "HumanMessage"],
        "kwargs": {"content": "x"},
    }

    assert trip(FaithfulSerializer(), sent) == sent


def test_a_class_with_the_attributes_of_a_send_is_none() -> None:
    assert trip(FaithfulSerializer(types=[Flow]), Flow("a", 1, weight=2.5)) == Flow("a", 1, weight=2.5)
    assert trip(FaithfulSerializer(), Send("a", 1)) == Send("a", 1)
    with pytest.raises(ValueLost, match=f"{HERE}.Packet"):
        FaithfulSerializer(types=[Packet]).dumps_typed(Packet("a", 1))


# --------------------------------------------------------------------------- what cannot be kept


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Connection(), f"{HERE}.Connection"),
        ({"deep": [(Connection(),)]}, f"{HERE}.Connection"),
        (Unknown(a=1), f"{HERE}.Unknown"),
        ([Note("x")], f"{HERE}.Note"),
        ({"p": Point(1, Shade.DARK)}, f"{HERE}."),
        (Connection, f"class ({HERE}.Connection)"),
        (lambda: 1, "function"),
    ],
    ids=["object", "object deep inside", "model", "dataclass", "named tuple", "class", "function"],
)
def test_a_value_that_would_not_come_back_is_refused_by_name_when_it_is_saved(value: Any, named: str) -> None:
    with pytest.raises(ValueLost) as refused:
        FaithfulSerializer().dumps_typed(value)

    assert named in str(refused.value)
    assert named in str(refused.value.facts["type"])


def test_the_error_names_the_channel_where_the_caller_knows_it() -> None:
    with pytest.raises(ValueLost) as refused:
        dump_channel(FaithfulSerializer(), "sessions", {"db": Connection()})

    assert refused.value.facts["type"] == f"{HERE}.Connection"
    assert str(refused.value).startswith(f"Channel 'sessions' holds a {HERE}.Connection, which cannot be kept")


@pytest.mark.parametrize(
    ("channel", "value", "place"),
    [
        ("__pregel_tasks", Send("worker", Connection()), "The argument of Send to node 'worker' holds a "),
        ("__interrupt__", (Interrupt(Connection()),), "The value of interrupt() holds a "),
        ("__resume__", [Connection()], "The answer to interrupt() holds a "),
        ("__return__", Connection(), "The result of a task holds a "),
    ],
)
def test_the_error_says_where_the_value_was_in_the_words_of_the_graphs_author(
    channel: str, value: Any, place: str
) -> None:
    with pytest.raises(ValueLost, match=re.escape(place)):
        dump_channel(FaithfulSerializer(), channel, value)


def test_an_error_of_a_node_is_kept_as_its_repr_whatever_class_it_has() -> None:
    class Odd(Exception):
        pass

    serde = FaithfulSerializer()

    assert load_channel(serde, "__error__", dump_channel(serde, "__error__", Odd("a\ud800"))) == "Odd('a\\ud800')"


def test_a_known_error_in_a_channel_stays_an_error() -> None:
    serde = FaithfulSerializer()

    back = load_channel(serde, "failed", dump_channel(serde, "failed", ValueError("x")))

    assert repr(back) == "ValueError('x')"
    assert type(back) is ValueError


def test_the_error_repeats_nothing_of_the_value() -> None:
    secret = "sk-secret"

    for value in ({secret: Connection()}, {Connection(): secret}, [secret, lambda: secret]):
        with pytest.raises(ValueLost) as refused:
            FaithfulSerializer().dumps_typed(value)
        assert secret not in str(refused.value)
        assert secret not in repr(refused.value.facts)
        assert refused.value.__cause__ is None


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)

    with pytest.raises(ValueLost, match="nested too deeply"):
        FaithfulSerializer().dumps_typed(value)


def test_a_refusal_in_one_thread_is_not_told_in_another() -> None:
    serde, errors = FaithfulSerializer(), list[str]()
    both = threading.Barrier(2, timeout=10)

    def save(value: Any) -> None:
        both.wait()
        for _ in range(200):
            with pytest.raises(ValueLost) as refused:
                serde.dumps_typed(value)
            errors.append(f"{type(value[0]).__name__}: {refused.value.facts['type']}")

    threads = [threading.Thread(target=save, args=([value],)) for value in (Connection(), Note("x"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(errors) == {f"Connection: {HERE}.Connection", f"Note: {HERE}.Note"}
    assert len(errors) == 400


# --------------------------------------------------------------------------- models that changed, allowlists


def test_two_classes_of_one_name_are_refused_since_one_would_come_back_as_the_other() -> None:
    def make() -> Any:
        @dataclasses.dataclass
        class Local:
            a: int

        return Local

    one, other = make(), make()

    with pytest.raises(ValueLost, match="Local"):
        FaithfulSerializer(types=[one, other]).dumps_typed([one(1)])
    with pytest.raises(ValueLost, match="Local"):
        FaithfulSerializer(types=[one]).dumps_typed([other(1)])


def test_what_looks_like_bytes_costs_a_look_and_changes_nothing() -> None:
    value = {"text": "ąćę" * 100, "numbers": [1e300, -1.5] * 100, "bytes": [b"x", {"deep": b"y"}]}

    assert trip(FaithfulSerializer(), value) == value


# --------------------------------------------------------------------------- plain data, where the graph asks for it


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Unknown(a=4), {"a": 4}),
        ([Note("x")], [{"text": "x"}]),
        ((Shade.DARK,), ("dark",)),
        (Point(1, Shade.DARK), {"x": 1, "shade": "dark"}),
        ({Shade.DARK: Unknown(a=1)}, {"dark": {"a": 1}}),
        (AIMessage("x", id="1", response_metadata={"raw": Unknown(a=1)}).response_metadata, {"raw": {"a": 1}}),
        ([RuntimeError("known")], "kept"),
    ],
    ids=["model", "dataclass", "enum", "named tuple", "odd key", "in a message", "error"],
)
def test_a_graph_that_asks_for_it_gets_plain_data_and_its_record_says_which(value: Any, plain: Any) -> None:
    serde = FaithfulSerializer(softens=True, lenient=True)

    back = serde.load(serde.dump(value, place="Channel 'c'"), place="Channel 'c'")

    said = serde.softened.take()
    if plain == "kept":
        assert (repr(back), said) == (repr(value), [])
    else:
        assert back == plain
        assert {place for place, _ in said} == {"Channel 'c'"}
        assert {type_ for _, type_ in said} <= {f"{HERE}.{name}" for name in ("Unknown", "Note", "Shade", "Point")}
    assert serde.softened.take() == []


def test_what_has_no_plain_form_is_refused_even_then() -> None:
    with pytest.raises(ValueLost, match="Connection"):
        FaithfulSerializer(softens=True).dumps_typed([Connection()])


# --------------------------------------------------------------------------- classes that have changed or gone


def test_a_class_that_has_gone_is_named_with_its_channel_and_the_ways_out() -> None:
    stored = dump_channel(FaithfulSerializer(types=[Note]), "notes", {"deep": [Note("secret")]})

    with pytest.raises(StateUnreadable) as refused:
        load_channel(FaithfulSerializer(), "notes", stored)

    assert f"Channel 'notes' of this thread was stored with a {HERE}.Note" in str(refused.value)
    assert "lossy_state" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert FaithfulSerializer(lenient=True).loads_typed(stored) == {"deep": [{"text": "secret"}]}


def _later(name: str, cls: Any) -> Any:
    """The class as a newer build has it."""
    cls.__module__, cls.__qualname__, cls.__name__ = HERE, name, name
    return cls


def test_a_member_that_an_enum_has_lost_is_unreadable() -> None:
    class Newer(enum.Enum):
        LIGHT = "light"

    stored = FaithfulSerializer(types=[Shade]).dumps_typed([Shade.DARK])

    with pytest.raises(StateUnreadable, match=r"Shade.*does not take what was stored"):
        FaithfulSerializer(types=[_later("Shade", Newer)]).loads_typed(stored)


def test_a_field_that_a_class_has_lost_is_dropped_and_one_that_it_needs_now_is_not_invented() -> None:
    @dataclasses.dataclass
    class Shorter:
        pass

    @dataclasses.dataclass
    class Longer:
        text: str
        by: str

    class Needy(BaseModel):
        a: int
        b: int

    note = FaithfulSerializer(types=[Note]).dumps_typed(Note("x"))
    model = FaithfulSerializer(types=[Unknown]).dumps_typed(Unknown(a=1))

    assert FaithfulSerializer(types=[_later("Note", Shorter)]).loads_typed(note) == Shorter()
    with pytest.raises(StateUnreadable, match="Note"):
        FaithfulSerializer(types=[_later("Note", Longer)]).loads_typed(note)
    with pytest.raises(StateUnreadable, match="no value for the required b"):
        FaithfulSerializer(types=[_later("Unknown", Needy)]).loads_typed(model)


def test_an_unreadable_value_in_one_thread_is_not_told_in_another() -> None:
    serde, stored, good = (
        FaithfulSerializer(),
        extension(0, "os", "system", "x"),
        FaithfulSerializer().dumps_typed((1,)),
    )
    both = threading.Barrier(2, timeout=10)
    failed: list[str] = []

    def read(data: Any, expected: Any) -> None:
        both.wait()
        for _ in range(200):
            try:
                found = serde.loads_typed(data)
            except StateUnreadable:
                found = "unreadable"
            if found != expected:
                failed.append(str(found))

    threads = [threading.Thread(target=read, args=pair) for pair in ((stored, "unreadable"), (good, (1,)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []


def test_a_model_gets_the_defaults_of_fields_that_it_has_gained() -> None:
    data = FaithfulSerializer(types=[Unknown]).dumps_typed(Unknown(a=1))

    class Newer(BaseModel):
        a: int = 0
        b: int = 7

    Newer.__module__, Newer.__qualname__ = HERE, "Unknown"
    back = FaithfulSerializer(types=[Newer]).loads_typed(data)

    assert type(back) is Newer
    assert (back.a, back.b) == (1, 7)


def test_an_allowlist_as_compile_hands_it_over_is_added_and_the_way_of_reading_stays() -> None:
    serde = FaithfulSerializer().with_msgpack_allowlist([(HERE, "Unknown")])

    assert trip(serde, (Unknown(a=1),)) == (Unknown(a=1),)


def test_an_allowlist_that_adds_nothing_makes_no_copy() -> None:
    serde = FaithfulSerializer(allowed_msgpack_modules=[(HERE, "Unknown")])

    assert serde.with_msgpack_allowlist([(HERE, "Unknown")]) is serde


# --------------------------------------------------------------------------- the classes of a graph


def echo(state: Any) -> Any:
    return state


class State(TypedDict):
    shade: Shade
    point: Annotated[Point, "a note"]
    holders: list[Holder | None]


def test_the_schemas_of_a_graph_name_its_classes() -> None:
    graph = StateGraph(State).add_node("n", echo).add_edge(START, "n").compile()

    assert types_of(graph) >= {Shade, Point, Holder, Unknown}


def test_a_subgraph_that_is_a_node_names_its_classes() -> None:
    class Inner(TypedDict):
        local: "list[Any]"

    class Hidden(BaseModel):
        x: int

    class InnerInput(TypedDict):
        hidden: Hidden

    child = StateGraph(Inner, input_schema=InnerInput).add_node("n", echo).add_edge(START, "n").compile()
    parent = StateGraph(MessagesState).add_node("child", child).add_edge(START, "child").compile()

    assert Hidden in types_of(parent)


def test_classes_of_data_beside_a_node_function_are_known_though_no_schema_names_them() -> None:
    graph = StateGraph(MessagesState).add_node("n", echo).add_edge(START, "n").compile()

    found = types_of(graph)

    assert {Unknown, Note, Point, Shade} <= found
    assert Connection not in found  # no class of data
    assert FakeMessagesListChatModel not in found  # of a library, though this module has imported it


def test_the_response_format_of_a_prebuilt_agent_is_known() -> None:
    def build() -> Any:
        class Answer(BaseModel):
            x: int

        return create_agent(FakeMessagesListChatModel(responses=[]), response_format=ToolStrategy(Answer)), Answer

    agent, answer = build()

    assert answer in types_of(agent)


def test_a_functional_workflow_names_the_classes_beside_it() -> None:
    @entrypoint()
    def flow(x: Note) -> Note:
        return x

    assert Note in types_of(flow)


def test_classes_behind_a_task_are_known() -> None:
    class Hidden(BaseModel):
        x: int

    @task
    def make() -> Any:
        return Hidden(x=1)

    @entrypoint()
    def flow(x: int) -> Any:
        return make().result()

    assert Hidden in types_of(flow)


def test_the_serializer_of_a_graph_is_made_once() -> None:
    graph = StateGraph(State).add_node("n", echo).add_edge(START, "n").compile()

    assert serde_of(graph) is serde_of(graph)
    assert trip(serde_of(graph), [Shade.DARK, Point(1, Shade.DARK)]) == [Shade.DARK, Point(1, Shade.DARK)]


def test_without_a_graph_messages_and_plain_values_are_kept() -> None:
    messages = [HumanMessage("a", id="1"), AIMessage("b", id="2")]

    assert trip(serde_of(None), {"messages": messages}) == {"messages": messages}
