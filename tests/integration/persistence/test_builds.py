"""Two builds of one graph over one database: what the second goes on with, and what it refuses, changing nothing."""

import asyncio
import operator
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, Any, cast
from uuid import UUID, uuid4

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.channels import DeltaChannel, Topic
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.graphs import GraphRegistry
from agentfarm.errors import GraphChanged
from agentfarm.flow.admit import admit_run, build_run, retry_run
from agentfarm.flow.farm import Farm
from agentfarm.flow.step import execute_node
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.database import Databases
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.persistence.store import PostgresStores
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.records import RunRequest, RunRow
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home
from tests.unit.flow.world import FakeLog, World


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Counted(TypedDict, total=False):
    log: Annotated[int, operator.add]


@dataclass
class Inbox:
    messages: deque[ExecuteNode] = field(default_factory=deque)

    def publish(self, messages: Sequence[ExecuteNode]) -> None:
        self.messages.extend(messages)


class Build:
    """Web and worker that serve this graph as `graph`, under an AGENTFARM_BUILD of theirs or none."""

    def __init__(self, home: Home, hand: Hand, tenant: Tenant, graph: Any, *, name: str = "") -> None:
        self.tenant, self.inbox, self.home = tenant, Inbox(), home
        databases, serde = Databases(home.app), serde_of(graph)
        hand.executions.claims.serde_for = lambda _: serde
        self.farm = Farm(
            graphs=GraphRegistry({"graph": describe_graph("graph", graph)}),
            executions=hand.executions,
            runs=PostgresRuns(databases, lambda _: serde, build=name),
            threads=PostgresThreads(databases, lambda _: serde),
            stores=PostgresStores(databases, GraphRegistry({}).store, max_value_bytes=1 << 20),
            healing=cast("Any", None),
            publisher=cast("Any", self.inbox),
            log=FakeLog(World()),
            caches=cast("Any", SimpleNamespace(of=lambda *_, **__: InMemoryCache())),
            keys=cast("Any", None),
            run_async=asyncio.run,
        )

    def admit(self, thread_id: UUID, **fields: Any) -> RunRow:
        request = RunRequest(assistant_id="graph", if_not_exists="create", **fields)
        return admit_run(self.farm, self.tenant, build_run(self.farm, self.tenant, request, thread_id=thread_id))

    def finish(self, run: RunRow) -> RunRow:
        while self.inbox.messages:
            execute_node(self.farm, self.inbox.messages.popleft())
        return self.farm.runs.get(self.tenant, run.thread_id, run.run_id)

    def run(self, thread_id: UUID, **fields: Any) -> RunRow:
        return self.finish(self.admit(thread_id, **fields))

    def rows(self) -> list[tuple[Any, ...]]:
        return self.home.query(
            "SELECT (SELECT count(*) FROM farm.run), (SELECT count(*) FROM farm.node_execution),"
            " (SELECT array_agg(head) FROM farm.thread_head)"
        )


def ask(state: Log) -> Log:
    return {"log": [interrupt("?")]}


def line(schema: type = Log, **nodes: Callable[[Any], Any]) -> Any:
    builder = StateGraph(schema)
    builder.add_sequence(list(nodes.items()))
    builder.add_edge(START, next(iter(nodes)))
    return builder.compile()


def say(word: Any) -> Callable[[Any], Any]:
    return lambda state: {"log": word}


@pytest.fixture
def build(home: Home, hands: Callable[..., Hand], acme: Tenant) -> Callable[..., Build]:
    return lambda graph, name="": Build(home, hands(build=name), acme, graph, name=name)


RESUME = {"command": {"resume": "yes"}}


def test_a_thread_goes_on_under_a_build_with_more_nodes_and_channels(build: Callable[..., Build]) -> None:
    class More(Log, total=False):
        extra: str

    old, new = build(line(first=say(["first"]), ask=ask)), build(line(More, zero=say(["0"]), ask=ask, after=say(["z"])))
    thread_id = uuid4()
    assert old.run(thread_id, input={"log": []}).status == "interrupted"

    assert new.run(thread_id, **RESUME).status == "success"

    head = new.farm.threads.outline(new.tenant, thread_id, None)
    assert head is not None
    assert head["channel_values"]["log"] == ["first", "yes", "z"]


def test_a_run_that_needs_a_lost_node_is_refused_and_leaves_nothing(build: Callable[..., Build]) -> None:
    old, new = build(line(ask=ask)), build(line(other=say(["other"])))
    thread_id = uuid4()
    old.run(thread_id, input={"log": []})
    before = old.rows()

    for fields in (RESUME, {"input": None}):
        with pytest.raises(GraphChanged, match="node 'ask', which is next, is gone"):
            new.admit(thread_id, **fields)

    assert old.rows() == before
    assert old.run(thread_id, **RESUME).status == "success"


def test_a_new_input_does_not_need_what_was_pending(build: Callable[..., Build]) -> None:
    old, new = build(line(ask=ask)), build(line(other=say(["other"])))
    thread_id = uuid4()
    old.run(thread_id, input={"log": ["in"]})

    assert new.run(thread_id, input={"log": ["again"]}).status == "success"


def test_a_value_that_its_channel_cannot_take_any_more_is_refused(build: Callable[..., Build]) -> None:
    old, new = build(line(say=say(["said"]))), build(line(Counted, say=say(1)))
    thread_id = uuid4()
    old.run(thread_id, input={"log": ["in"]})

    with pytest.raises(GraphChanged, match=r"channel 'log' held a list, and its reducer _operator.add combines .* int"):
        new.admit(thread_id, input={"log": 1})

    assert new.run(uuid4(), input={"log": 1}).status == "success"  # another thread


def test_a_run_that_waited_while_the_build_changed_ends_with_the_nodes_name(build: Callable[..., Build]) -> None:
    old, new = build(line(ask=ask)), build(line(other=say(["other"])))
    thread_id = uuid4()
    first, waiting = old.admit(thread_id, input={"log": []}), old.admit(thread_id, **RESUME)
    first = old.farm.runs.get(old.tenant, thread_id, first.run_id)
    execute_node(old.farm, old.inbox.messages.popleft())
    (start,) = old.inbox.messages

    execute_node(new.farm, start)

    ended = new.farm.runs.get(new.tenant, thread_id, waiting.run_id)
    assert ended.status == "error"
    assert ended.error is not None
    assert ended.error["error"] == "GraphChanged"
    assert "node 'ask'" in ended.error["message"]
    old.inbox.messages.clear()
    again = old.finish(retry_run(old.farm, old.tenant, thread_id, waiting.run_id))
    assert again.status == "success"


def test_a_subgraph_whose_next_node_is_gone_ends_the_run_with_its_name(build: Callable[..., Build]) -> None:
    old = build(line(child=line(before=say(["before"]), ask=ask)))
    new = build(line(child=line(before=say(["before"]), other=say(["other"]))))
    thread_id = uuid4()
    assert old.run(thread_id, input={"log": []}).status == "interrupted"

    ended = new.run(thread_id, **RESUME)

    assert ended.error is not None
    assert ended.error["error"] == "GraphChanged"
    assert "node 'ask', which is next, is gone" in ended.error["message"]


def _joined(old: list[str], new: Sequence[list[str]]) -> list[str]:
    return [*old, *(word for one in new for word in one)]


#: What a channel was when its run began, and is when a worker goes on with it; what is given; how the refusal begins.
CHANGED_UNDER_WAY: dict[str, tuple[Any, Any, Any, str]] = {
    "a value became a topic": (str, Annotated[list[str], Topic(str)], "said", "was a LastValue and is a Topic now"),
    "a topic became a value": (Annotated[list[str], Topic(str)], list[str], ["said"], "was a Topic and is a LastVal"),
    "a list became a number": (list[str], Annotated[int, operator.add], ["said"], "held a list, and its reducer"),
    "writes became a value": (
        Annotated[list[str], DeltaChannel(_joined)],
        list[str],
        ["said"],
        "was a DeltaChannel and is a LastValue now",
    ),
}


@pytest.mark.parametrize(
    ("change", "is_async"), [*((change, False) for change in CHANGED_UNDER_WAY), ("a value became a topic", True)]
)
def test_a_run_under_way_whose_channel_has_changed_ends_with_the_channels_name(
    change: str, is_async: bool, build: Callable[..., Build]
) -> None:
    was, now, given, why = CHANGED_UNDER_WAY[change]
    seen: list[Any] = []

    def say(state: Any) -> Any:
        return {"said": given}

    def see(state: Any) -> Any:
        seen.append(state)

    async def see_async(state: Any) -> Any:
        seen.append(state)

    def of(kind: Any) -> Build:
        last = see_async if is_async else see
        return build(line(TypedDict("State", {"said": kind}, total=False), say=say, wait=see, last=last))  # type: ignore[operator]

    old, new = of(was), of(now)
    run = old.admit(uuid4(), input={"said": given})
    execute_node(old.farm, old.inbox.messages.popleft())  # begins it, and executes the first node
    new.inbox.messages, old.inbox.messages = old.inbox.messages, new.inbox.messages

    ended = new.finish(run)

    assert seen == []
    assert ended.error is not None
    assert ended.error["error"] == "GraphChanged"
    assert f"channel 'said' {why}" in ended.error["message"]
    old.inbox.messages.clear()
    again = old.finish(retry_run(old.farm, old.tenant, run.thread_id, run.run_id))
    assert again.status == "success"


def test_a_run_under_way_whose_node_is_gone_ends_at_once_with_the_nodes_name(
    build: Callable[..., Build], home: Home
) -> None:
    """The node that a message is about; and one that is done beside it, whose writes the new graph would not apply."""
    old, new = build(wide()), build(wide("c"))
    runs = [old.admit(uuid4(), input={"log": []}) for _ in range(2)]
    for _ in runs:
        execute_node(old.farm, old.inbox.messages.popleft())
    b_of_one, _, b_of_other, c_of_other = old.inbox.messages
    execute_node(old.farm, b_of_other)

    for message in (b_of_one, c_of_other):
        execute_node(new.farm, message)

    for run in runs:
        ended = new.finish(run)
        assert ended.error is not None
        assert ended.error["error"] == "GraphChanged"
        assert "node 'b', which is next, is gone" in ended.error["message"]
    assert home.query("SELECT max(attempts) FROM farm.node_execution") == [(1,)]
    assert home.query("SELECT count(*) FROM farm.node_execution WHERE node = 'end'") == [(0,)]


def test_a_run_under_way_goes_on_where_its_channels_can_take_what_is_stored(build: Callable[..., Build]) -> None:
    class Plain(TypedDict, total=False):
        log: list[str]

    old = build(line(Plain, first=say(["first"]), last=say(["last"])))
    new = build(line(Log, first=say(["first"]), last=say(["last"])))
    run = old.admit(uuid4(), input={"log": ["in"]})
    execute_node(old.farm, old.inbox.messages.popleft())
    new.inbox.messages = old.inbox.messages

    assert new.finish(run).status == "success"

    head = new.farm.threads.outline(new.tenant, run.thread_id, None)
    assert head is not None
    assert head["channel_values"]["log"] == ["first", "last"]


def test_a_build_is_written_down_once_a_tenant(build: Callable[..., Build], home: Home, acme: Tenant) -> None:
    one = build(line(say=say(["said"])))
    thread_id = uuid4()

    for _ in range(2):
        one.run(thread_id, input={"log": []})

    known = home.query("SELECT tenant_id, graph_id, fingerprint FROM farm.graph_build")
    assert known == home.query("SELECT DISTINCT tenant_id, graph_id, fingerprint FROM farm.run")
    assert known == [(acme.id, "graph", one.farm.graphs.get("graph").fingerprint)]


# --------------------------------------------------------------------------- side by side


def wide(beside: str = "bc") -> Any:
    builder = StateGraph(Log)
    builder.add_node("a", say(["a"]))
    builder.add_node("end", say(["end"]))
    builder.add_edge(START, "a")
    for node in beside:
        builder.add_node(node, say([node]), metadata={"queue": "gpu"})
        builder.add_edge("a", node)
        builder.add_edge(node, "end")
    return builder.compile()


def test_all_of_a_run_goes_to_the_queues_of_the_build_that_took_it(build: Callable[..., Build], home: Home) -> None:
    taking, other = build(wide(), "1.4"), build(wide(), "1.5")
    thread_id = uuid4()
    first, waiting = (taking.admit(thread_id, input={"log": []}) for _ in range(2))
    told = []

    # Whoever executes it: a worker of another build must not carry it over.
    other.inbox.messages = taking.inbox.messages
    while other.inbox.messages:
        told.append(other.inbox.messages[0].queue)
        execute_node(other.farm, other.inbox.messages.popleft())

    assert {run.status for run in other.farm.runs.list(other.tenant, thread_id, limit=9, offset=0, status=None)} == {
        "success"
    }
    assert set(told) == {"@1.4", "gpu@1.4"}
    rows = home.query("SELECT DISTINCT node, queue FROM farm.node_execution ORDER BY node")
    assert rows == [("__start__", "@1.4"), ("a", "@1.4"), ("b", "gpu@1.4"), ("c", "gpu@1.4"), ("end", "@1.4")]
    assert home.query("SELECT DISTINCT build FROM farm.run") == [("1.4",)]
    assert first.run_id != waiting.run_id


def test_what_waits_for_a_build_is_told_and_moved(build: Callable[..., Build], home: Home) -> None:
    healing = PostgresHealing(home.ops, home.app, home.settings)
    old, new, none = (build(wide(), name) for name in ("1.4", "1.5", ""))
    thread_id = uuid4()
    for _ in range(2):
        old.admit(thread_id, input={"log": []})
    none.admit(uuid4(), input={"log": []})

    before = {use.build: (use.workers, use.waiting, use.pending) for use in healing.builds()}
    moved = healing.move_build("1.4", "1.5")
    after = {use.build: (use.workers, use.waiting, use.pending) for use in healing.builds()}

    assert before == {"": (1, 1, 0), "1.4": (1, 1, 1), "1.5": (1, 0, 0)}
    assert moved == (2, 1)
    assert after == {"": (1, 1, 0), "1.4": (1, 0, 0), "1.5": (1, 1, 1)}
    (again,) = healing.lost(lambda _: 1000).again  # at once, however long the queue
    assert again.queue == "@1.5"
    new.inbox.publish([again])
    new.finish(new.farm.runs.list(new.tenant, thread_id, limit=1, offset=0, status=None)[0])
    assert home.query("SELECT count(*) FROM farm.run WHERE status = 'success' AND build = '1.5'") == [(2,)]


def test_a_build_without_a_living_worker_is_named_when_its_work_is_late(
    build: Callable[..., Build], hands: Callable[..., Hand], home: Home
) -> None:
    old = build(wide(), "1.4")
    old.admit(uuid4(), input={"log": []})
    healing = PostgresHealing(home.ops, home.app, home.settings)
    home.query("UPDATE farm.worker SET ended_at = now() RETURNING 1")
    assert healing.unserved() == ()  # it is not late yet
    home.query("UPDATE farm.node_execution SET available_at = now() - interval '1 hour' RETURNING 1")

    (use,) = PostgresHealing(home.ops, home.app, home.settings).unserved()

    assert (use.build, use.workers, use.waiting) == ("1.4", 0, 1)
    assert use.oldest_seconds > 3000
