"""Chat models that say what is written for them: no network, the same answer to the same messages in every process.

They speak all of BaseChatModel (sync, async, tool calls in pieces, usage), so that an agent over one is the agent
that it would be over a hosted model.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCallChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool


class Use(NamedTuple):
    """A call of a tool."""

    tool: str
    args: dict[str, Any]


Reply = str | Sequence[Use]
Script = Callable[[list[BaseMessage]], Reply]


def use(tool: str, **args: Any) -> Use:
    return Use(tool, args)


def in_turn(*replies: Reply) -> Script:
    """The first reply to a conversation in which the model has said nothing yet, and so on; then "that is all"."""

    def script(messages: list[BaseMessage]) -> Reply:
        said = sum(isinstance(message, AIMessage) for message in messages)
        return replies[said] if said < len(replies) else "that is all"

    return script


class SpokenModel(BaseChatModel):
    """Streams the pieces of a reply, or joins them. Leaves to who inherits: which (`pieces`)."""

    def pieces(self, messages: list[BaseMessage]) -> list[AIMessageChunk]:
        raise NotImplementedError

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
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
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, **kwargs))

    def _chunks(self, messages: list[BaseMessage]) -> Iterator[ChatGenerationChunk]:
        pieces = self.pieces(messages)
        spoken = len(pieces)
        pieces[-1].chunk_position = "last"
        pieces[-1].usage_metadata = UsageMetadata(
            input_tokens=len(messages), output_tokens=spoken, total_tokens=len(messages) + spoken
        )
        return (ChatGenerationChunk(message=piece) for piece in pieces)


class ScriptedModel(SpokenModel):
    """speaker  begins the ids of its tool calls, so that those of two agents differ; then comes where they are"""

    script: Script
    speaker: str = "model"

    def pieces(self, messages: list[BaseMessage]) -> list[AIMessageChunk]:
        reply = self.script(messages)
        return _text_pieces(reply) if isinstance(reply, str) else self._call_pieces(reply, place=len(messages))

    def _call_pieces(self, uses: Sequence[Use], place: int) -> list[AIMessageChunk]:
        """Name and id first, then the arguments in two halves, as hosted models stream them."""
        pieces = []
        for index, one in enumerate(uses):
            given = json.dumps(one.args)
            half = len(given) // 2
            parts: list[dict[str, Any]] = [{"name": one.tool, "id": f"{self.speaker}_{place}_{index}", "args": ""}]
            parts += [{"name": None, "id": None, "args": part} for part in (given[:half], given[half:])]
            for part in parts:
                chunk = ToolCallChunk(**part, index=index, type="tool_call_chunk")
                pieces.append(AIMessageChunk(content="", tool_call_chunks=[chunk]))
        return pieces


def _text_pieces(text: str) -> list[AIMessageChunk]:
    head, space, tail = text.partition(" ")
    return [AIMessageChunk(content=part) for part in (head + space, tail) if part] or [AIMessageChunk(content="")]


def speaks(*replies: Reply, speaker: str = "model") -> ScriptedModel:
    return ScriptedModel(script=in_turn(*replies), speaker=speaker)


def follows(script: Script, speaker: str = "model") -> ScriptedModel:
    return ScriptedModel(script=script, speaker=speaker)


def human(text: str) -> dict[str, Any]:
    """An input that says this."""
    return {"messages": [{"role": "user", "content": text}]}
