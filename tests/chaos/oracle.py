"""What stock LangGraph answers to the same runs of a thread, one after the other, in one process without faults."""

from collections.abc import Sequence
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from tests.chaos.graphs import CONFIG, GRAPHS
from tests.chaos.load import Ask


async def answers(asks: Sequence[Ask]) -> list[dict[str, Any]]:
    """The values after each of them, all of one thread; of an interrupt the question alone, whose id is random."""
    graph = GRAPHS[asks[0].graph].copy(update={"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}, **CONFIG.get(asks[0].graph, {})}
    told = []
    for ask in asks:
        given = Command(resume=ask.resume) if ask.input is None else dict(ask.input)
        told.append(comparable(await graph.ainvoke(given, config)))
    return told


def comparable(values: Any) -> dict[str, Any]:
    values = dict(values or {})
    if "__interrupt__" in values:
        questions = values["__interrupt__"]
        values["__interrupt__"] = [one["value"] if isinstance(one, dict) else one.value for one in questions]
    return values
