"""Any graph that Hypothesis makes, run by stock LangGraph and by the engine: the same chunks, values and history.

Beside the seeds of test_random_graphs.py: what fails here shrinks to the smallest graph and answers that fail.
Messages are worked in any order, some twice; some are claimed by a worker that dies. HYPOTHESIS_PROFILE=thorough tries
many more.

One difference is accepted, and left out by `_open`: stock gives an answer without an id to the first node by path that
asks, the farm to the one that is worked first. So such an answer is sent only where one node is open at each level.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langgraph.graph import END, START
from langgraph.types import Command

from agentfarm.testing.coordinator import Message

from .random_graphs import Node, Program
from .test_random_graphs import THREAD, Engine, Side, Stock, _seen, canonical

for name, examples in {"default": 60, "thorough": 2000}.items():
    settings.register_profile(
        name,
        max_examples=examples,
        derandomize=name == "default",  # the same examples in every run of CI
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),  # a graph is slow to make, and that is no finding
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

#: The simplest first: towards these an example shrinks.
KINDS = (
    *("plain", "nothing", "custom", "interrupt", "two interrupts", "flaky"),
    *("goto", "sends", "slow", "fatal", "subgraph"),
)
CHANNELS = ("log", "seen", "n", "pair", "last")
TURNS = 5


@st.composite
def programs(draw: st.DrawFn, depth: int = 0) -> Program:
    names = [f"{'abc'[depth]}{i}" for i in range(draw(st.integers(2, 5 if depth == 0 else 3)))]
    program = Program([draw(_nodes(name, names, depth)) for name in names])
    program.edges = [(START, names[0])]
    program.edges += [(START, name) for name in names[1:] if draw(st.integers(0, 3)) == 3]
    for at, node in enumerate(program.nodes):
        if node.kind == "goto" and draw(st.booleans()):
            continue
        program.edges += [(node.name, to) for to in draw(_some([*names[at + 1 :], END], most=3))]
    if len(names) >= 4 and draw(st.integers(0, 2)) == 2:
        program.joins = [(names[1:3], names[-1])]
    if draw(st.integers(0, 2)) == 2:
        program.loops = [(draw(st.sampled_from(names[1:])), draw(st.sampled_from(names)))]
    if draw(st.integers(0, 5)) == 5:
        program.interrupt_before = [draw(st.sampled_from(names))]
    if draw(st.integers(0, 5)) == 5:
        program.interrupt_after = [draw(st.sampled_from(names))]
    return program


@st.composite
def _nodes(draw: st.DrawFn, name: str, names: list[str], depth: int) -> Node:
    kind = draw(st.sampled_from(KINDS if depth < 2 else KINDS[:-1]))
    node = Node(
        name,
        kind,
        number=draw(st.integers(1, 3)),
        targets=draw(_some(names, most=2)),
        writes=draw(_some(CHANNELS[:4], most=4)) + (["last"] if draw(st.integers(0, 9)) == 9 else []),
        defer=draw(st.integers(0, 9)) == 9,
    )
    if kind == "subgraph":
        node.subgraph = draw(programs(depth + 1))
    return node


def _some(of: Any, *, most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(list(of)), min_size=1, max_size=min(most, len(of)), unique=True)


class Disturbed(Engine):
    """Every third message comes twice; every fifth was claimed by a worker that died before it had done anything."""

    def next_message(self, inbox: list[Message]) -> Message:
        message = inbox.pop(self.rng.randrange(len(inbox)))
        if self.rng.random() < 0.3:
            inbox.append(message)
        return replace(message, attempt=message.attempt + 1) if self.rng.random() < 0.2 else message


def story(side: Side, answers: list[str]) -> list[dict[str, Any]]:
    """What can be seen of a thread, turn by turn. The engine's side is answered as stock's was."""
    told: list[dict[str, Any]] = []
    given: Any = {"log": ["in"], "n": 0}
    for turn in range(TURNS):
        chunks, error = side.run(given, THREAD)
        if error is not None:
            return [*told, {"failed": True}]  # which siblings still ran is timing, in stock too
        state = side.graph.get_state(THREAD, subgraphs=True)
        told.append(_seen(side, chunks) | {"next": sorted(state.next), "values": canonical(state.values)})
        if not state.next:
            break
        given = _answer(state, answers[turn])
    return told


def _answer(state: Any, how: str) -> Any:
    """bare: the answer alone; one: to one question, by its id; all: to all of them."""
    asked = sorted((i for task in state.tasks for i in task.interrupts), key=lambda i: str(i.value))
    if not asked:
        return None
    if how == "bare" and all(count == 1 for count in _open(state)):
        return Command(resume="bare")
    are_told_apart = len({str(i.value) for i in asked}) == len(asked)
    chosen = asked[:1] if how == "one" and are_told_apart else asked
    return Command(resume={i.id: f"to {i.value}" for i in chosen})


def _open(state: Any) -> Iterator[int]:
    """How many nodes are not done, at each level."""
    waiting = [task for task in state.tasks if task.result is None and not task.error]
    yield len(waiting)
    for task in waiting:
        if hasattr(task.state, "tasks"):
            yield from _open(task.state)


@settings(PROFILE)
@given(
    program=programs(),
    answers=st.lists(st.sampled_from(["all", "one", "bare"]), min_size=TURNS, max_size=TURNS),
    nested=st.booleans(),
    by_message=st.sampled_from([None, 0.0]),
    is_async=st.booleans(),
    order=st.integers(0, 1 << 16),
)
def test_nobody_can_tell_the_engine_from_stock_whatever_the_graph(
    program: Program, answers: list[str], nested: bool, by_message: float | None, is_async: bool, order: int
) -> None:
    stock = Stock(program, is_async=is_async)
    engine = Disturbed(program, random.Random(order), is_async=is_async, nested=nested, by_message=by_message)

    theirs, ours = story(stock, answers), story(engine, answers)

    assert ours == theirs
