"""The graphs that are measured. Their nodes do nothing, or wait as long as they are told: what is left is the farm."""

import asyncio
import operator
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Annotated, Any, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.channels import DeltaChannel
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Send
from typing_extensions import TypedDict

CHAIN_NODES = 10
DEFAULT_WIDTH = 100
DEFAULT_NAP_SECONDS = 2.5


class Chain(TypedDict, total=False):
    steps: Annotated[list[str], operator.add]
    note: str


class Flat(TypedDict, total=False):
    """ballast: a part of the state that no node touches."""

    ballast: list[str]
    at: str


class Step(Protocol):
    def __call__(self, state: Chain) -> Chain: ...


class Fan(TypedDict, total=False):
    width: int
    results: Annotated[list[int], operator.add]
    total: int


class Work(TypedDict):
    number: int


class Nap(TypedDict, total=False):
    seconds: float
    slept: Annotated[list[str], operator.add]


def make_step(name: str) -> Step:
    def step(state: Chain) -> Chain:
        return {"steps": [name]}

    return step


def make_flat(name: str) -> Callable[[Flat], Flat]:
    def step(state: Flat) -> Flat:
        return {"at": name}

    return step


def make_talkative(name: str) -> Callable[[Flat], Flat]:
    def step(state: Flat) -> Flat:
        get_stream_writer()({"at": name})
        return {"at": name}

    return step


def flat_builder(make: Callable[[str], Callable[[Flat], Flat]] = make_flat) -> StateGraph[Flat, None, Flat, Flat]:
    """A chain of ten whose state does not grow."""
    names = [f"n{number}" for number in range(CHAIN_NODES)]
    builder = StateGraph(Flat)
    for name in names:
        builder.add_node(name, make(name))
    for before, after in zip((START, *names), (*names, END), strict=True):
        builder.add_edge(before, after)
    return builder


def talkative_builder() -> StateGraph[Flat, None, Flat, Flat]:
    """The same; each node sends a chunk of its own."""
    return flat_builder(make_talkative)


def chain_builder() -> StateGraph[Chain, None, Chain, Chain]:
    """START -> n0 -> … -> n9 -> END."""
    names = [f"n{number}" for number in range(CHAIN_NODES)]
    builder = StateGraph(Chain)
    for name in names:
        builder.add_node(name, make_step(name))
    for before, after in zip((START, *names), (*names, END), strict=True):
        builder.add_edge(before, after)
    return builder


def plan(state: Fan) -> Fan:
    return {"width": state.get("width") or DEFAULT_WIDTH}


def spread(state: Fan) -> list[Send]:
    return [Send("work", Work(number=number)) for number in range(state["width"])]


def work(state: Work) -> Fan:
    return {"results": [state["number"]]}


def gather(state: Fan) -> Fan:
    return {"total": sum(state["results"])}


def fanout_builder() -> StateGraph[Fan, None, Fan, Fan]:
    """plan -> `width` times work -> gather."""
    builder = StateGraph(Fan)
    builder.add_node("plan", plan)
    builder.add_node("work", work, input_schema=Work)
    builder.add_node("gather", gather)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", spread, ["work"])
    builder.add_edge("work", "gather")
    builder.add_edge("gather", END)
    return builder


def nap(state: Nap) -> Nap:
    time.sleep(state.get("seconds", DEFAULT_NAP_SECONDS))
    return {"slept": ["nap"]}


def nap_builder() -> StateGraph[Nap, None, Nap, Nap]:
    """One node that waits: to be killed in the middle of it."""
    builder = StateGraph(Nap)
    builder.add_node("nap", nap)
    builder.add_edge(START, "nap")
    builder.add_edge("nap", END)
    return builder


# --------------------------------------------------------------------------- tokens


class PacedModel(BaseChatModel):
    """Says the same token again and again, each after the same time: what a client waits for beyond that is not its."""

    tokens: int
    pace_seconds: float

    @property
    def _llm_type(self) -> str:
        return "paced"

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        time.sleep(self.tokens * self.pace_seconds)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(TOKEN * self.tokens))])

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for _ in range(self.tokens):
            time.sleep(self.pace_seconds)
            yield ChatGenerationChunk(message=AIMessageChunk(TOKEN))

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for _ in range(self.tokens):
            await asyncio.sleep(self.pace_seconds)
            yield ChatGenerationChunk(message=AIMessageChunk(TOKEN))


TOKEN = "word "


class Said(TypedDict, total=False):
    tokens: int
    pace_seconds: float
    answer: str


async def speak(state: Said) -> Said:
    model = PacedModel(tokens=state["tokens"], pace_seconds=state["pace_seconds"])
    return {"answer": str((await model.ainvoke("Say something.")).content)}


def speaker_builder() -> StateGraph[Said, None, Said, Said]:
    """One node, an answer token by token."""
    builder = StateGraph(Said)
    builder.add_node("speak", speak)
    builder.add_edge(START, "speak")
    builder.add_edge("speak", END)
    return builder


# --------------------------------------------------------------------------- chats


def add_all(messages: list[AnyMessage] | None, writes: Sequence[Any]) -> Any:
    """add_messages as a DeltaChannel calls its reducer: with all the writes that it replays, in one pass."""
    said = [message for write in writes for message in (write if isinstance(write, list) else [write])]
    return add_messages(messages or [], said)


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class DeltaChat(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(add_all)]


def answer(state: Any) -> dict[str, Any]:
    return {"messages": [AIMessage("So it is.")]}


def chat_builder(schema: Any = Chat) -> Any:
    """A message comes in, one goes out."""
    builder = StateGraph(schema)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder


def delta_chat_builder() -> Any:
    return chat_builder(DeltaChat)


flat10 = flat_builder().compile(name="flat10")
talkative10 = talkative_builder().compile(name="talkative10")
chain10 = chain_builder().compile(name="chain10")
fanout = fanout_builder().compile(name="fanout")
one_nap = nap_builder().compile(name="one_nap")
speaker = speaker_builder().compile(name="speaker")
chat = chat_builder().compile(name="chat")
delta_chat = delta_chat_builder().compile(name="delta_chat")
