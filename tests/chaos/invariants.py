"""What must be true at the end, over the whole database, whatever happened. Each check says what it found broken.

Asked as the superuser, past row-level security and past the proxies, when every run is over.
"""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from langgraph_sdk import get_client
from psycopg.rows import dict_row

from tests.chaos import oracle
from tests.chaos.graphs import RETRIED, UNORDERED, read_ledger
from tests.chaos.load import TERMINAL, Ask, Book

Row = dict[str, Any]
Span = tuple[datetime, datetime]

#: So long after Redis or Postgres was disturbed, a connection that broke meanwhile may be found to be so.
AFTERMATH = timedelta(seconds=5)

_EVENT_ID = re.compile(r"([0-9]+)-([0-9]+)")


@dataclass(frozen=True, slots=True)
class Broken:
    """promise: P1 to P7 of the design, or "streams" and the like."""

    promise: str
    what: str
    run_id: str | None = None

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}" + (f" (run {self.run_id})" if self.run_id else "")


@dataclass
class Counts:
    """Numbers for the report that break nothing by themselves."""

    runs: int = 0
    unacknowledged: int = 0
    executions: int = 0
    begun_again: int = 0  # executions whose node was begun more than once, retries of a policy not counted
    uncounted: int = 0  # runs of which claims may have been forgotten (see `_may_forget`)
    tried_later: int = 0  # executions whose RetryPolicy's next try came by a message
    losses: int = 0  # entries of lost_to
    streams: int = 0
    events: int = 0
    gaps_by_faults: int = 0


@dataclass
class Facts:
    """What a check looks at.

    dark     when the Redis of streams and of runs, or a way to it, was disturbed: (from, to)
    cut      when Postgres, or a way to it, was
    crashed  when Postgres was killed, or had no room
    """

    dsn: str
    book: Book
    tenants: Mapping[str, UUID]
    canaries: Mapping[str, str]
    ledger: Path
    logs: Sequence[Path]
    dark: Sequence[Span] = ()
    cut: Sequence[Span] = ()
    crashed: Sequence[Span] = ()
    counts: Counts = field(default_factory=Counts)

    def rows(self, sql: str, *parameters: Any) -> list[Row]:
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]  # literal SQL of ours

    def runs(self) -> list[Row]:
        return self.rows(
            "SELECT tenant_id, run_id::text, thread_id::text, graph_id, tier, status, metadata->>'ask' AS ask,"
            " started_at, finished_at, created_at FROM farm.run ORDER BY started_at NULLS LAST, created_at"
        )


def check_database(facts: Facts) -> list[Broken]:
    """All that needs no API."""
    checks = (one_end_each, nothing_open, committed_once, unbroken_chains, nothing_buried, nothing_of_another)
    return [broken for check in checks for broken in check(facts)]


def check_after_the_end(facts: Facts) -> list[Broken]:
    """When no process of the farm runs any more."""
    locks = facts.rows("SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory'")
    return [Broken("leases", f"{len(locks)} advisory locks outlive the farm")] if locks else []


# --------------------------------------------------------------------------- P1


def one_end_each(facts: Facts) -> Iterator[Broken]:
    """Every acknowledged run is over, in the status that its client was told, and was made once; so is every other."""
    rows = {row["run_id"]: row for row in facts.runs()}
    facts.counts.runs = len(rows)
    facts.counts.unacknowledged = len(rows.keys() - facts.book.acknowledged.keys())
    for run_id in facts.book.acknowledged.keys() - rows.keys():
        yield Broken("P1", "acknowledged, and not in the database", run_id)
    for run_id, row in rows.items():
        if row["status"] not in TERMINAL or row["finished_at"] is None:
            yield Broken("P1", f"is {row['status']}, and nobody works on it", run_id)
        if row["ask"] not in facts.book.asks:
            yield Broken("P1", f"was asked for by nobody ({row['ask']})", run_id)
        told = facts.book.statuses.get(run_id, set())
        if told - {row["status"]}:
            yield Broken("P1", f"is {row['status']}, and its client was told {sorted(told)}", run_id)
    for ask, made in Counter(row["ask"] for row in rows.values()).items():
        if made > 1:
            yield Broken("P1", f"{ask} was asked for once, and {made} runs were made of it")


def nothing_open(facts: Facts) -> Iterator[Broken]:
    sql = (
        "SELECT run_id::text, node, status, attempts, lost_to FROM farm.node_execution"
        " WHERE status IN ('held', 'ready', 'leased', 'in_redis')"
    )
    for row in facts.rows(sql):
        yield Broken("leases", f"node {row['node']} is still {row['status']}, attempt {row['attempts']}", row["run_id"])
    for row in facts.rows("SELECT run_id::text, width FROM farm.superstep"):
        yield Broken("leases", f"a superstep of {row['width']} was never advanced", row["run_id"])
    sql = "SELECT run_id::text FROM farm.run WHERE finished_at IS NOT NULL AND announced_at IS NULL"
    for row in facts.rows(sql):
        yield Broken("streams", "its end was never told", row["run_id"])


# --------------------------------------------------------------------------- P2


def committed_once(facts: Facts) -> Iterator[Broken]:
    """A node that is done was begun; it was not begun more often than claimed; its writes are of its last claim.

    Redis counts no claims. That of a commit, of a loss and of what a worker keeps are in `attempts`; any other was of a
    worker that lived when its run was recalled, and is noted as given back by "Redis".
    """
    begun = Counter((entry.run_id, entry.execution_id) for entry in read_ledger(facts.ledger))
    forgotten = {row["run_id"] for row in facts.runs() if _may_forget(facts, row)}
    facts.counts.uncounted = len(forgotten)
    known = set()
    sql = (
        "SELECT e.run_id::text, e.execution_id::text, e.node, e.status, e.tries, r.graph_id,"
        " e.attempts + (SELECT count(*) FROM jsonb_array_elements(e.lost_to) l WHERE l->>'worker' = 'Redis') AS claims,"
        " coalesce(jsonb_array_length(e.lost_to), 0) AS losses"
        " FROM farm.node_execution e JOIN farm.run r USING (tenant_id, run_id) WHERE e.node <> '__start__'"
    )
    for row in facts.rows(sql):
        times = begun[row["run_id"], row["execution_id"]]
        known.add((row["run_id"], row["execution_id"]))
        facts.counts.executions += 1
        facts.counts.losses += row["losses"]
        facts.counts.tried_later += row["tries"] > 0
        if row["status"] == "done" and not times:
            yield Broken("P2", f"node {row['node']} is done, and was never begun", row["run_id"])
        if row["graph_id"] in RETRIED:
            continue
        facts.counts.begun_again += times > 1
        if times > row["claims"] and row["run_id"] not in forgotten:
            told = f"node {row['node']} was begun {times} times and claimed {row['claims']} times"
            yield Broken("P2", told, row["run_id"])
    for run_id, execution_id in begun.keys() - known:
        if run_id not in forgotten:
            yield Broken("P2", f"execution {execution_id} was begun, and is not in the database", run_id)
    # What Redis has committed is of its epoch, milliseconds since 1970 when it began there; the row's fence counts on.
    sql = (
        "SELECT e.run_id::text, e.node, e.fence, w.fence AS of_writes FROM farm.node_execution e"
        " JOIN farm.checkpoint_write w USING (tenant_id, thread_id, checkpoint_id, execution_id, run_id)"
        " JOIN farm.run r USING (tenant_id, run_id)"
        " WHERE w.ns = '' AND w.idx = 0 AND e.status = 'done' AND w.fence <> e.fence"
        " AND (r.tier = 'postgres' OR w.fence < floor(extract(epoch FROM r.created_at) * 1000))"
    )
    for row in facts.rows(sql):
        told = f"the writes of node {row['node']} are of claim {row['of_writes']}, the last was {row['fence']}"
        yield Broken("P2", told, row["run_id"])


def _may_forget(facts: Facts, run: Row) -> bool:
    """Whether a claim of this run may be in nobody's memory, so that its node runs again uncounted.

    Postgres, when it is killed: a claim is not flushed. Of a run that Redis moves more: what was committed in the last
    0.5 s before Redis lost its memory, or before a worker that could not ask it recalled the run, is not even in the
    database. And a worker whose node could not reach Postgres takes its own lease in Redis again, which nobody counts.
    """
    if _was_under_way(run, facts.crashed):
        return True
    return run["tier"] == "redis" and _was_under_way(run, [*facts.dark, *facts.cut], after=AFTERMATH)


def _was_under_way(run: Row, spans: Sequence[Span], *, after: timedelta = timedelta()) -> bool:
    return any(
        run["created_at"] <= end + after and (run["finished_at"] is None or run["finished_at"] >= begin)
        for begin, end in spans
    )


# --------------------------------------------------------------------------- P3


def unbroken_chains(facts: Facts) -> Iterator[Broken]:
    """Of each thread: one first checkpoint, each other one has its parent, no parent has two children, ids grow."""
    lines: dict[tuple[UUID, UUID, str], list[Row]] = defaultdict(list)
    for row in facts.rows("SELECT tenant_id, thread_id, ns, checkpoint_id, parent_id, step FROM farm.checkpoint"):
        lines[row["tenant_id"], row["thread_id"], row["ns"]].append(row)
    heads = {
        (row["tenant_id"], row["thread_id"]): row["head"]
        for row in facts.rows("SELECT tenant_id, thread_id, head FROM farm.thread_head")
    }
    for (tenant_id, thread_id, ns), rows in lines.items():
        for fault in _faults_of(rows):
            yield Broken("P3", f"thread {thread_id}, namespace '{ns}': {fault}")
        if ns == "" and heads.get((tenant_id, thread_id)) != max(row["checkpoint_id"] for row in rows):
            yield Broken("P3", f"thread {thread_id}: its head is not its last checkpoint")


def _faults_of(rows: Sequence[Row]) -> Iterator[str]:
    by_id = {row["checkpoint_id"]: row for row in rows}
    if (roots := sum(row["parent_id"] is None for row in rows)) != 1:
        yield f"{roots} checkpoints have no parent"
    for parent, children in Counter(row["parent_id"] for row in rows).items():
        if parent is not None and children > 1:
            yield f"checkpoint {parent} has {children} children"
    for row in rows:
        if row["parent_id"] is None:
            continue
        parent = by_id.get(row["parent_id"])
        if parent is None:
            yield f"checkpoint {row['checkpoint_id']} has lost its parent"
        elif row["checkpoint_id"] <= parent["checkpoint_id"] or row["step"] != parent["step"] + 1:
            yield f"checkpoint {row['checkpoint_id']} (step {row['step']}) does not follow step {parent['step']}"


# --------------------------------------------------------------------------- P5, P7


def nothing_of_another(facts: Facts) -> Iterator[Broken]:
    """A tenant's own word is in no other tenant's rows, and in no log."""
    columns = {"run": "spec", "checkpoint": "body", "checkpoint_blob": "blob", "checkpoint_write": "body"}
    for tenant, canary in facts.canaries.items():
        for table, column in columns.items():
            sql = (
                f"SELECT count(*) AS found FROM farm.{table}"
                f" WHERE tenant_id <> %s AND position(convert_to(%s, 'UTF8') IN {column}) > 0"
            )
            if found := facts.rows(sql, facts.tenants[tenant], canary)[0]["found"]:
                yield Broken("P5", f"{found} rows of {table} hold words of tenant {tenant}, and are another's")
        for log in facts.logs:
            if canary in log.read_text(errors="replace"):
                yield Broken("P5", f"{log} holds words of tenant {tenant}")


def nothing_buried(facts: Facts) -> Iterator[Broken]:
    """No graph here fails by itself, so no run may."""
    for row in facts.rows("SELECT run_id::text, error FROM farm.run WHERE status IN ('error', 'timeout')"):
        yield Broken("P7", f"ended with {row['error']}", row["run_id"])
    for row in facts.rows("SELECT run_id::text, node, lost_to FROM farm.node_execution WHERE status = 'dead'"):
        yield Broken("P7", f"node {row['node']} was buried: {row['lost_to']}", row["run_id"])


# --------------------------------------------------------------------------- P6 and streams, through the API


async def check_answers(facts: Facts, url: str, keys: Mapping[str, str]) -> list[Broken]:
    """Every run's answer, every thread's state and every stream that a client read."""
    threads: dict[tuple[str, str], list[tuple[Row, Ask]]] = defaultdict(list)
    for row in facts.runs():
        ask = facts.book.asks[row["ask"]]
        threads[ask.tenant, row["thread_id"]].append((row, ask))
    found: list[Broken] = []
    at_once = asyncio.Semaphore(8)

    async def check(tenant: str, thread_id: str, runs: Sequence[tuple[Row, Ask]]) -> None:
        async with at_once, get_client(url=url, api_key=keys[tenant]) as client:
            found.extend([broken async for broken in _check_thread(facts, client, thread_id, runs)])

    await asyncio.gather(*(check(*key, runs) for key, runs in threads.items()))
    return found


async def _check_thread(facts: Facts, client: Any, thread_id: str, runs: Sequence[tuple[Row, Ask]]) -> Any:
    if any(row["status"] not in TERMINAL for row, _ in runs):
        return  # P1 has told it; whoever joins such a run waits for ever
    expected = await oracle.answers([ask for _, ask in runs])
    before: dict[str, Any] = {}
    for (row, ask), values in zip(runs, expected, strict=True):
        run_id = row["run_id"]
        status = "interrupted" if "__interrupt__" in values else "success"
        if row["status"] != status:
            yield Broken("P6", f"ended as {row['status']}, stock LangGraph's as {status}", run_id)
        got = await _answer(facts, client, row)
        if got is not None and got != values:
            yield Broken("P6", f"answers {got}, stock LangGraph {values}", run_id)
        for other, canary in facts.canaries.items():
            if other != ask.tenant and canary in str((got, facts.book.streams.get(run_id))):
                yield Broken("P5", f"the answer to tenant {ask.tenant} holds words of tenant {other}", run_id)
        if run_id in facts.book.streams:
            said = values["log"][len(before.get("log", [])) :]
            async for broken in _check_stream(facts, client, row, said):
                yield broken
        before = values
    last = {name: value for name, value in expected[-1].items() if name != "__interrupt__"}
    state = (await client.threads.get_state(thread_id))["values"]
    if state != last:
        yield Broken("P6", f"thread {thread_id} holds {state}, stock LangGraph's {last}")


async def _answer(facts: Facts, client: Any, row: Row) -> dict[str, Any] | None:
    """What a run came to. Of one that stopped to ask it is what its client was told then, since the next run takes the
    question away; None where its client went away before it was told.
    """
    if row["status"] != "interrupted":
        return oracle.comparable(await client.runs.join(row["thread_id"], row["run_id"]))
    known = facts.book.answers.get(row["run_id"])
    return oracle.comparable(known) if known is not None else None


async def _check_stream(facts: Facts, client: Any, row: Row, said: Sequence[str]) -> Any:
    """A client that lost its connection many times has what a client has that lost none; and all of it in order."""
    run_id, events = row["run_id"], facts.book.streams[row["run_id"]]
    facts.counts.streams += 1
    facts.counts.events += len(events)
    again = [(str(part.id), part.event, part.data) async for part in client.runs.join_stream(
        row["thread_id"], run_id, last_event_id="0-0")]  # fmt: skip
    ids = [_place(id_) for id_, _, _ in events]
    if ids != sorted(set(ids)):
        yield Broken("streams", "ids do not grow", run_id)
    if not events or events[-1][1] != "end":
        yield Broken("streams", "does not end with 'end'", run_id)
    elif events[-1][2] != {"status": row["status"]}:
        yield Broken("streams", f"ends with {events[-1][2]}, the run with {row['status']}", run_id)
    if events != again:
        yield Broken("streams", f"a client read {len(events)} events, and {len(again)} when it read again", run_id)
    heard = list(dict.fromkeys(_lines(events)))
    if sorted(heard) != sorted(said) or (row["graph_id"] not in UNORDERED and heard != list(said)):
        if _was_under_way(row, facts.dark):
            facts.counts.gaps_by_faults += 1
        else:
            yield Broken("streams", f"told {heard}, and {list(said)} was committed", run_id)


def _lines(events: Sequence[tuple[str, str, Any]]) -> Iterator[str]:
    """What the nodes said in `updates`, in order."""
    for _, event, data in events:
        if event == "updates" and isinstance(data, dict):
            for update in data.values():
                if isinstance(update, dict):
                    yield from update.get("log", ())


def _place(event_id: str) -> tuple[int, int]:
    match = _EVENT_ID.fullmatch(event_id)
    return (int(match[1]), int(match[2])) if match else (0, 0)
