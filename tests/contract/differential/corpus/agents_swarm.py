"""Agents that hand over to each other: langgraph-swarm."""

from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.tools import InjectedState, InjectedToolCallId, tool
from langchain_core.messages import ToolMessage
from langgraph.types import Command, interrupt
from langgraph_swarm import SwarmState, create_handoff_tool, create_swarm

from tests.contract.differential.scenario import AnyGraph, Run, resume, scenario
from tests.contract.differential.scripted import human, speaks, use


@tool
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@tool
def book(hotel: str) -> str:
    """Book a hotel."""
    return f"{hotel}: {interrupt({'question': f'book {hotel}?'})}"


class Errands(SwarmState):
    errand: str


@tool("hand_errand_to_bob")
def with_errand(
    errand: str, state: Annotated[Any, InjectedState], call: Annotated[str, InjectedToolCallId]
) -> Command[Any]:
    """Give Bob an errand."""
    told = ToolMessage("Bob has it", tool_call_id=call)
    return Command(
        goto="Bob",
        graph=Command.PARENT,
        update={"messages": [*state["messages"], told], "active_agent": "Bob", "errand": errand},
    )


def _two(*, is_async: bool = False) -> AnyGraph:
    alice = create_agent(
        speaks(
            [use("transfer_to_bob")],
            "Bob said that",  # in_turn counts what all have said: Bob's first and second
            "never",
            [use("transfer_to_bob")],
            speaker="alice",
        ),
        [add, create_handoff_tool(agent_name="Bob")],
        system_prompt="You are Alice.",
        name="Alice",
    )
    bob = create_agent(
        speaks(
            "never",
            "Ahoy, Bob here.",
            [use("add", a=1, b=2)],
            [use("transfer_to_alice")],
            speaker="bob",
        ),
        [add, create_handoff_tool(agent_name="Alice", description="To Alice")],
        name="Bob",
    )
    return create_swarm([alice, bob], default_active_agent="Alice").compile()


def _asking() -> AnyGraph:
    desk = create_agent(
        speaks([use("transfer_to_hotels")], speaker="desk"), [create_handoff_tool(agent_name="hotels")], name="desk"
    )
    hotels = create_agent(
        speaks("never", [use("book", hotel="Ritz")], "Booked.", speaker="hotels"), [book], name="hotels"
    )
    return create_swarm([desk, hotels], default_active_agent="desk").compile()


def _with_errand() -> AnyGraph:
    alice = create_agent(
        speaks([use("hand_errand_to_bob", errand="buy milk")], speaker="alice"),
        [with_errand],
        name="Alice",
        state_schema=None,
    )
    bob = create_agent(speaks("never", "On my way.", speaker="bob"), [add], name="Bob")
    return create_swarm([alice, bob], default_active_agent="Alice", state_schema=Errands).compile()


SCENARIOS = [
    scenario(
        "swarm_three_turns",
        _two(),
        Run(human("I want Bob")),
        Run(human("what is 1 + 2?")),
        Run(human("and again")),
        features="swarm memory command_parent subgraph tokens",
    ),
    scenario("swarm_asks", _asking(), Run(human("a hotel")), resume("yes"), features="swarm interrupt command_parent"),
    scenario("swarm_errand", _with_errand(), Run(human("milk")), Run(human("?")), features="swarm state_schema"),
]
