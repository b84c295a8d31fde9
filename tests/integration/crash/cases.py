"""Small graphs and what a client does with each: one for every way in which a death could show.

Those of agentfarm.testing.graphs, and some whose nodes have more between their start and their end: tasks, questions,
errors. `TASKS` counts what no message shows: how often a @task was executed.
"""

import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypedDict

from langgraph.errors import NodeError
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

from agentfarm.run_options import RunAhead, RunChoices
from agentfarm.testing.graphs import KNOWN, Known

#: One message goes on with all nodes that come one after the other, however slow a machine is.
AHEAD = {"choices": RunChoices(run_ahead=RunAhead(nodes=100, seconds=60.0))}

#: {name of a task: how often it was executed}
TASKS: Counter[str] = Counter()


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


def _writes(name: str) -> Any:
    return lambda state: {"log": [name]}


def _line(**nodes: Any) -> StateGraph[Any]:
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_sequence(list(nodes.items()))
    return builder.add_edge(START, next(iter(nodes)))


# --------------------------------------------------------------------------- tasks


@task
def doubled(number: int) -> int:
    TASKS[f"doubled {number}"] += 1
    return number * 2


@entrypoint()
def workflow(numbers: list[int]) -> dict[str, Any]:
    """Tasks one after the other, so that the order of their effects is one; then a question, then a task again."""
    first = [doubled(number).result() for number in numbers]
    answer = interrupt("and?")
    return {"first": first, "answer": answer, "last": doubled(len(answer)).result()}


# --------------------------------------------------------------------------- questions


def _asks_twice(state: State) -> State:
    first = interrupt("first?")
    return {"log": [first, interrupt("second?")]}


def _asks(state: State) -> State:
    return {"log": [interrupt("inside?")]}


def _asking_subgraph() -> StateGraph[Any]:
    return _line(a=_writes("a"), child=_line(b=_writes("b"), human=_asks, c=_writes("c")).compile(), z=_writes("z"))


# --------------------------------------------------------------------------- errors


class Broken(Exception):
    pass


def _breaks(state: State) -> State:
    raise Broken("as it is meant to")


def _answers_error(state: State, error: NodeError) -> State:
    return {"log": [f"handled {error.node}"]}


def _handled() -> StateGraph[Any]:
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("a", _writes("a"))
    builder.add_node("b", _breaks, error_handler=_answers_error, retry_policy=RetryPolicy(max_attempts=1))
    builder.add_node("c", _writes("c"))
    builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c")
    return builder


# --------------------------------------------------------------------------- what a client does


@dataclass(frozen=True, slots=True)
class Case:
    """A graph, and the runs that one client sends to one thread, each when the one before is over.

    inputs   an input; Command; or Answers, which makes the command from the questions that wait
    ends     the status of each run
    options  of every run: fields of RunRequest
    at_once  a run does not wait for the one before to be over
    points   the effects of the workers that an undisturbed story has, at least
    counts_attempts  a node goes well in an attempt of a certain number; one that is lost counts, and spares a failure
    """

    graph: Any
    inputs: tuple[Any, ...]
    ends: tuple[str, ...] = ("success",)
    options: Mapping[str, Any] = field(default_factory=dict)
    at_once: bool = False
    points: int = 25
    counts_attempts: bool = False


#: Graphs whose nodes are known to be short before they are executed: their siblings are waves.
SHORT = ("wave", "wave, two at a time", "wave with questions")


@dataclass(frozen=True, slots=True)
class Answers:
    """{question: answer}, sent by the questions' ids."""

    by_question: Mapping[str, Any]


def _of(known: Known, **options: Any) -> Case:
    if known.answers is None:
        return Case(known.graph, (known.input,), options=options)
    return Case(known.graph, (known.input, Answers(known.answers)), ("interrupted", "success"), options=options)


CASES: Mapping[str, Case] = {
    **{name: _of(known) for name, known in KNOWN.items()},
    "flaky": replace(_of(KNOWN["flaky"]), counts_attempts=True),
    "three at a time": _of(KNOWN["fan_out"], config={"max_concurrency": 3}),
    "twice": Case(KNOWN["line"].graph, ({"log": ["in"]}, {"log": ["again"]}), ("success", "success")),
    "waiting": Case(KNOWN["line"].graph, ({"log": ["in"]}, {"log": ["again"]}), ("success", "success"), at_once=True),
    "ahead": _of(KNOWN["line"], **AHEAD),
    "diamond ahead": _of(KNOWN["diamond"], **AHEAD),
    "wave": _of(KNOWN["fan_out"]),
    "wave, two at a time": _of(KNOWN["fan_out"], config={"max_concurrency": 2}),
    "wave with questions": _of(KNOWN["questions"]),
    "breakpoint": Case(
        KNOWN["diamond"].graph, ({"log": ["in"]}, None), ("interrupted", "success"), {"interrupt_before": ["e"]}
    ),
    "whole": Case(KNOWN["line"].graph, ({"log": ["in"]},), options={"durability": "exit"}),
    "tasks": Case(workflow, ([1, 2, 3], Command(resume="so")), ("interrupted", "success")),
    "two questions": Case(
        _line(a=_writes("a"), human=_asks_twice, z=_writes("z")).compile(),
        ({"log": []}, Command(resume="one"), Command(resume="two")),
        ("interrupted", "interrupted", "success"),
    ),
    "asking subgraph": Case(
        _asking_subgraph().compile(), ({"log": []}, Command(resume="yes")), ("interrupted", "success")
    ),
    "error": Case(_line(a=_writes("a"), b=_breaks).compile(), ({"log": []},), ("error",)),
    "handled error": Case(_handled().compile(), ({"log": []},)),
}
