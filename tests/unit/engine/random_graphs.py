"""Programs of random graphs: plain descriptions, so that stock LangGraph and the engine build the same graph from one.

Two to six nodes, nested up to three deep: edges, joins, loops, deferred nodes, reducers, Send, Command with goto and
update, interrupts (one, two in a node), breakpoints, custom chunks, nodes that fail and are retried, and fatal errors.
"""

import asyncio
import operator
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt


def merged(left: Any, right: Any) -> Any:
    return {**(left or {}), **(right or {})}


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    seen: Annotated[dict, merged]
    n: Annotated[int, operator.add]
    last: Any
    pair: Annotated[tuple, operator.add]


class Flaked(Exception):
    """Answered by a RetryPolicy, at times in vain."""


KINDS = {
    "plain": 8,
    "interrupt": 2,
    "two interrupts": 1,
    "flaky": 2,
    "goto": 2,
    "sends": 2,
    "subgraph": 2,
    "custom": 2,
    "nothing": 1,
    "fatal": 0.35,
    "slow": 1,
}
RETRY = RetryPolicy(initial_interval=0.001, jitter=False, max_interval=0.002, max_attempts=3, retry_on=Flaked)


@dataclass
class Node:
    name: str
    kind: str
    number: int
    targets: list[str]
    writes: list[str]
    defer: bool
    subgraph: "Program | None" = None


@dataclass
class Program:
    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)
    joins: list[tuple[list[str], str]] = field(default_factory=list)
    loops: list[tuple[str, str]] = field(default_factory=list)
    interrupt_before: list[str] = field(default_factory=list)
    interrupt_after: list[str] = field(default_factory=list)


def draw(rng: random.Random, depth: int = 0) -> Program:
    names = [f"{'abc'[depth]}{i}" for i in range(rng.randint(2, 6))]
    program = Program([_draw_node(rng, name, names, depth) for name in names])
    program.edges = [(START, names[0])]
    program.edges += [(START, name) for name in rng.sample(names[1:], rng.randint(0, min(2, len(names) - 1)))]
    for i, node in enumerate(program.nodes):
        if node.kind == "goto" and rng.random() < 0.7:
            continue
        later = [*names[i + 1 :], END]
        program.edges += [(node.name, to) for to in rng.sample(later, min(len(later), rng.choice([1, 1, 1, 2, 3])))]
    if len(names) >= 4 and rng.random() < 0.3:
        program.joins = [(rng.sample(names[:-1], 2), names[-1])]
    if rng.random() < 0.3:
        program.loops = [(rng.choice(names[1:]), rng.choice(names))]
    program.interrupt_before = rng.sample(names, 1) if rng.random() < 0.12 else []
    program.interrupt_after = rng.sample(names, 1) if rng.random() < 0.12 else []
    return program


def _draw_node(rng: random.Random, name: str, names: list[str], depth: int) -> Node:
    weights = [0 if kind == "subgraph" and depth == 2 else weight for kind, weight in KINDS.items()]
    kind = rng.choices(list(KINDS), weights)[0]
    targets = rng.sample(names, rng.randint(1, min(2, len(names))))
    writes = rng.sample(["log", "seen", "n", "pair"], rng.randint(1, 4)) + (["last"] if rng.random() < 0.1 else [])
    node = Node(name, kind, rng.randint(1, 3), targets, writes, defer=rng.random() < 0.08)
    if kind == "subgraph":
        node.subgraph = draw(rng, depth + 1)
    return node


def build(program: Program, *, is_async: bool, tries: Counter[Any], depth: int = 0) -> Any:
    """tries  counts how often a flaky node was tried; of each side its own."""
    builder = StateGraph(State)
    for node in program.nodes:
        action: Any
        if node.subgraph is not None:
            action = build(node.subgraph, is_async=is_async, tries=tries, depth=depth + 1)
        else:
            action = _function(node, tries, is_async=is_async)
        builder.add_node(
            node.name,
            action,
            defer=node.defer,
            retry_policy=RETRY if node.kind == "flaky" else None,
            destinations=tuple(node.targets) if node.kind in ("goto", "sends") else None,
        )
    for start, end in program.edges:
        builder.add_edge(start, end)
    for starts, end in program.joins:
        builder.add_edge(starts, end)
    for start, back in program.loops:
        builder.add_conditional_edges(start, _back_to(back), [back, END])
    if depth:
        return builder.compile()
    return builder.compile(interrupt_before=program.interrupt_before, interrupt_after=program.interrupt_after)


def _back_to(name: str) -> Callable[[State], str]:
    return lambda state: name if state.get("n", 0) < 6 else END


def _function(node: Node, tries: Counter[Any], *, is_async: bool) -> Any:
    def act(given: Any) -> Any:
        return _act(node, given if isinstance(given, dict) else {}, tries)

    def sync(state: State) -> Any:
        if node.kind == "slow":
            time.sleep(0.001)
        return act(state)

    async def asynchronous(state: State) -> Any:
        if node.kind == "slow":
            await asyncio.sleep(0.001)
        return act(state)

    return asynchronous if is_async else sync


def _act(node: Node, state: Any, tries: Counter[Any]) -> Any:
    done, n = len(state.get("log") or []), state.get("n") or 0
    match node.kind:
        case "interrupt":
            return _update(node, done, interrupt({"ask": node.name, "n": n}))
        case "two interrupts":
            first = interrupt(f"{node.name} 1")
            return _update(node, done, [first, interrupt(f"{node.name} 2")])
        case "flaky":
            key = (node.name, n, done)
            tries[key] += 1
            if tries[key] < node.number or (node.number == 3 and n % 5 == 4):
                raise Flaked
        case "fatal":
            raise KeyError(node.name)
        case "goto":
            return Command(update=_update(node, done), goto=node.targets if n < 5 else END)
        case "sends" if n <= 4:
            sends = [Send(to, {"log": [f"sent{i}"], "n": 9}) for i in range(node.number) for to in node.targets]
            return Command(update=_update(node, done), goto=sends)
        case "custom":
            for i in range(node.number):
                get_stream_writer()((node.name, i))
        case "nothing":
            return None
    return _update(node, done)


def _update(node: Node, done: int, answer: Any = None) -> dict[str, Any]:
    every = {
        "log": [f"{node.name}:{done}"],
        "seen": {node.name: done},
        "n": 1,
        "last": node.name,
        "pair": (node.name,),
    }
    update: dict[str, Any] = {channel: every[channel] for channel in node.writes}
    if answer is not None:
        update["log"] = [*update.get("log", []), answer]
    return update
