"""examples/agent over the local model: which tools it calls, what it answers, how it streams."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from examples.agent.graph import graph
from examples.agent.tools import TOOLS
from examples.local_model import LocalChatModel

Config = dict[str, Any]
CONFIG: Config = {"configurable": {"thread_id": "thread"}}
JURY = "Find what is said about trial by jury, and what is 12 * (3 + 4)?"


def ask(question: str, *, agent: Any = graph, config: Config = CONFIG) -> list[BaseMessage]:
    """The messages that follow the question."""
    messages = agent.invoke({"messages": [("user", question)]}, config)["messages"]
    last = max(i for i, message in enumerate(messages) if message.type == "human")
    return list(messages[last + 1 :])


def test_one_question_makes_two_tool_calls_beside_each_other_and_both_are_answered() -> None:
    first, *results, answer = ask(JURY)

    assert isinstance(first, AIMessage)
    assert [call["name"] for call in first.tool_calls] == ["calculate", "search_library"]
    assert [result.type for result in results] == ["tool", "tool"]
    assert answer.text.startswith("12 * (3 + 4) = 84\n\nBill of Rights, Amendment VI: In all criminal prosecutions")


def test_a_call_that_needs_the_answer_of_another_is_made_in_the_next_round() -> None:
    kinds = [message.type for message in ask("How many words has the Gettysburg Address? Multiply that by 3.")]
    answer = ask("How many words has the Gettysburg Address? Multiply that by 3.")[-1]

    assert kinds == ["ai", "tool", "ai", "tool", "ai"]
    assert answer.text == "The Gettysburg Address has 271 words.\n\n271 * 3 = 813"


def test_a_thread_remembers_what_was_asked_before() -> None:
    agent = graph.copy({"checkpointer": InMemorySaver()})
    ask("What is 2 + 2?", agent=agent)

    answer = ask("What did I ask?", agent=agent)[-1]

    assert answer.text == 'So far you asked: "What is 2 + 2?".'


def test_a_tool_that_fails_tells_the_model_why() -> None:
    result = ask("What is 1/0?")[1]

    assert isinstance(result, ToolMessage)
    assert (result.status, result.text) == ("error", "1/0 divides by zero.")


def test_the_answer_comes_token_by_token_and_joins_to_the_message() -> None:
    asked: Any = {"messages": [("user", JURY)]}
    streamed: list[Any] = [chunk for chunk, _ in graph.stream(asked, stream_mode="messages")]
    final_id = streamed[-1].id

    tokens = [chunk.text for chunk in streamed if chunk.id == final_id and chunk.type == "AIMessageChunk"]

    assert len(tokens) > 50
    assert "".join(tokens) == ask(JURY)[-1].text


async def test_async_says_the_same_as_sync() -> None:
    asked: Any = {"messages": [("user", JURY)]}

    streamed: list[Any] = [chunk async for chunk, _ in graph.astream(asked, stream_mode="messages")]
    answered = await graph.ainvoke(asked)

    sync = graph.invoke(asked)
    assert [message.content for message in answered["messages"]] == [message.content for message in sync["messages"]]
    assert streamed[-1].id != answered["messages"][-1].id
    assert sum(chunk.text == " =" for chunk in streamed if isinstance(chunk, AIMessageChunk)) == 1


def test_the_model_calls_only_tools_that_are_bound() -> None:
    calculator = next(tool for tool in TOOLS if tool.name == "calculate")

    reply = LocalChatModel().bind_tools([calculator]).invoke(JURY)

    assert [call["name"] for call in reply.tool_calls] == ["calculate"]
    assert not LocalChatModel().invoke(JURY).tool_calls


def test_tool_call_arguments_stream_in_pieces_that_join_to_the_whole_call() -> None:
    chunks = list(LocalChatModel().bind_tools(list(TOOLS)).stream(JURY))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk  # type: ignore[assignment]

    assert max(len(chunk.tool_call_chunks) for chunk in chunks if isinstance(chunk, AIMessageChunk)) == 1
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [
        ("calculate", {"expression": "12 * (3 + 4)"}),
        ("search_library", {"query": "trial by jury"}),
    ]


def test_a_reply_ends_with_its_usage_and_stops_at_a_stop_word() -> None:
    reply = LocalChatModel().invoke("Hello", stop=[" rules"])

    assert reply.text == "I am the local model of these examples: a few"
    assert reply.usage_metadata == {"input_tokens": 1, "output_tokens": 10, "total_tokens": 11}


def test_a_tool_choice_that_rules_cannot_follow_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="tool_choice='any'"):
        LocalChatModel().bind_tools(list(TOOLS), tool_choice="any")
