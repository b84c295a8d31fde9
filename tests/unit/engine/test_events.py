"""Chunks of the stock stream as the Agent Server's events."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from agentfarm.engine.events import EventRenderer
from agentfarm.engine.jsonable import to_json
from agentfarm.testing.graphs import nested, questions

from .conftest import CONFIG, Bench

NS = ("sub:0d6c", "inner:1f2e")


@pytest.mark.parametrize("mode", ["values", "updates", "custom", "tasks"])
def test_a_chunk_goes_by_the_name_of_its_mode(mode: str) -> None:
    assert EventRenderer([mode]).render((mode, {"a": 1})) == [(mode, {"a": 1})]


def test_a_subgraph_s_chunk_names_where_it_comes_from() -> None:
    renderer = EventRenderer(["updates"], subgraphs=True)

    assert renderer.render(((), "updates", {"a": 1})) == [("updates", {"a": 1})]
    assert renderer.render((NS, "updates", {"a": 1})) == [("updates|sub:0d6c|inner:1f2e", {"a": 1})]


def test_what_the_client_did_not_ask_for_is_not_told() -> None:
    renderer = EventRenderer(["values"])

    assert renderer.render(("updates", {"a": 1})) == []
    assert renderer.render(("messages", (AIMessageChunk("x", id="1"), {}))) == []


def test_tokens_are_told_as_pairs() -> None:
    chunk = AIMessageChunk("to", id="1")

    assert EventRenderer(["messages-tuple"]).render(("messages", (chunk, {"n": 1}))) == [
        ("messages", [chunk, {"n": 1}])
    ]
    assert EventRenderer(["messages-tuple"], subgraphs=True).render((NS, "messages", (chunk, {}))) == [
        ("messages|sub:0d6c|inner:1f2e", [chunk, {}])
    ]


def test_a_growing_message_is_told_with_its_metadata_once_and_then_as_far_as_it_is() -> None:
    renderer = EventRenderer(["messages"])

    events = [
        event
        for part in ("to", "ken", "s")
        for event in renderer.render(("messages", (AIMessageChunk(part, id="1"), {"langgraph_node": "model"})))
    ]

    assert events[0] == ("messages/metadata", {"1": {"metadata": {"langgraph_node": "model"}}})
    assert [name for name, _ in events[1:]] == ["messages/partial"] * 3
    assert [payload[0].content for _, payload in events[1:]] == ["to", "token", "tokens"]
    assert {payload[0].type for _, payload in events[1:]} == {"ai"}


def test_a_whole_message_is_complete() -> None:
    message = AIMessage("all of it", id="1")

    assert EventRenderer(["messages"]).render(("messages", (message, {}))) == [
        ("messages/metadata", {"1": {"metadata": {}}}),
        ("messages/complete", [message]),
    ]


def test_two_messages_grow_apart() -> None:
    renderer = EventRenderer(["messages"])
    for id_, part in (("1", "a"), ("2", "b"), ("1", "c")):
        last = renderer.render(("messages", (AIMessageChunk(part, id=id_), {})))

    assert last[-1][1][0].content == "ac"


def test_a_question_is_told_even_to_who_asked_for_tokens_only() -> None:
    asks = ("updates", {"__interrupt__": ({"value": "sure?"},)})

    assert EventRenderer(["messages-tuple"]).render(asks) == [("values", asks[1])]
    assert EventRenderer(["values"]).render(asks) == []  # LangGraph's own values tell it
    assert EventRenderer(["updates"]).render(asks) == [asks]
    assert EventRenderer(["messages-tuple"]).render(("updates", {"__interrupt__": ()})) == []  # a breakpoint


def test_the_values_of_a_run_that_waits_carry_its_questions() -> None:
    run = Bench(questions, stream_mode=["values", "updates"])
    renderer = EventRenderer(["values", "updates"])

    events = [event for chunk in run.run({"log": []}) for event in renderer.render(chunk)]

    asked = [payload["__interrupt__"] for name, payload in events if name == "updates" and "__interrupt__" in payload]
    assert sorted(i.value for interrupts in asked for i in interrupts) == ["q1?", "q2?"]
    told = [payload["__interrupt__"][0].value for name, payload in events if name == "values" and len(payload) > 1]
    assert sorted(told) == ["q1?", "q2?"]


@pytest.mark.parametrize("by_messages", [False, True])
@pytest.mark.parametrize("mode", ["checkpoints", "debug"])
def test_checkpoints_are_named_as_clients_send_them_back(mode: str, by_messages: bool) -> None:
    run = Bench(nested, stream_mode=[mode], nested=by_messages)
    renderer = EventRenderer([mode], subgraphs=True)

    events = [event for chunk in run.run({"log": []}, subgraphs=True) for event in renderer.render(chunk)]

    payloads: list[Any] = [payload for _, payload in events]
    if mode == "debug":
        payloads = [payload["payload"] for payload in payloads if payload["type"] == "checkpoint"]
    assert len(payloads) > 6
    for payload in payloads:
        assert payload["checkpoint"].keys() >= {"thread_id", "checkpoint_ns", "checkpoint_id"}
    # Nothing of ours, and nothing live, is in what clients get.
    text = to_json(payloads)
    assert b"agentfarm" not in text
    assert b"<" not in text
    last = [payload for name, payload in events if "|" not in name][-1]
    found = (last["payload"] if mode == "debug" else last)["checkpoint"]["checkpoint_id"]
    assert run.saver.get_tuple({"configurable": {**CONFIG["configurable"], "checkpoint_id": found}}) is not None
