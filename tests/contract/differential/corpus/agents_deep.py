"""Deep agents: todos, files in the state, sub-agents, and what a human must approve."""

from collections.abc import Mapping
from typing import Any

from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.tools import tool
from pydantic import BaseModel

from tests.contract.differential.scenario import Run, resume, scenario
from tests.contract.differential.scripted import Reply, ScriptedModel, follows, human, speaks, use


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


@tool
def long(lines: int) -> str:
    """A long text."""
    return "\n".join(f"line {number} of many words that fill the page" for number in range(lines))


class Report(BaseModel):
    """The report."""

    title: str
    pages: int


TODOS = [{"content": "find", "status": "in_progress"}, {"content": "write", "status": "pending"}]
DONE = [{**todo, "status": "completed"} for todo in TODOS]

PLAN = (
    [use("write_todos", todos=TODOS)],
    [use("search", query="tea")],
    [use("write_file", file_path="/notes/tea.md", content="# Tea\nleaves\nwater\n")],
    [use("edit_file", file_path="/notes/tea.md", old_string="leaves", new_string="green leaves")],
    [use("read_file", file_path="/notes/tea.md")],
    [use("write_todos", todos=DONE)],
    "The notes are written.",
    [use("ls", path="/notes")],
    [use("grep", pattern="green", path="/notes")],
    "There is one file.",
    [
        use("write_file", file_path="/notes/milk.md", content="milk"),
        use("write_file", file_path="/notes/sugar.md", content="sugar"),
    ],
    [use("glob", pattern="/notes/[mt]*.md")],  # newest first: which of the two above is, is chance
    "Now there are three.",
)

RESEARCHER: Mapping[str, Any] = {
    "name": "researcher",
    "description": "Finds things",
    "system_prompt": "You find things.",
    "model": speaks(
        [use("search", query="milk")],
        [use("write_file", file_path="/milk.md", content="white")],
        "Milk is white.",
        speaker="researcher",
    ),
    "tools": [search],
}


def _delegate(name: str, task: str) -> Any:
    return use("task", description=task, subagent_type=name)


def deep(model: ScriptedModel, **options: Any) -> Any:
    return create_deep_agent(model=model, tools=[search, long], **options)


def _general(messages: list[Any]) -> Reply:
    """Both the agent and the general-purpose one, which has the same model."""
    first = next(message for message in messages if message.type == "human").text
    answered = any(message.type == "tool" for message in messages)
    if first == "the errand":
        return "The errand is run." if answered else [use("search", query="errands")]
    return "All is run." if answered else [_delegate("general-purpose", "the errand")]


GATED: Mapping[str, Any] = {"write_file": True, "search": {"allowed_decisions": ["approve", "reject"]}}
APPROVED: Mapping[str, Any] = {"decisions": [{"type": "approve"}]}
REJECTED: Mapping[str, Any] = {"decisions": [{"type": "reject", "message": "not there"}]}

WRITING = (
    [use("search", query="tea")],
    [use("write_file", file_path="/a.md", content="one")],
    [use("write_file", file_path="/b.md", content="two")],
    "Written.",
)

SCENARIOS = [
    scenario(
        "deep_three_turns",
        deep(speaks(*PLAN)),
        Run(human("tea")),
        Run(human("look")),
        Run(human("more")),
        features="deepagents todo files delta untracked memory send tokens",
        parallel=True,
    ),
    scenario(
        "deep_given_files",
        deep(speaks([use("read_file", file_path="/in.txt")], "Read.")),
        Run(
            {
                **human("read"),
                "files": {
                    "/in.txt": {
                        "content": "given",
                        "encoding": "utf-8",
                        "created_at": "2026-01-01T00:00:00+00:00",
                        "modified_at": "2026-01-01T00:00:00+00:00",
                    }
                },
            }
        ),
        features="deepagents files delta",
    ),
    scenario(
        "deep_researcher",
        deep(speaks([_delegate("researcher", "milk?")], "It is white."), subagents=[dict(RESEARCHER)]),
        Run(human("milk")),
        features="deepagents subagent files tokens",
        parallel=True,
    ),
    scenario(
        "deep_two_at_once",
        deep(
            speaks([_delegate("researcher", "milk?"), _delegate("expert", "tea?")], "Both know."),
            subagents=[
                dict(RESEARCHER),
                {
                    "name": "expert",
                    "description": "Knows tea",
                    "runnable": create_agent(speaks("Tea is green.", speaker="expert"), [search], name="expert"),
                },
            ],
        ),
        Run(human("both")),
        features="deepagents subagent send files",
        parallel=True,
    ),
    scenario("deep_general", deep(follows(_general)), Run(human("go")), features="deepagents subagent", parallel=True),
    scenario(
        "deep_human",
        deep(speaks(*WRITING), interrupt_on=dict(GATED)),
        Run(human("write")),
        resume(REJECTED),
        resume(APPROVED),
        resume(APPROVED),
        features="deepagents hitl interrupt files",
        parallel=True,
    ),
    scenario(
        "deep_human_in_a_subagent",
        deep(
            speaks([_delegate("researcher", "milk?")], "It is white."),
            subagents=[{**RESEARCHER, "interrupt_on": dict(GATED)}],
        ),
        Run(human("milk")),
        resume(APPROVED),
        resume(APPROVED),
        features="deepagents subagent hitl interrupt",
        parallel=True,
    ),
    scenario(
        "deep_answer",
        deep(speaks([use("search", query="x")], [use("Report", title="X", pages=3)]), response_format=Report),
        Run(human("report")),
        features="deepagents response_format",
        parallel=True,
    ),
    scenario(
        "deep_long_result",
        deep(speaks([use("long", lines=3000)], "Too long to read.")),
        Run(human("long")),
        Run(human("and?")),
        features="deepagents eviction files delta",
        parallel=True,
    ),
]
