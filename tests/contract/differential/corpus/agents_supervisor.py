"""A supervisor and its workers: langgraph-supervisor."""

from typing import Any

from langchain.agents import create_agent
from langchain.tools import tool
from langgraph.types import interrupt
from langgraph_supervisor import create_handoff_tool, create_supervisor
from langgraph_supervisor.handoff import create_forward_message_tool

from tests.contract.differential.scenario import AnyGraph, Run, resume, scenario
from tests.contract.differential.scripted import Reply, ScriptedModel, follows, human, use


@tool
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


@tool
def approve(plan: str) -> str:
    """Ask a human."""
    return f"{plan}: {interrupt({'question': plan})}"


def _by_last(*rules: tuple[str, Reply], otherwise: Reply, speaker: str) -> ScriptedModel:
    """The reply of the first rule whose words are in the last message, since histories are edited by the library."""

    def script(messages: list[Any]) -> Reply:
        last = messages[-1].text
        return next((reply for words, reply in rules if words in last), otherwise)

    return follows(script, speaker)


def _worker(name: str, tools: list[Any], call: Any, done: str) -> AnyGraph:
    seen = {"adder": "3", "finder": "found", "asker": ": "}[name]
    return create_agent(_by_last((seen, done), otherwise=[call], speaker=name), tools, name=name)


def _workers() -> list[AnyGraph]:
    return [
        _worker("adder", [add], use("add", a=1, b=2), "It is 3, you see"),
        _worker("finder", [search], use("search", query="tea"), "I found tea"),
    ]


def _boss(*rules: tuple[str, Reply], otherwise: Reply = "All is done.") -> ScriptedModel:
    return _by_last(*rules, otherwise=otherwise, speaker="boss")


BOTH = (
    ("both", [use("transfer_to_adder")]),
    ("It is 3", [use("transfer_to_finder")]),
    ("back to supervisor", "I have heard."),
)


def _team(model: ScriptedModel, workers: list[AnyGraph] | None = None, **options: Any) -> AnyGraph:
    return create_supervisor(workers or _workers(), model=model, prompt="You lead.", **options).compile()


AFTER_BACK = (
    ("both", [use("transfer_to_adder")]),
    ("transferred back", [use("transfer_to_finder")]),
)


def _once_each(messages: list[Any]) -> Reply:
    """To the adder, to the finder, then an answer; counted since the last human."""
    since = 0
    for message in reversed(messages):
        if message.type == "human":
            break
        since += message.type == "tool" and "Successfully transferred to" in message.text
    replies: list[Reply] = [[use("transfer_to_adder")], [use("transfer_to_finder")], "Both have told me."]
    return replies[min(since, 2)]


def _forwards(messages: list[Any]) -> Reply:
    told = any(getattr(message, "name", None) == "adder" for message in messages)
    return [use("forward_message", from_agent="adder")] if told else [use("transfer_to_adder")]


leader = follows(_once_each, "boss")

SCENARIOS = [
    scenario(
        "sup_two_turns",
        _team(leader),
        Run(human("both")),
        Run(human("both again")),
        features="supervisor memory command_parent subgraph tokens",
    ),
    # Without the worker's own events: the supervisor adds to the list of messages that the worker's last ones hold, so
    # what stock tells depends on when one looks.
    scenario(
        "sup_full_history",
        _team(leader, output_mode="full_history"),
        Run(human("both"), subgraphs=False),
        features="supervisor",
    ),
    scenario(
        "sup_no_back_messages",
        _team(_boss(*BOTH), add_handoff_back_messages=False, add_handoff_messages=True),
        Run(human("both")),
        features="supervisor",
    ),
    scenario(
        "sup_forward",
        _team(follows(_forwards, "boss"), tools=[create_forward_message_tool("supervisor")]),
        Run(human("sum")),
        features="supervisor forward",
    ),
    scenario(
        "sup_own_handoff",
        _team(
            _boss(("go", [use("to_the_finder")])),
            tools=[
                create_handoff_tool(agent_name="finder", name="to_the_finder", description="To the finder"),
                create_handoff_tool(agent_name="adder", add_handoff_messages=False),
            ],
        ),
        Run(human("go")),
        features="supervisor",
    ),
    scenario(
        "sup_worker_asks",
        _team(
            _boss(("ask", [use("transfer_to_asker")])),
            [_worker("asker", [approve], use("approve", plan="paint it"), "They agree")],
        ),
        Run(human("ask")),
        resume("fine"),
        features="supervisor interrupt",
    ),
    scenario(
        "sup_of_supervisors",
        create_supervisor(
            [create_supervisor(_workers(), model=leader, supervisor_name="middle").compile(name="team")],
            model=_by_last(("both", [use("transfer_to_team")]), otherwise="The team is done.", speaker="top"),
            supervisor_name="top",
        ).compile(name="firm"),
        Run(human("both")),
        features="supervisor subgraph",
    ),
]
