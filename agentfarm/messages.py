"""What travels on the queue: ids, never state.

A message is a hint. All that it stands for is in the node execution's row, so that losing, repeating or
reordering messages costs time and never a run. Three kinds, told apart by their ids:

    start    execution_id == run_id: the run's input is applied (and its first node executed)
    node     one node execution
    advance  execution_id is zero: the superstep at checkpoint_id is complete, and nobody has moved the thread on
"""

from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from agentfarm.errors import BadRequest
from agentfarm.ids import ZERO

VERSION = 1

Kind = Literal["start", "node", "advance"]


@dataclass(frozen=True, slots=True)
class ExecuteNode:
    """One node execution for some worker.

    node, queue, graph_id  where it goes and how Flower names it; not part of the message's body
    build                  of the run, as a claim has told it; "" where nobody asked
    thread_id, epoch       where Redis moves the run: on which thread, and under which epoch. None, 0: Postgres moves it
    """

    tenant_id: UUID
    home: str
    run_id: UUID
    checkpoint_id: UUID
    execution_id: UUID
    graph_id: str = ""
    node: str = ""
    queue: str = ""
    build: str = ""
    thread_id: UUID | None = None
    epoch: int = 0

    def in_redis(self, thread_id: UUID, epoch: int) -> "ExecuteNode":
        return replace(self, thread_id=thread_id, epoch=epoch)

    def in_postgres(self) -> "ExecuteNode":
        return replace(self, thread_id=None, epoch=0) if self.epoch else self

    @property
    def kind(self) -> Kind:
        if self.execution_id == self.run_id:
            return "start"
        return "advance" if self.execution_id == ZERO else "node"

    @property
    def shadow(self) -> str:
        """The name in Flower: bounded by the graphs served, never a tenant's word."""
        return f"{self.graph_id or 'run'}.{self.node or self.kind}"

    @property
    def told_kwargs(self) -> str:
        """What Flower shows as arguments and finds tasks by. It never becomes a metric's label."""
        return f"{{'tenant': '{self.tenant_id.hex}'}}"


def at_build(queue: str, build: str) -> str:
    """The queue that the workers of a build read, as rows and messages name it: "gpu@1.4", "@1.4" for the default one.
    Without a build it is the queue itself."""
    return f"{queue}@{build}" if build else queue


def split_build(queue: str) -> tuple[str, str]:
    """(queue, build) of what `at_build` made."""
    name, _, build = queue.partition("@")
    return name, build


def render_message(message: ExecuteNode) -> dict[str, str | int]:
    """The JSON body. Shape: {v, tenant, home, run, checkpoint, execution}, and {thread, epoch} of a run in Redis."""
    where: dict[str, str | int] = {}
    if message.thread_id is not None and message.epoch:
        where = {"thread": message.thread_id.hex, "epoch": message.epoch}
    return {
        "v": VERSION,
        "tenant": message.tenant_id.hex,
        "home": message.home,
        "run": message.run_id.hex,
        "checkpoint": message.checkpoint_id.hex,
        "execution": message.execution_id.hex,
        **where,
    }


class Malformed(BadRequest):
    """A message that this build cannot read. It is dropped: the healer publishes the row again."""

    code = "malformed_message"
    says = "A message on the queue cannot be read: {why}."


def parse_message(body: object) -> ExecuteNode:
    """The message in a task's argument. Raises Malformed."""
    if not isinstance(body, dict):
        raise Malformed(why="it is not an object")
    if body.get("v") != VERSION:
        raise Malformed(why=f"it is not of version {VERSION}")
    return _Reader(body).message()


class _Reader:
    def __init__(self, body: dict[str, object]) -> None:
        self.body = body

    def message(self) -> ExecuteNode:
        home = self.body.get("home")
        if not isinstance(home, str):
            raise Malformed(why="home is not a string")
        return ExecuteNode(
            tenant_id=self.id("tenant"),
            home=home,
            run_id=self.id("run"),
            checkpoint_id=self.id("checkpoint"),
            execution_id=self.id("execution"),
            **self.where(),
        )

    def where(self) -> dict[str, Any]:
        epoch = self.body.get("epoch", 0)
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
            raise Malformed(why="epoch is not a number")
        return {"thread_id": self.id("thread"), "epoch": epoch} if epoch else {}

    def id(self, key: str) -> UUID:
        value = self.body.get(key)
        try:
            return UUID(hex=value if isinstance(value, str) else "")
        except ValueError as error:
            raise Malformed(why=f"{key} is not an id") from error


__all__ = ["VERSION", "ExecuteNode", "Kind", "Malformed", "at_build", "parse_message", "render_message", "split_build"]
