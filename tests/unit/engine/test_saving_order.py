"""A worker that dies between two checkpoints must not leave the inner one alone: no later attempt would find it."""

import asyncio
import operator
import time
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from .conftest import Bench


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]


class SlowerAbove(InMemorySaver):
    """Takes the longer to save a graph's checkpoint, the higher the graph stands.

    saved    (namespace, checkpoint id), in the order in which they came to be saved
    orphans  those of `saved` whose caller's checkpoint was not saved then. The message's own was, before the node began
    """

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[tuple[str, str]] = []
        self.orphans: list[tuple[str, str]] = []

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        ns = config["configurable"]["checkpoint_ns"]
        if ns:
            time.sleep(0.1 / (1 + ns.count("|")))
        place = ns, checkpoint["id"]
        if any(above and (above, id_) not in self.saved for above, id_ in metadata["parents"].items()):
            self.orphans.append(place)
        self.saved.append(place)
        return super().put(config, checkpoint, metadata, new_versions)

    async def aput(self, *args: Any) -> Any:
        return await asyncio.to_thread(self.put, *args)


def says(state: State) -> State:
    return {"log": ["said"]}


async def says_later(state: State) -> State:
    return {"log": ["said"]}


def line(*nodes: Any) -> Any:
    builder = StateGraph(State)
    for i, node in enumerate(nodes):
        builder.add_node(str(i), node)
        builder.add_edge(str(i - 1) if i else START, str(i))
    return builder.compile()


def called_later(graph: Any) -> Any:
    """A sync node that has an event loop of its own for the graph that it calls."""

    def node(state: State) -> Any:
        return asyncio.run(graph.ainvoke(state))

    return node


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(line(line(line(line(says, says), says))), id="sync"),
        pytest.param(line(line(line(line(says_later, says_later), says_later))), id="async"),
        pytest.param(line(line(called_later(line(line(says_later), says_later)))), id="async in sync"),
    ],
)
def test_a_checkpoint_is_saved_after_its_callers(graph: Any) -> None:
    saver = SlowerAbove()

    Bench(graph, saver=saver).run({"log": []})

    assert {ns.count("|") for ns, _ in saver.saved if ns} == {0, 1, 2}
    assert not saver.orphans


def test_a_node_that_blocks_its_event_loop_does_not_wait_for_what_is_saved_there() -> None:
    child = line(line(says))

    async def blocks(state: State) -> Any:
        return child.invoke(state)

    bench = Bench(line(line(blocks)), saver=SlowerAbove())

    bench.run({"log": []})

    assert bench.state().values == {"log": ["said"]}
