"""What a client does with one thread, told twice: by stock LangGraph, and by a farm whose processes die.

A farm here is the product's flow over a real Postgres and a real stream, with a list for a broker. It works until
nothing is open; what then is still not over has to be found by the healer, for which a day passes. Nothing waits.
"""

import asyncio
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self
from uuid import UUID, uuid4

import psycopg
import redis
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentfarm.conf import Settings
from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.graphs import GraphRegistry
from agentfarm.engine.steps import SegmentRequest, SegmentResult
from agentfarm.errors import AlreadyExists, ThreadBusy, Unavailable
from agentfarm.flow import step
from agentfarm.flow.admit import admit_run, build_run
from agentfarm.flow.heal import sweep_once
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.node_cache import RedisNodeCaches
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.records import NewRun, RunRequest
from agentfarm.run_options import Persistence, RunChoices
from agentfarm.streaming.log import RedisEventLog
from agentfarm.streaming.stream import stream_key
from agentfarm.tenancy import Tenant
from tests.integration.crash.cases import CASES, TASKS, Answers, Case
from tests.integration.crash.mortal import Died, Outside, Process

Role = Literal["web", "worker", "other worker", "healer"]

#: Sweeps after which what is not over never will be.
MAX_SWEEPS = 12

MODES = ("values", "updates", "custom")

#: What a worker does for each @task that returns, beside the node that goes on.
SAVED = "after put_writes"

AN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")
AN_ATTEMPT = re.compile(r"in attempt \d+")


@dataclass(frozen=True, slots=True)
class Delivery:
    message: ExecuteNode
    is_again: bool = False


@dataclass
class Farm:
    """The servers, the broker's list, and a process of each role that does not die."""

    settings: Settings
    root: psycopg.Connection[Any]
    streams: redis.Redis
    log: RedisEventLog
    caches: RedisNodeCaches
    tier: Persistence = "postgres"
    inbox: deque[Delivery] = field(default_factory=deque)
    executed: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # by run, execution, try of a RetryPolicy
    survivors: dict[Role, Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.graphs = GraphRegistry({name: describe_graph(name, case.graph) for name, case in CASES.items()})

    def start(self, role: Role, *, dies_at: int = 0, is_lazy: bool = False) -> Process:
        outside = Outside(self.settings, self.graphs, self.log, self.caches, self.send, lambda: len(self.inbox))
        return Process(outside, role, dies_at=dies_at, is_worker="worker" in role, is_lazy=is_lazy)

    def survivor(self, role: Role) -> Process:
        if role not in self.survivors:
            self.survivors[role] = self.start(role)
        return self.survivors[role]

    def send(self, message: ExecuteNode) -> None:
        self.inbox.append(Delivery(message))

    def stop(self) -> None:
        for process in self.survivors.values():
            process.stop()

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """As the superuser: the facts, whatever the walls show."""
        return self.root.execute(sql, parameters).fetchall()  # type: ignore[arg-type]  # literal SQL of the tests


@contextmanager
def counting(farm: Farm) -> Iterator[None]:
    """Every node that is begun is counted, also by a process that dies in it."""
    run, arun = step.run_segment, step.arun_segment

    def note(request: SegmentRequest) -> None:
        if request.kind == "node" and request.call:
            farm.executed[request.run.run_id, request.call.execution_id, request.call.tries] += 1
        elif request.run.inline:
            farm.executed[request.run.run_id, "", 0] += 1

    def run_segment(graph: Any, request: SegmentRequest, **more: Any) -> SegmentResult:
        note(request)
        return run(graph, request, **more)

    async def arun_segment(graph: Any, request: SegmentRequest, **more: Any) -> SegmentResult:
        note(request)
        return await arun(graph, request, **more)

    step.run_segment, step.arun_segment = run_segment, arun_segment
    try:
        yield
    finally:
        step.run_segment, step.arun_segment = run, arun


# --------------------------------------------------------------------------- a story


@dataclass(frozen=True, slots=True)
class Fault:
    """Which process dies, and where.

    dies_at     the number of its point; 0: it lives, and its points are counted
    redelivers  the broker delivers a dead worker's message again; else it is lost, and the healer alone is left
    is_lazy     events wait in the process until it must send them
    """

    role: Role = "worker"
    dies_at: int = 0
    redelivers: bool = True
    is_lazy: bool = False

    def __str__(self) -> str:
        return f"{self.role} dies at {self.dies_at}, {'redelivered' if self.redelivers else 'lost'}" + (
            ", lazy" if self.is_lazy else ""
        )


class Story:
    """One client's thread.

    points            {role: those of the process that was to die}
    executed, tasks   how often each node execution was begun, and each @task
    unsaved_tasks     begun by the worker that died, and their results not saved by then
    statuses, history, events   what can be seen of it when it is over
    """

    statuses: tuple[str, ...]
    history: list[Any]
    events: list[list[tuple[str, str]]]

    def __init__(self, farm: Farm, name: str, *faults: Fault) -> None:
        self.farm, self.name, self.case = farm, name, CASES[name]
        self.faults = {fault.role: fault for fault in faults}
        self.tenant = Tenant(id=uuid4(), slug="acme")
        self.thread_id = uuid4()
        self.runs: list[UUID] = []
        self.sweeps = 0
        self.mortals = {
            fault.role: farm.start(fault.role, dies_at=fault.dies_at, is_lazy=fault.is_lazy) for fault in faults
        }
        self.points = {role: mortal.fate.points for role, mortal in self.mortals.items()}
        self.executed: Counter[tuple[str, str, int]] = Counter()
        self.tasks: Counter[str] = Counter()
        self.unsaved_tasks = 0

    def tell(self) -> Self:
        """All runs, each to its end, whoever dies."""
        farm = self.farm
        farm.inbox.clear()
        farm.executed.clear()
        TASKS.clear()
        try:
            with counting(farm):
                for given in self.case.inputs:
                    self.admit(given)
                    if not self.case.at_once:
                        self.drain()
                self.drain()
        finally:
            for mortal in self.mortals.values():
                mortal.stop()
        self.executed, self.tasks = Counter(farm.executed), Counter(TASKS)
        self.statuses, self.history, self.events = self._statuses(), self._history(), self._events()
        return self

    def process(self, role: Role) -> Process:
        return self.mortals.get(role) or self.farm.survivor(role)

    def attempt(self, role: Role, act: Callable[[Process], object]) -> bool:
        """Whether the process lived through it. A dead one is buried, and another takes its place."""
        process = self.process(role)
        try:
            act(process)
        except Died:
            assert process.fate.is_dead
        except Unavailable:  # another of its threads has died in the middle of this one's call
            assert process.fate.is_dead
        if not process.fate.is_dead:
            return True
        del self.mortals[role]
        process.bury(self.farm.root)
        TASKS.clear()
        TASKS.update(process.fate.tasks)
        self.unsaved_tasks = TASKS.total() - process.fate.points.count(SAVED)
        return False

    # ----------------------------------------------------------------------- stations

    def admit(self, given: Any) -> None:
        """A client that hears nothing asks again, with the id that it gave."""
        new = self.new_run(given)
        self.runs.append(new.run_id)
        if not self.attempt("web", lambda web: _admit(web, self.tenant, new)):
            self.ask_again(new)

    def ask_again(self, new: NewRun) -> None:
        try:
            admit_run(self.farm.survivor("web").farm, self.tenant, new)
        except (AlreadyExists, ThreadBusy):
            assert self.farm.query("SELECT count(*) FROM farm.run WHERE run_id = %s", new.run_id) == [(1,)]

    def new_run(self, given: Any) -> NewRun:
        if isinstance(given, Answers):
            state = self.graph().get_state({"configurable": {"thread_id": str(self.thread_id)}})
            given = Command(resume={asked.id: given.by_question[asked.value] for asked in state.interrupts})
        asked: dict[str, Any] = {"input": given}
        if isinstance(given, Command):
            asked = {"command": {"resume": given.resume}}
        choices = self.case.options.get("choices", RunChoices())
        request = RunRequest(
            assistant_id=self.name,
            if_not_exists="create",
            stream_mode=MODES,
            **{**asked, **self.case.options, "choices": replace(choices, persistence=self.farm.tier)},
        )
        web = self.farm.survivor("web")
        return build_run(web.farm, self.tenant, request, thread_id=self.thread_id)

    def drain(self) -> None:
        """Work until the thread's runs are over and everybody was told."""
        while not self.is_over():
            while self.farm.inbox:
                self.work(self.farm.inbox.popleft())
            if self.is_over():
                return
            assert self.sweeps < MAX_SWEEPS, f"never over: {self.open_work()}"
            self.sweeps += 1
            self.let_a_day_pass()
            self.attempt("healer", lambda healer: sweep_once(healer.farm))

    def work(self, delivery: Delivery) -> None:
        def act(worker: Process) -> None:
            step.execute_node(worker.farm, delivery.message, redelivered=delivery.is_again)
            worker.fate.at("before the acknowledgement")

        if not self.attempt("worker", act) and self.faults["worker"].redelivers:
            # A quorum queue delivers it next, Redis after all others.
            put = self.farm.inbox.appendleft if self.faults["worker"].dies_at % 2 else self.farm.inbox.append
            put(Delivery(delivery.message, is_again=True))

    def is_over(self) -> bool:
        found = self.farm.query(
            "SELECT run_id FROM farm.run WHERE tenant_id = %s AND announced_at IS NOT NULL", self.tenant.id
        )
        return {row[0] for row in found} >= set(self.runs)

    def open_work(self) -> list[tuple[Any, ...]]:
        return self.farm.query(
            """SELECT r.status, r.announced_at, e.node, e.status, e.fence, e.attempts, s.fence, s.worker FROM farm.run r
                 LEFT JOIN farm.node_execution e USING (tenant_id, run_id)
                 LEFT JOIN farm.superstep s USING (tenant_id, run_id, checkpoint_id) WHERE r.tenant_id = %s""",
            self.tenant.id,
        )

    def let_a_day_pass(self) -> None:
        """For all that the healer judges by its age."""
        day, mine = "- interval '1 day'", self.tenant.id
        for table, columns in {
            "node_execution": ("published_at", "available_at", "started_at", "finished_at"),
            "superstep": ("published_at",),
            "run": ("started_at", "finished_at"),
        }.items():
            moved = ", ".join(f"{column} = {column} {day}" for column in columns)
            self.farm.root.execute(f"UPDATE farm.{table} SET {moved} WHERE tenant_id = %s", (mine,))  # type: ignore[arg-type]  # literal

    # ----------------------------------------------------------------------- what can be seen

    def saves_at_once(self, role: Role) -> bool:
        """Whether a node had saved a part of its work (a @task, a subgraph's checkpoint, a mark) before its commit."""
        return bool({"before put_writes", "before put_checkpoint", "before put"} & set(self.points.get(role, ())))

    def graph(self) -> Any:
        saver = self.farm.survivor("web").farm.threads.saver(self.tenant, self.name)
        return self.farm.graphs.get(self.name).graph.copy(update={"checkpointer": saver})

    def _history(self) -> list[Any]:
        return told(self.graph(), str(self.thread_id))

    def _statuses(self) -> tuple[str, ...]:
        found = dict(self.farm.query("SELECT run_id, status FROM farm.run WHERE tenant_id = %s", self.tenant.id))
        return tuple(found[run_id] for run_id in self.runs)

    def nodes(self) -> Counter[tuple[str, str]]:
        """(node, how its execution ended): the same rows whoever died."""
        return Counter(
            self.farm.query("SELECT node, status FROM farm.node_execution WHERE tenant_id = %s", self.tenant.id)
        )  # type: ignore[arg-type]  # rows of two

    def _events(self) -> list[list[tuple[str, str]]]:
        """Of each run (name, data without ids), as a client reads them."""
        return [
            [_plain(fields) for _, fields in self.farm.streams.xrange(stream_key(self.tenant.id, run_id))]  # type: ignore[union-attr]  # of a sync client
            for run_id in self.runs
        ]


def _admit(web: Process, tenant: Tenant, new: NewRun) -> None:
    admit_run(web.farm, tenant, new)
    web.fate.at("before the answer")


def _plain(fields: dict[bytes, bytes]) -> tuple[str, str]:
    name, data = fields[b"n"].decode(), fields[b"d"].decode()
    if name == "metadata":
        data = json.dumps({**json.loads(data), "attempt": 0})
    return name, AN_ATTEMPT.sub("in an attempt", AN_ID.sub("ID", data))


def _blank(value: Any) -> Any:
    """A node may write down which attempt it is (the flaky one does), and each death before its commit is one more."""
    if isinstance(value, str):
        return AN_ATTEMPT.sub("in an attempt", value)
    if isinstance(value, dict):
        return {key: _blank(each) for key, each in value.items()}
    return [_blank(each) for each in value] if isinstance(value, list) else value


def told(graph: Any, thread_id: str) -> list[Any]:
    """Every checkpoint, newest first, without what differs between two equal runs: ids, times, numbers of attempts."""
    return [
        (
            _blank(state.values),
            state.next,
            state.metadata["source"],
            state.metadata["step"],
            [
                (t.name, t.path[:2], repr(t.error), sorted(str(i.value) for i in t.interrupts), _blank(t.result))
                for t in state.tasks
            ],
            bool(state.parent_config),
        )
        for state in graph.get_state_history({"configurable": {"thread_id": thread_id}})
    ]


def stock(case: Case) -> list[Any]:
    """The history that stock LangGraph makes of it."""
    graph = case.graph.copy(update={"checkpointer": InMemorySaver(serde=FaithfulSerializer())})
    thread: dict[str, Any] = {"configurable": {"thread_id": "1"}, **case.options.get("config", {})}
    options = {name: value for name, value in case.options.items() if name != "config"}
    for given in case.inputs:
        value = given
        if isinstance(given, Answers):
            asked = graph.get_state(thread).interrupts
            value = Command(resume={one.id: given.by_question[one.value] for one in asked})
        try:
            _invoke(graph, value, thread, **options)
        except Exception:  # as the case says: its end is an error
            assert case.ends[-1] == "error"
    return told(graph, "1")


def _invoke(graph: Any, value: Any, thread: dict[str, Any], **options: Any) -> None:
    if describe_graph("graph", graph).is_async:
        asyncio.run(graph.ainvoke(value, thread, **options))
    else:
        graph.invoke(value, thread, **options)


# --------------------------------------------------------------------------- the promises


NOT_COMMITTED = "P2: writes of an attempt that did not commit"


def broken_promises(farm: Farm, story: Story) -> list[str]:
    """What of P1 to P3 does not hold in the database, for all that belongs to the story's tenant."""
    one = (story.tenant.id,)
    facts: dict[str, Sequence[tuple[Any, ...]]] = {
        "P1: a run is not over": farm.query(
            "SELECT run_id, status FROM farm.run WHERE tenant_id = %s AND (finished_at IS NULL OR announced_at IS NULL"
            " OR status IN ('pending', 'running'))",
            *one,
        ),
        "P1: something is open": farm.query(
            "SELECT node, status FROM farm.node_execution WHERE tenant_id = %s"
            " AND status IN ('held', 'ready', 'leased', 'in_redis')",
            *one,
        ),
        "P1: a superstep is open": farm.query("SELECT checkpoint_id FROM farm.superstep WHERE tenant_id = %s", *one),
        "P1: a thread is busy": farm.query(
            "SELECT status FROM farm.thread WHERE tenant_id = %s AND status = 'busy'", *one
        ),
        "P2: a node's writes are there twice": farm.query(
            "SELECT checkpoint_id, task_id FROM farm.checkpoint_write WHERE tenant_id = %s AND idx = 0"
            " GROUP BY thread_id, ns, checkpoint_id, task_id HAVING count(*) > 1",
            *one,
        ),
        NOT_COMMITTED: farm.query(
            "SELECT e.node, w.fence, e.fence FROM farm.checkpoint_write w JOIN farm.node_execution e"
            " ON e.tenant_id = w.tenant_id AND e.run_id = w.run_id AND e.checkpoint_id = w.checkpoint_id"
            "    AND e.execution_id = w.execution_id"
            " JOIN farm.run r ON r.tenant_id = e.tenant_id AND r.run_id = e.run_id AND r.tier = 'postgres'"
            " WHERE w.tenant_id = %s AND w.ns = '' AND w.idx = 0 AND w.task_id = w.execution_id AND w.fence <> e.fence",
            *one,
        ),
        "P3: a thread is Redis' to move": farm.query(
            "SELECT thread_id FROM farm.thread_head WHERE tenant_id = %s AND redis_run IS NOT NULL", *one
        ),
        "P3: two checkpoints follow one": farm.query(
            "SELECT ns, parent_id FROM farm.checkpoint WHERE tenant_id = %s GROUP BY thread_id, ns, parent_id"
            " HAVING count(*) > 1",
            *one,
        ),
        "P3: a parent is missing": farm.query(
            "SELECT c.ns, c.checkpoint_id FROM farm.checkpoint c WHERE c.tenant_id = %s AND c.parent_id IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM farm.checkpoint p WHERE p.tenant_id = c.tenant_id"
            "   AND p.thread_id = c.thread_id AND p.ns = c.ns AND p.checkpoint_id = c.parent_id)",
            *one,
        ),
        "P3: the head is not the last": farm.query(
            "SELECT h.head FROM farm.thread_head h WHERE h.tenant_id = %s AND h.head IS DISTINCT FROM"
            " (SELECT c.checkpoint_id FROM farm.checkpoint c WHERE c.tenant_id = h.tenant_id"
            "   AND c.thread_id = h.thread_id AND c.ns = '' ORDER BY c.checkpoint_id DESC LIMIT 1)",
            *one,
        ),
    }
    if story.saves_at_once("worker"):
        del facts[NOT_COMMITTED]  # the first attempt's part counts, and the second's is left out
    return [f"{what}: {rows}" for what, rows in facts.items() if rows]


def gaps(
    events: list[list[tuple[str, str]]], undisturbed: list[list[tuple[str, str]]], *, may_lack: bool = False
) -> list[str]:
    """What is wrong with the streams of a disturbed story: an attempt that died may have said its part, or half of it,
    before the one that committed; nothing else may be more, and nothing less."""
    found = []
    for run, (ours, theirs) in enumerate(zip(events, undisturbed, strict=True)):
        missing = Counter(theirs) - Counter(ours)
        strange = set(ours) - set(theirs)
        ends = [name for name, _ in ours if name == "end"]
        if missing and not may_lack:
            found.append(f"run {run} lacks {dict(missing)}")
        if strange:
            found.append(f"run {run} has {strange}")
        if ends != ["end"] or ours[-1][0] != "end":
            found.append(f"run {run} does not end once, and last: {[name for name, _ in ours]}")
    return found
