"""Why, for whom and with what a graph is asked for: what a factory is told of a request.

Plain values, made by the flow. Graphs that are compiled once a process never see them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from langgraph.store.base import BaseStore

#: The Agent Server's words. "threads.create_run" executes nodes, the others only look at the graph, or write as a node.
Purpose = Literal["threads.create_run", "threads.update", "threads.read", "assistants.read"]


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant whose key it was, as langgraph_sdk shows a user (its protocol BaseUser)."""

    identity: str

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self.identity

    @property
    def permissions(self) -> tuple[str, ...]:
        return ()

    def _told(self) -> dict[str, Any]:
        names = ("identity", "display_name", "is_authenticated", "permissions")
        return {name: getattr(self, name) for name in names}

    def __getitem__(self, key: str) -> Any:
        return self._told()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._told()

    def __iter__(self) -> Iterator[str]:
        return iter(self._told())


@dataclass(frozen=True, slots=True)
class Access:
    """One request for a graph.

    config   the RunnableConfig of the run, or of what is read. A factory gets a copy
    context  of the run; told to a factory only when nodes will be executed
    caller   None: at the start of the process, where nobody asks
    """

    purpose: Purpose
    graph_id: str
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None
    caller: Caller | None = None
    store: BaseStore | None = None
