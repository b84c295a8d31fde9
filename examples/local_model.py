"""A chat model without a network, a key or weights: rules that decide tool calls, and real token streaming.

It speaks the whole BaseChatModel interface (sync and async, bind_tools, tool call chunks, usage), so that an agent
built over it is the agent that it would be over a hosted model. What it says is decided by rules.py alone: the same
messages and tools give the same answer on every worker.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCallChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from examples.rules import Answer, ToolUse, decide_reply

#: Seconds between two tokens: about the pace at which hosted models speak. 0 for tests.
TOKEN_SECONDS = "LOCAL_MODEL_TOKEN_SECONDS"  # noqa: S105  a variable's name, not a password
DEFAULT_TOKEN_SECONDS = 0.02

#: Characters of a tool call's arguments in one chunk: hosted models stream them in pieces too.
ARGUMENT_PIECE = 12


def _token_seconds() -> float:
    return float(os.environ.get(TOKEN_SECONDS, DEFAULT_TOKEN_SECONDS))


class LocalChatModel(BaseChatModel):
    """Deterministic stand-in for a hosted chat model.

    token_seconds  the pause before each token; from LOCAL_MODEL_TOKEN_SECONDS where it is not given
    """

    token_seconds: float = Field(default_factory=_token_seconds, ge=0)

    @property
    def _llm_type(self) -> str:
        return "local-rules"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self._llm_type}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with these tools. Raises ValueError for a tool_choice that rules cannot promise to follow."""
        if tool_choice not in (None, "auto", "none"):
            raise ValueError(
                f"The local model chooses by rules; tool_choice={tool_choice!r} needs a real model (set MODEL)."
            )
        bound = [] if tool_choice == "none" else [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=bound, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(messages, stop, kwargs):
            time.sleep(self.token_seconds)
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
        for chunk in _chunks(messages, stop, kwargs):
            await asyncio.sleep(self.token_seconds)
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


def _chunks(
    messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
) -> Iterator[ChatGenerationChunk]:
    """The reply in pieces; the last one is marked as such and carries the usage."""
    tools = frozenset(tool["function"]["name"] for tool in kwargs.get("tools", ()))
    reply = decide_reply(messages, tools)
    pieces = _text_pieces(reply, stop) if isinstance(reply, Answer) else _call_pieces(reply, first_id=len(messages))
    pieces[-1].chunk_position = "last"
    pieces[-1].usage_metadata = _usage(messages, pieces)
    return (ChatGenerationChunk(message=piece) for piece in pieces)


def _text_pieces(answer: Answer, stop: list[str] | None) -> list[AIMessageChunk]:
    text = answer.text
    for word in stop or ():
        text = text.split(word, 1)[0]
    return [AIMessageChunk(content=token) for token in _tokens(text)] or [AIMessageChunk(content="")]


def _call_pieces(uses: Sequence[ToolUse], first_id: int) -> list[AIMessageChunk]:
    """Ids are unique within the thread and the same at every attempt: the place of the reply, and of the call in it."""
    pieces = []
    for index, use in enumerate(uses):
        call_id = f"call_{first_id}_{index}"
        head = ToolCallChunk(name=use.tool, args="", id=call_id, index=index, type="tool_call_chunk")
        pieces.append(AIMessageChunk(content="", tool_call_chunks=[head]))
        arguments = json.dumps(use.arguments)
        for start in range(0, len(arguments), ARGUMENT_PIECE):
            part = arguments[start : start + ARGUMENT_PIECE]
            tail = ToolCallChunk(name=None, args=part, id=None, index=index, type="tool_call_chunk")
            pieces.append(AIMessageChunk(content="", tool_call_chunks=[tail]))
    return pieces


def _usage(messages: list[BaseMessage], pieces: list[AIMessageChunk]) -> UsageMetadata:
    heard = sum(len(_tokens(message.text)) for message in messages)
    return UsageMetadata(input_tokens=heard, output_tokens=len(pieces), total_tokens=heard + len(pieces))


def _tokens(text: str) -> list[str]:
    """Words with the space before them: joined, they are the text."""
    return re.findall(r"\s*\S+|\s+$", text)
