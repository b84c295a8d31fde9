"""Every example executed node by node through the engine ends, and leaves a history, as over stock LangGraph."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentfarm.engine.steps import RunSpec
from agentfarm.testing.one_process import aexecute_run
from examples.agent.graph import graph as agent
from examples.approval.graph import graph as approval
from examples.research.graph import graph as research
from examples.twelve_steps.graph import graph as twelve_steps

DESK = {"payee": "Ada", "purpose": "a desk", "amount_cents": 120_000}


@dataclass(frozen=True)
class Story:
    """inputs: of the runs of one thread, one after the other."""

    name: str
    graph: Any
    inputs: tuple[Any, ...]


STORIES = (
    Story(
        "agent",
        agent,
        (
            {"messages": [("user", "How many words has the Gettysburg Address? Multiply that by 3.")]},
            {"messages": [("user", "Find what is said about trial by jury, and what is 12 * (3 + 4)?")]},
        ),
    ),
    Story("research", research, ({"title": "Declaration of Independence", "question": "trial by jury"},)),
    Story(
        "approval",
        approval,
        (
            {"expense": DESK},
            Command(resume="yes"),
            Command(resume={"approved": True, "edit": {"amount_cents": 90_000}}),
        ),
    ),
    Story("twelve_steps", twelve_steps, ({"delay_seconds": 0, "seed": "abc"},)),
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_a_run_cut_into_node_executions_equals_the_stock_run(story: Story) -> None:
    stock = story.graph.copy({"checkpointer": InMemorySaver()})
    ours = story.graph.copy({"checkpointer": InMemorySaver()})

    for given in story.inputs:
        await stock.ainvoke(given, thread_config())
        run = await aexecute_run(ours, run_spec(story.name, given), saver=ours.checkpointer)
        assert run.error is None

    assert await history(ours) == await history(stock)


def thread_config() -> Any:
    return {"configurable": {"thread_id": "thread"}}


def run_spec(graph_id: str, given: Any) -> RunSpec:
    return RunSpec(
        run_id=str(uuid4()),
        thread_id="thread",
        graph_id=graph_id,
        input=given,
        config=thread_config(),
        kwargs={"stream_mode": ["values"], "durability": "sync"},
    )


async def history(graph: Any) -> list[Any]:
    """Newest first, without what is random: ids of messages, the key of a booking, times."""
    states = [state async for state in graph.aget_state_history(thread_config())]
    return [
        (
            state.next,
            state.metadata["source"],
            state.metadata["step"],
            [interrupt.value for interrupt in state.interrupts],
            json.loads(json.dumps(state.values, default=plain, sort_keys=True), object_hook=without_key),
        )
        for state in states
    ]


def plain(value: Any) -> Any:
    if isinstance(value, BaseMessage):
        return value.model_dump(exclude={"id"})
    raise TypeError(f"a {type(value).__name__} in an example's state")


def without_key(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "key"}
