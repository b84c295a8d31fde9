"""Workers, cancels and healers at once: whatever the order, every run ends, and no head is moved past its run's end."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import HeadMoved, LeaseLost, NotFound
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.database import Databases
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.records import Claimed
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import (
    Hand,
    admit,
    advanced,
    begin,
    go_on,
    own_writes,
    serde_for,
    settled,
    start,
)
from tests.integration.persistence.healing.parts import bury, empty, start_waiting
from tests.integration.persistence.postgres import Home, wait_for


def segment(work: Claimed, choose: random.Random) -> SegmentResult:
    """A run that is now a line and now a fan; here and there a node fails."""
    assert work.call is not None or work.kind == "start"
    names = ("a", "b", "c") if choose.random() < 0.4 else ("a",)
    if work.kind == "start":
        return begin(work, *names)
    if work.kind == "advance":
        return advanced(work, *(names if choose.random() < 0.7 else ()))
    assert work.call is not None
    if not work.call.sole:
        if choose.random() < 0.05:
            return SegmentResult(ops=[own_writes(work, ("__error__", "x"))], outcome="error", error=ValueError("x"))
        return settled(work)
    return go_on(work, *(names if choose.random() < 0.8 else ()))


def work_off(hand: Hand, queue: list[ExecuteNode], choose: random.Random) -> None:
    """Until the queue is empty; each message may be delivered twice."""
    while queue:
        try:
            message = queue.pop(choose.randrange(len(queue)))
        except (IndexError, ValueError):
            return
        if choose.random() < 0.1:
            queue.append(message)
        claimed = hand.executions.claim(message)
        work = claimed if isinstance(claimed, Claimed) else None
        while work is not None:
            if choose.random() < 0.05:
                hand.executions.release(work)
                break
            try:
                goes_on, wake = choose.random() < 0.5, choose.choice([None, 0, 1])
                committed = hand.commit(work, segment(work, choose), lease_next=goes_on, wake=wake)
            except (LeaseLost, HeadMoved):
                break
            queue.extend(committed.ready)
            work = committed.leased or committed.advance


def test_runs_that_are_cancelled_at_any_moment_end_once_and_leave_nothing_open(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    seed = random.randrange(1 << 30)
    runs = PostgresRuns(Databases(home.app), serde_for)
    healer = PostgresHealing(home.ops, home.app, home.settings.model_copy(update={"lost_message_seconds": 0.3}))
    workers = [hands(f"worker{n}") for n in range(2)]
    threads = [uuid4() for _ in range(12)]
    queue: list[ExecuteNode] = [start(home, acme, thread_id) for thread_id in threads]
    waiting = [admit(home, acme, thread_id) for thread_id in threads]
    assert waiting == [None] * len(threads)
    is_over = threading.Event()

    def cancel() -> None:
        choose = random.Random(seed)
        for run_id, thread_id in home.query("SELECT run_id, thread_id FROM farm.run ORDER BY random() LIMIT 10"):
            if is_over.wait(choose.random() * 0.05):
                return
            try:
                queue.extend(runs.cancel(acme, thread_id, run_id, rollback=choose.random() < 0.4)[1])
            except NotFound:
                continue

    def heal() -> None:
        while not is_over.wait(0.05):
            for swept in (healer.sweep(), healer.stalled()):
                queue.extend([*swept.again, *(message for buried in bury(healer, swept) for message in buried.again)])
            queue.extend([*healer.lost(empty).again, *start_waiting(healer)])

    all_dice = [random.Random(f"{seed} {n}") for n in range(4)]

    def all_done() -> bool:
        crew = [pool.submit(work_off, worker, queue, dice) for worker, dice in zip(workers * 2, all_dice, strict=True)]
        for one in crew:
            one.result(60)
        return cancelling.done() and not queue and not home.query("SELECT 1 FROM farm.run WHERE finished_at IS NULL")

    with ThreadPoolExecutor(8) as pool:
        cancelling, healing = pool.submit(cancel), pool.submit(heal)
        try:
            wait_for(all_done, what=f"the end of every run, seed {seed}", seconds=60)
        finally:
            is_over.set()
        cancelling.result(60)
        healing.result(60)

    told = f"seed {seed}"
    assert (
        home.query("SELECT run_id FROM farm.run WHERE finished_at IS NULL OR status IN ('pending', 'running')") == []
    ), told
    assert home.query("SELECT 1 FROM farm.node_execution WHERE status IN ('held', 'ready', 'leased')") == [], told
    assert home.query("SELECT 1 FROM farm.superstep") == [], told
    # One line: no checkpoint has two children, and each thread's head is its newest checkpoint.
    forks = "SELECT parent_id FROM farm.checkpoint GROUP BY tenant_id, thread_id, parent_id HAVING count(*) > 1"
    assert home.query(forks) == [], told
    heads = """SELECT h.thread_id FROM farm.thread_head h WHERE h.head IS DISTINCT FROM
                 (SELECT max(c.checkpoint_id::text)::uuid FROM farm.checkpoint c WHERE c.thread_id = h.thread_id)"""
    assert home.query(heads) == [], told
    # What an execution saved carries the fence under which it was committed.
    strays = """SELECT 1 FROM farm.checkpoint_write w JOIN farm.node_execution e
                  ON e.run_id = w.run_id AND e.checkpoint_id = w.checkpoint_id AND e.execution_id = w.execution_id
                 WHERE w.idx = 0 AND (e.status <> 'done' OR e.fence <> w.fence)"""
    assert home.query(strays) == [], told
    assert home.query("SELECT status FROM farm.thread WHERE status = 'busy'") == [], told
