"""The words of the corpus: a graph, and what a client does with a thread of it, step by step.

A scenario is driven twice: by stock LangGraph in process (stock.py), and through a real farm by the official client
(through_farm.py). Both give a Record, and compare.py says where they differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langgraph.pregel import Pregel

AnyGraph = Pregel[Any, Any, Any, Any]

#: The Agent Server's, all that a client may ask for of a run that is to be compared.
MODES = ("values", "updates", "custom", "tasks", "messages-tuple")


@dataclass(frozen=True)
class Run:
    """A run on the scenario's thread, streamed from its first event to its last.

    input         JSON, as a client would send it. None: go on from where the thread stands
    resume        what `Command(resume=…)` gets; NOTHING: no such key
    answers       {question: answer}: resumes by interrupt ids. A question is an interrupt's value, its "question", or
                  the name of the tool that is to be approved
    update, goto  of the Command; a goto may be a name, {"node": …, "input": …}, or a list of these
    at            which checkpoint the run begins at: its place in the thread's history, oldest first; None: the latest
    modes         the Agent Server's stream modes
    config        recursion_limit, tags, metadata, max_concurrency, configurable
    """

    input: Any = None
    resume: Any = field(default_factory=lambda: NOTHING)
    answers: Mapping[str, Any] | None = None
    update: Any = None
    goto: Any = None
    at: int | None = None
    modes: tuple[str, ...] = MODES
    subgraphs: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] | None = None
    interrupt_before: Literal["*"] | tuple[str, ...] | None = None
    interrupt_after: Literal["*"] | tuple[str, ...] | None = None
    durability: Literal["sync", "async", "exit"] | None = None


@dataclass(frozen=True)
class Update:
    """The state is changed by hand, on top of the latest checkpoint or of one in the past, which forks the thread."""

    values: Any
    as_node: str | None = None
    at: int | None = None


Step = Run | Update


class _Nothing:
    def __repr__(self) -> str:
        return "NOTHING"


#: "Not given", where None is a value that may be given.
NOTHING = _Nothing()


def resume(answer: Any, **options: Any) -> Run:
    """Answer the question that waits."""
    return Run(resume=answer, **options)


def answer(answers: Mapping[str, Any], **options: Any) -> Run:
    """Answer some of the questions that wait, each by its id."""
    return Run(answers=answers, **options)


@dataclass(frozen=True)
class Scenario:
    """name      also the id of its graph in the farm
    graph     compiled, without a checkpointer. Its nodes keep nothing between two calls and do not sleep
    features  what of LangGraph it uses; report.py counts by them
    parallel  nodes run at the same time, so that stock, too, may tell their events in any order
    """

    name: str
    graph: AnyGraph
    steps: tuple[Step, ...]
    features: frozenset[str]
    parallel: bool = False

    def asking(self, options: Mapping[str, Any]) -> "Scenario":
        """The same, with each run's `config.agentfarm`: how it is to be executed. Nothing for none."""
        if not options:
            return self
        steps = (
            replace(step, config={**step.config, "agentfarm": options}) if isinstance(step, Run) else step
            for step in self.steps
        )
        return replace(self, steps=tuple(steps))


def scenario(name: str, graph: AnyGraph, *steps: Step, features: str, parallel: bool = False) -> Scenario:
    """features  words, separated by spaces"""
    return Scenario(name, graph, steps, frozenset(features.split()), parallel)


@dataclass
class StepRecord:
    """What came of one step, as JSON.

    events         [name, payload], "metadata" and "end" left out
    answer         what a client that waited is told; of an Update None
    run_status     "success", "interrupted" or "error"; of an Update "updated" or "refused"
    thread_status  afterwards
    state          afterwards, with those of subgraphs that wait
    """

    events: list[list[Any]]
    answer: Any
    run_status: str
    thread_status: str
    state: Any


@dataclass
class Record:
    """One scenario, driven once.

    ids      {thread, run or assistant id: what to call it}
    history  the thread's states as JSON, oldest first
    stored   {checkpoint namespace: its checkpoints, oldest first} as the saver gives them: Python objects
    lost     times that a worker died while it executed a node of this thread
    """

    ids: dict[str, str]
    steps: list[StepRecord] = field(default_factory=list)
    history: list[Any] = field(default_factory=list)
    stored: dict[str, list[Any]] = field(default_factory=dict)
    lost: int = 0


def find_interrupts(answers: Mapping[str, Any], interrupts: Any) -> dict[str, Any]:
    """{interrupt id: answer}. interrupts: [{"id", "value"}] as JSON."""
    by_question: dict[str, str] = {}
    for one in interrupts:
        value = one["value"]
        by_question[str(_question(value) if isinstance(value, dict) else value)] = one["id"]
    return {by_question[question]: given for question, given in answers.items()}


def _question(value: Mapping[str, Any]) -> Any:
    """Of a tool that waits for an approval: its name."""
    return value["name"] if value.get("type") == "tool_approval" else value["question"]
