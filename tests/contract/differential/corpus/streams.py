"""Every mode of a stream, one by one and together; tokens of a model; tools."""

from collections.abc import AsyncIterator, Iterator
from itertools import combinations
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

from tests.contract.differential.building import Log, asks, line, says
from tests.contract.differential.scenario import AnyGraph, Run, resume, scenario

ALL = ("values", "updates", "custom", "tasks", "checkpoints", "debug", "messages-tuple")


class Scripted(BaseChatModel):
    """Says `replies[n]` where n messages of its own came before; word by word, unless it does not stream."""

    replies: list[AIMessage]
    streams: bool = True

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        return self.replies[sum(isinstance(message, AIMessage) for message in messages) % len(self.replies)]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages))])

    def _chunks(self, messages: list[BaseMessage]) -> list[ChatGenerationChunk]:
        reply = self._reply(messages)
        parts = [AIMessageChunk(content=f"{word} ", id=reply.id) for word in str(reply.content).split()]
        for index, call in enumerate(reply.tool_calls):
            args = str(call["args"]).replace("'", '"')
            piece = {"name": call["name"], "args": args, "id": call["id"], "index": index, "type": "tool_call_chunk"}
            parts.append(AIMessageChunk(content="", id=reply.id, tool_call_chunks=[piece]))
        usage = UsageMetadata(
            input_tokens=len(messages), output_tokens=len(parts), total_tokens=len(messages) + len(parts)
        )
        parts.append(AIMessageChunk(content="", id=reply.id, usage_metadata=usage, chunk_position="last"))
        return [ChatGenerationChunk(message=part) for part in parts]

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages):
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages):
            if run_manager:
                await run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def model(*replies: AIMessage | str, **options: Any) -> Scripted:
    made = [reply if isinstance(reply, AIMessage) else AIMessage(reply) for reply in replies]
    return Scripted(replies=made, **options)


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


def _agent(llm: Scripted, *tools: Any, later: bool = False) -> AnyGraph:
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


def _speaks(llm: Scripted, *, later: bool = False, in_a_child: bool = False) -> AnyGraph:
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
