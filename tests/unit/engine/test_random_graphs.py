"""Random graphs, run by stock LangGraph and by the engine: the same chunks, values, checkpoints, tasks and questions.

Messages are worked off in random order, every tenth is delivered twice. Every run that asks is answered; at the end one
checkpoint is picked, run again from there, and forked. AGENTFARM_SEEDS="1000:200" tries 200 others, from 1000 on.
"""

import asyncio
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.segment import inline_reason
from agentfarm.engine.steps import RunSpec
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.testing.coordinator import Coordinator, Message
from agentfarm.testing.one_process import Worker

from .random_graphs import Program, build, draw

FIRST, _, COUNT = os.environ.get("AGENTFARM_SEEDS", "0:15").partition(":")
SEEDS = range(int(FIRST), int(FIRST) + int(COUNT))

THREAD: dict[str, Any] = {"configurable": {"thread_id": "t"}, "recursion_limit": 14}
KWARGS: dict[str, Any] = {
    "stream_mode": ["values", "updates", "custom", "tasks", "checkpoints"],
    "durability": "sync",
    "subgraphs": True,
}
AN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")


class Side:
    """One of the two: a graph, its thread, and a way to run it."""

    def __init__(self, program: Program, *, is_async: bool) -> None:
        self.is_async = is_async
        # Tuples are tuples on both sides: stock's own serializer gives lists back.
        self.saver = InMemorySaver(serde=FaithfulSerializer())
        graph = build(program, is_async=is_async, tries=Counter())
        self.graph = graph.copy(update={"checkpointer": self.saver})

    def run(self, input: Any, config: Any) -> tuple[list[Any], BaseException | None]:
        raise NotImplementedError

    def history(self) -> list[str]:
        return [canonical(_snapshot(snapshot)) for snapshot in self.graph.get_state_history(THREAD)]

    def subgraph_rows(self) -> Counter[str]:
        rows: Counter[str] = Counter()
        for ns in [ns for ns in self.saver.storage["t"] if ns]:
            for found in self.saver.list({"configurable": {"thread_id": "t", "checkpoint_ns": ns}}):
                values = {k: v for k, v in found.checkpoint["channel_values"].items() if not k.startswith("__")}
                writes = sorted((channel, canonical(value)) for _, channel, value in found.pending_writes or ())
                rows[canonical([ns, values, found.metadata["step"], found.metadata["source"], writes])] += 1
        return rows


class Stock(Side):
    def run(self, input: Any, config: Any) -> tuple[list[Any], BaseException | None]:
        chunks: list[Any] = []

        async def collect() -> None:
            chunks.extend([chunk async for chunk in lg.ASTREAM(self.graph, input, config, **KWARGS)])

        try:
            if self.is_async:
                asyncio.run(collect())
            else:
                chunks.extend(lg.STREAM(self.graph, input, config, **KWARGS))
        except Exception as error:
            return chunks, error
        return chunks, None


class Engine(Side):
    def __init__(
        self, program: Program, rng: random.Random, *, is_async: bool, nested: bool, by_message: float | None
    ) -> None:
        super().__init__(program, is_async=is_async)
        self.rng, self.nested, self.by_message = rng, nested, by_message

    def run(self, input: Any, config: Any) -> tuple[list[Any], BaseException | None]:
        chunks: list[Any] = []
        inbox: list[Message] = []
        coordinator = Coordinator(inbox.append)
        worker = Worker(coordinator, self.graph, self.saver, sink=chunks.append)
        inline = inline_reason(KWARGS)
        spec = RunSpec("r", "t", "g", input, config, KWARGS, inline, self.by_message, self.nested)
        run = coordinator.create(spec)

        def next_messages() -> Iterator[Message]:
            while inbox:
                yield self.next_message(inbox)

        async def work() -> None:
            for message in next_messages():
                await worker.awork(message)

        if self.is_async:
            asyncio.run(work())
        else:
            for message in next_messages():
                worker.work(message)
        return chunks, run.error

    def next_message(self, inbox: list[Message]) -> Message:
        """Any; every tenth is delivered once more."""
        message = inbox.pop(self.rng.randrange(len(inbox)))
        if self.rng.random() < 0.1:
            inbox.append(message)
        return message


def story(side: Side, program: Program, seed: int) -> list[dict[str, Any]]:
    """What can be seen of a thread, turn by turn."""
    told: list[dict[str, Any]] = []
    given: Any = {"log": ["in"], "n": 0}
    for turn in range(5):
        chunks, error = side.run(given, THREAD)
        if error is not None:
            return [*told, {"failed": True}]
        state = side.graph.get_state(THREAD)
        told.append(_seen(side, chunks) | {"next": sorted(state.next), "values": canonical(state.values)})
        if not state.next:
            break
        given = _answer(state, turn, seed)
    return told + list(_replay_and_fork(side, program, seed))


def _answer(state: Any, turn: int, seed: int) -> Any:
    asked = sorted((i for task in state.tasks for i in task.interrupts), key=lambda i: str(i.value))
    if not asked:
        return None
    if len(asked) == 1 and seed % 2:
        return Command(resume=f"answer {turn}")
    all_differ = len({str(i.value) for i in asked}) == len(asked)
    return Command(
        resume={i.id: f"answer {turn} {i.value}" for i in (asked[:1] if all_differ and not seed % 3 else asked)}
    )


def _replay_and_fork(side: Side, program: Program, seed: int) -> Iterator[dict[str, Any]]:
    pick = random.Random(seed + 2)
    snapshots = list(side.graph.get_state_history(THREAD))
    snapshot = snapshots[pick.randrange(len(snapshots))]
    chunks, error = side.run(None, {**snapshot.config, "recursion_limit": 14})
    yield {"failed": True} if error else _seen(side, chunks)
    if error or not snapshot.next:
        return
    node = pick.choice(sorted(node.name for node in program.nodes))
    try:
        fork = side.graph.update_state(snapshot.config, {"log": ["forked"], "n": 1}, as_node=node)
    except Exception as refused:  # LangGraph's own, on both sides: which node may be imitated depends on the graph
        yield {"refused": type(refused).__name__}
        return
    chunks, error = side.run(None, {**fork, "recursion_limit": 14})
    # Of a turn that fails, which siblings still ran is timing, in stock too: that it fails is what is compared.
    yield {"failed": True} if error else _seen(side, chunks)


def _seen(side: Side, chunks: list[Any]) -> dict[str, Any]:
    # Parallel nodes finish in any order, in stock too: chunks are compared as a bag.
    return {
        "chunks": sorted(canonical(chunk) for chunk in chunks),
        "history": side.history(),
        "subgraphs": side.subgraph_rows(),
    }


def _snapshot(snapshot: Any) -> dict[str, Any]:
    tasks = [
        [t.name, t.path[:2], str(t.error), sorted(canonical(i.value) for i in t.interrupts), t.result]
        for t in snapshot.tasks
    ]
    meta = {key: value for key, value in (snapshot.metadata or {}).items() if key in ("source", "step")}
    told = {"values": snapshot.values, "next": sorted(snapshot.next), "meta": meta}
    return told | {"tasks": sorted(canonical(task) for task in tasks)}


def canonical(value: Any) -> str:
    """Without what differs between two equal runs: ids and times."""
    return repr(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in ("checkpoint_id", "ts", "created_at", "timestamp")}
        return sorted(((_plain(k), _plain(v)) for k, v in kept.items()), key=repr)
    if isinstance(value, list | tuple):
        plain = [_plain(inner) for inner in value]
        asked = value and all(type(inner).__name__ == "Interrupt" or _is_asked(inner) for inner in value)
        return sorted(plain, key=repr) if asked else [type(value).__name__, *plain]
    if hasattr(value, "__dataclass_fields__"):
        return [(name, _plain(getattr(value, name))) for name in value.__dataclass_fields__]
    return AN_ID.sub("ID", value if isinstance(value, str) else repr(value))


def _is_asked(value: Any) -> bool:
    """An interrupt as a dict: LangGraph takes several of a superstep from a set."""
    return isinstance(value, dict) and "response_schema" in value


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_can_tell_the_engine_from_stock(seed: int, way: str) -> None:
    program = draw(random.Random(seed))
    stock = Stock(program, is_async=way == "async")
    engine = Engine(
        program,
        random.Random(seed + 1),
        is_async=way == "async",
        nested=bool(seed % 2),
        by_message=0.0 if seed % 4 > 1 else None,
    )

    theirs, ours = story(stock, program, seed), story(engine, program, seed)

    assert len(ours) == len(theirs)
    for turn, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        assert our == their, f"turn {turn}"
