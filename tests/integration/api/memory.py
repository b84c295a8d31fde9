"""Graphs that remember across threads, each by one of the ways in which LangGraph hands the store to a node."""

from typing import Annotated, Any

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.config import get_store
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedStore, ToolNode
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from typing_extensions import TypedDict


class Notes(TypedDict, total=False):
    note: str
    found: list[str]


NAMESPACE = ("notes", "graph")


def write(state: Notes, *, store: BaseStore) -> Notes:
    if "note" in state:
        store.put(NAMESPACE, state["note"], {"text": state["note"]})
    return {}


def read(state: Notes, runtime: Runtime[None]) -> Notes:
    assert runtime.store is get_store()
    assert runtime.store is not None
    return {"found": sorted(item.key for item in runtime.store.search(NAMESPACE))}


async def async_write(state: Notes, *, store: BaseStore) -> Notes:
    await store.aput(NAMESPACE, state["note"], {"text": state["note"]})
    return {}


async def async_read(state: Notes, runtime: Runtime[None]) -> Notes:
    assert runtime.store is not None
    return {"found": [item.key for item in await runtime.store.asearch(NAMESPACE, query=state["note"], limit=1)]}


def _two(first: Any, second: Any) -> Any:
    builder = StateGraph(Notes)
    builder.add_node("write", first)
    builder.add_node("read", second)
    builder.add_edge(START, "write")
    builder.add_edge("write", "read")
    return builder


#: Compiled with a store of its own: the server's takes its place, inside of a subgraph as well.
inner = _two(write, read).compile(store=InMemoryStore())
outer = StateGraph(Notes)
outer.add_node("inner", inner)
outer.add_edge(START, "inner")
memory = outer.compile(store=InMemoryStore())
async_memory = _two(async_write, async_read)


@tool
def remember(note: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Write a note."""
    store.put(NAMESPACE, note, {"text": note})
    return f"{len(store.search(NAMESPACE))} notes"


def call(state: MessagesState) -> Any:
    asked = {"name": "remember", "args": {"note": state["messages"][-1].content}, "id": "call-1"}
    return {"messages": [AIMessage("", tool_calls=[asked])]}


_tools = StateGraph(MessagesState)
_tools.add_node("call", call)
_tools.add_node("tools", ToolNode([remember]))
_tools.add_edge(START, "call")
_tools.add_edge("call", "tools")
tool_memory = _tools.compile()


async def embed(texts: list[str]) -> list[list[float]]:
    """How often each of the first letters is in a text."""
    return [[float(text.count(letter)) for letter in "abcdefgh"] for text in texts]
