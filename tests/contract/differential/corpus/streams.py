"""Every mode of a stream, one by one and together; tokens of a model; tools."""

import json
from itertools import combinations
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCallChunk, ToolMessage
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

from tests.contract.differential.building import Log, asks, line, says
from tests.contract.differential.scenario import AnyGraph, Run, resume, scenario
from tests.contract.differential.scripted import SpokenModel

ALL = ("values", "updates", "custom", "tasks", "checkpoints", "debug", "messages-tuple")


class Repeater(SpokenModel):
    """Says `replies[n]`, messages with ids, where n of its own came before; word by word, the usage last."""

    replies: list[AIMessage]

    def pieces(self, messages: list[BaseMessage]) -> list[AIMessageChunk]:
        reply = self.replies[sum(isinstance(message, AIMessage) for message in messages) % len(self.replies)]
        parts = [AIMessageChunk(content=f"{word} ", id=reply.id) for word in str(reply.content).split()]
        for index, call in enumerate(reply.tool_calls):
            args = json.dumps(call["args"])
            chunk = ToolCallChunk(name=call["name"], args=args, id=call["id"], index=index, type="tool_call_chunk")
            parts.append(AIMessageChunk(content="", id=reply.id, tool_call_chunks=[chunk]))
        return [*parts, AIMessageChunk(content="", id=reply.id)]


def model(*replies: AIMessage | str) -> Repeater:
    return Repeater(replies=[reply if isinstance(reply, AIMessage) else AIMessage(reply) for reply in replies])


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool
def fail(a: int) -> int:
    """Fails."""
    raise ValueError(f"cannot {a}")


@tool
def ask_human(question: str) -> str:
    """Asks."""
    return str(interrupt({"question": question}))


@tool
async def add_later(a: int, b: int) -> int:
    """Adds, later."""
    get_stream_writer()({"from": "add_later", "a": a})
    return a + b


@tool
def go(where: str) -> Any:
    """Goes."""
    return Command(goto=where, update={"messages": [ToolMessage("gone", tool_call_id="c1", id="t1")]})


def _calls(*calls: tuple[str, dict[str, Any]]) -> AIMessage:
    made = [{"name": name, "args": args, "id": f"c{index}"} for index, (name, args) in enumerate(calls, start=1)]
    return AIMessage("let me see", tool_calls=made, id="ai1")


def _agent(llm: Repeater, *tools: Any, later: bool = False) -> AnyGraph:
    def say(state: MessagesState) -> Any:
        return {"messages": [llm.invoke(state["messages"])]}

    async def say_later(state: MessagesState) -> Any:
        return {"messages": [await llm.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", say_later if later else say)
    builder.add_node("tools", ToolNode(list(tools)), destinations=("after",))
    builder.add_node("after", lambda state: {"messages": [AIMessage("after", id="after")]})
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile()


def _speaks(llm: Repeater, *, later: bool = False, in_a_child: bool = False) -> AnyGraph:
    def say(state: MessagesState) -> Any:
        return {"messages": [llm.invoke(state["messages"])]}

    async def say_later(state: MessagesState) -> Any:
        return {"messages": [await llm.ainvoke(state["messages"])]}

    chosen = say_later if later else say
    if in_a_child:
        return line({"first": chosen, "child": line({"speaks": chosen}, MessagesState)}, MessagesState)
    return line({"speaks": chosen, "speaks_again": chosen}, MessagesState)


def _streams_inside() -> AnyGraph:
    llm = model("one two three")

    def say(state: MessagesState) -> Any:
        text = "".join(str(chunk.content) for chunk in llm.stream(state["messages"]))
        return {"messages": [AIMessage(text, id="whole")]}

    return line({"speaks": say}, MessagesState)


def _writes(state: Log) -> Log:
    get_stream_writer()({"from": "w"})
    return {"log": ["w"]}


PLAIN = line({"a": says("a"), "w": _writes, "q": asks("q"), "e": says("e")})
HELLO = {"messages": [{"role": "user", "content": "hello there", "id": "m1"}]}
SPEAKS = model("hello you two", AIMessage("once more", id="fixed"))
SUM = _calls(("add", {"a": 1, "b": 2}))
TOKENS = ("messages-tuple", "updates")


def _in_modes(*modes: str) -> Any:
    name = "mode_" + "_and_".join(mode.replace("-", "_") for mode in modes)
    features = " ".join(f"mode_{mode.replace('-', '_')}" for mode in modes)
    return scenario(
        name, PLAIN, Run({"log": []}, modes=modes), resume("yes", modes=modes), features=f"{features} interrupts"
    )


SCENARIOS = [
    *(_in_modes(mode) for mode in ALL),
    *(_in_modes(*pair) for pair in combinations(("values", "updates", "tasks", "checkpoints", "debug"), 2)),
    _in_modes(*ALL),
    scenario(
        "tokens",
        _speaks(SPEAKS),
        Run(HELLO, modes=TOKENS),
        Run(HELLO, modes=TOKENS),
        features="chat_model mode_messages_tuple turns",
    ),
    scenario(
        "tokens_async",
        _speaks(SPEAKS, later=True),
        Run(HELLO, modes=TOKENS),
        features="chat_model mode_messages_tuple async",
    ),
    scenario("tokens_so_far", _speaks(SPEAKS), Run(HELLO, modes=("messages",)), features="chat_model mode_messages"),
    scenario(
        "tokens_so_far_async",
        _speaks(SPEAKS, later=True),
        Run(HELLO, modes=("messages", "values")),
        features="chat_model mode_messages async",
    ),
    scenario(
        "tokens_in_a_child",
        _speaks(SPEAKS, in_a_child=True),
        Run(HELLO, modes=TOKENS),
        features="chat_model mode_messages_tuple subgraphs",
    ),
    scenario(
        "tokens_in_a_child_not_streamed",
        _speaks(SPEAKS, in_a_child=True),
        Run(HELLO, modes=TOKENS, subgraphs=False),
        features="chat_model mode_messages_tuple subgraphs",
    ),
    scenario(
        "tokens_of_a_stream_inside",
        _streams_inside(),
        Run(HELLO, modes=TOKENS),
        features="chat_model mode_messages_tuple",
    ),
    scenario(
        "tokens_in_all_modes",
        _speaks(SPEAKS),
        Run(HELLO, modes=ALL),
        features="chat_model mode_messages_tuple mode_debug mode_checkpoints",
    ),
    scenario("tool", _agent(model(SUM, "it is 3"), add), Run(HELLO), features="chat_model tool_node"),
    scenario(
        "tool_async",
        _agent(model(_calls(("add_later", {"a": 1, "b": 2})), "it is 3"), add_later, later=True),
        Run(HELLO),
        features="chat_model tool_node async stream_writer",
    ),
    scenario(
        "tools_several",
        _agent(model(_calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})), "done"), add),
        Run(HELLO),
        features="chat_model tool_node",
        parallel=True,
    ),
    scenario(
        "tool_unknown",
        _agent(model(_calls(("nobody", {"a": 1})), "oh"), add),
        Run(HELLO),
        features="chat_model tool_node failing",
    ),
    scenario(
        "tool_called_wrongly",
        _agent(model(_calls(("add", {"a": "x"})), "oh"), add),
        Run(HELLO),
        features="chat_model tool_node failing",
    ),
    scenario(
        "tool_fails",
        _agent(model(_calls(("fail", {"a": 1})), "oh"), fail),
        Run(HELLO),
        features="chat_model tool_node failing",
    ),
    scenario(
        "tool_asks",
        _agent(model(_calls(("ask_human", {"question": "may I?"})), "fine"), ask_human),
        Run(HELLO),
        resume("yes"),
        features="chat_model tool_node interrupts",
    ),
    scenario(
        "tool_commands",
        _agent(model(_calls(("go", {"where": "after"})), "fine"), go),
        Run(HELLO),
        features="chat_model tool_node command",
        parallel=True,
    ),
]
