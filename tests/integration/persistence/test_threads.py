"""Threads: made, merged, searched, forgotten; two tenants that use the same ids throughout."""

from datetime import timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from agentfarm import clock
from agentfarm.errors import AlreadyExists, InvalidInput, NotFound
from agentfarm.ids import new_id
from agentfarm.persistence import healing
from agentfarm.persistence import threads as module
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Databases
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.persistence.tables import TENANT_TABLES
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.records import Ended, ThreadQuery, ThreadRow, ThreadTtl
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.runs.parts import new_run


@pytest.fixture
def threads(home: Home) -> PostgresThreads:
    return PostgresThreads(Databases(home.app), lambda _: serde_of(None))


def make(threads: PostgresThreads, tenant: Tenant, thread_id: UUID | None = None, **metadata: Any) -> ThreadRow:
    return threads.create(tenant, thread_id or new_id(), metadata, if_exists="raise")


def found_by(threads: PostgresThreads, tenant: Tenant, **query: Any) -> list[UUID]:
    return [row.thread_id for row in threads.search(tenant, ThreadQuery(**query))[0]]


# --------------------------------------------------------------------------- one thread


def test_a_thread_comes_back_as_it_was_made(threads: PostgresThreads, acme: Tenant) -> None:
    made = make(threads, acme, graph_id="agent", user={"id": 7, "tags": ["a", "ß"]})

    assert threads.get(acme, made.thread_id) == made
    assert (made.status, made.graph_id, made.error, made.state_updated_at) == ("idle", "agent", None, None)
    assert made.metadata == {"graph_id": "agent", "user": {"id": 7, "tags": ["a", "ß"]}}
    assert made.created_at.utcoffset() is not None


def test_a_thread_id_is_taken_once_in_a_tenant(threads: PostgresThreads, acme: Tenant, globex: Tenant) -> None:
    made = make(threads, acme, owner="acme")

    with pytest.raises(AlreadyExists):
        make(threads, acme, made.thread_id, owner="again")
    assert threads.create(acme, made.thread_id, {"owner": "again"}, if_exists="do_nothing") == made
    assert make(threads, globex, made.thread_id, owner="globex").metadata == {"owner": "globex"}
    assert threads.get(acme, made.thread_id) == made


def test_a_thread_of_another_tenant_is_told_apart_from_none_by_nothing(
    threads: PostgresThreads, acme: Tenant, globex: Tenant
) -> None:
    theirs, nobodys = make(threads, globex).thread_id, uuid4()

    def told(thread_id: UUID) -> list[tuple[type[BaseException], str]]:
        answers = []
        for ask in (
            lambda: threads.get(acme, thread_id),
            lambda: threads.update(acme, thread_id, {"a": 1}),
            lambda: threads.delete(acme, thread_id),
        ):
            with pytest.raises(NotFound) as refused:
                ask()
            answers.append((refused.type, str(refused.value)))
        return answers

    assert told(theirs) == told(nobodys)
    assert threads.get(globex, theirs).metadata == {}


def test_metadata_is_merged_key_by_key(threads: PostgresThreads, acme: Tenant) -> None:
    made = make(threads, acme, a=1, b={"x": 1})

    updated = threads.update(acme, made.thread_id, {"b": {"y": 2}, "c": None})

    assert updated.metadata == {"a": 1, "b": {"y": 2}, "c": None}
    assert threads.get(acme, made.thread_id) == updated
    assert updated.updated_at > made.updated_at


def test_a_thread_learns_its_graph_from_metadata_until_it_has_run(
    home: Home, threads: PostgresThreads, acme: Tenant
) -> None:
    thread_id = make(threads, acme).thread_id

    assert threads.update(acme, thread_id, {"graph_id": "one"}).graph_id == "one"
    PostgresRuns(Databases(home.app), lambda _: serde_of(None)).admit(acme, new_run(thread_id))
    assert threads.update(acme, thread_id, {"graph_id": "other"}).graph_id == "agent"


@pytest.mark.parametrize(
    "odd", [{"a": "\x00"}, {"\x00": 1}, {"a": [{"b": float("inf")}]}, {"a": "\ud800"}, {"a": {1, 2}}], ids=repr
)
def test_metadata_that_jsonb_refuses_is_refused_by_its_name_and_never_repeated(
    threads: PostgresThreads, acme: Tenant, odd: dict[str, Any]
) -> None:
    thread_id = make(threads, acme).thread_id

    for ask in (
        lambda: make(threads, acme, **odd),
        lambda: threads.update(acme, thread_id, {**odd, "secret": "sk-1"}),
        lambda: threads.search(acme, ThreadQuery(metadata=odd)),
    ):
        with pytest.raises(InvalidInput, match="metadata") as refused:
            ask()
        assert "sk-1" not in str(refused.value)


def test_a_backslash_before_u0000_is_text(threads: PostgresThreads, acme: Tenant) -> None:
    assert make(threads, acme, path="\\u0000").metadata == {"path": "\\u0000"}


# --------------------------------------------------------------------------- forgetting


#: Tables of a tenant whose rows belong to none of its threads.
NO_THREADS = {table.name for table in TENANT_TABLES if table.name.startswith("store_")} | {
    "graph_build",
    "idempotency_key",
}


def test_of_a_forgotten_thread_nothing_remains_and_of_others_all(
    home: Home, threads: PostgresThreads, acme: Tenant, globex: Tenant
) -> None:
    runs, thread_id, other = PostgresRuns(Databases(home.app), lambda _: serde_of(None)), new_id(), new_id()
    for tenant, each in ((acme, thread_id), (acme, other), (globex, thread_id)):
        _fill(home, threads, runs, tenant, each)
    active, waiting = (row.run_id for row in reversed(runs.list(acme, thread_id, limit=9, offset=0, status=None)))

    ended = threads.delete(acme, thread_id)

    assert ended == tuple(Ended(acme.id, "main", run_id, thread_id, "interrupted") for run_id in (active, waiting))
    for table in (table for table in TENANT_TABLES if table.name not in NO_THREADS):
        rows = home.query(f"SELECT tenant_id, count(*) FROM {table} GROUP BY 1")
        assert len(rows) == 2, f"{table} has rows of one tenant alone"
        assert len({count for _, count in rows}) == 1, f"{table} lost a row too many, or too few"
    with pytest.raises(NotFound):
        threads.delete(acme, thread_id)


def _fill(home: Home, threads: PostgresThreads, runs: PostgresRuns, tenant: Tenant, thread_id: UUID) -> None:
    """A row of the thread in every table."""
    make(threads, tenant, thread_id)
    run_id = runs.admit(tenant, new_run(thread_id)).run.run_id
    runs.admit(tenant, new_run(thread_id))
    saver: Any = TenantSaver(home.app, tenant.id, serde_of(None))
    checkpoint = {
        "v": 2,
        "id": str(new_id()),
        "ts": "",
        "channel_values": {"x": "x" * 300},
        "channel_versions": {"x": "1"},
    }
    config = {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": ""}}
    saved = saver.put(config, {**checkpoint, "versions_seen": {}, "updated_channels": None}, {"step": 0}, {"x": "1"})
    saver.put_writes(saved, [("x", 1)], str(uuid4()))
    home.query(
        "INSERT INTO farm.superstep (tenant_id, run_id, checkpoint_id, width) VALUES (%s, %s, %s, 2) RETURNING 1",
        *(tenant.id, run_id, checkpoint["id"]),
    )
    home.query(
        "INSERT INTO farm.dead_letter"
        " (tenant_id, run_id, thread_id, checkpoint_id, execution_id, graph_id, node, attempts)"
        " VALUES (%s, %s, %s, %s, %s, 'graph', 'node', 6) RETURNING 1",
        *(tenant.id, run_id, thread_id, checkpoint["id"], uuid4()),
    )


def test_a_forgotten_threads_worker_can_save_nothing_any_more(
    home: Home, threads: PostgresThreads, acme: Tenant
) -> None:
    thread_id = make(threads, acme).thread_id
    run_id = PostgresRuns(Databases(home.app), lambda _: serde_of(None)).admit(acme, new_run(thread_id)).run.run_id
    home.query("UPDATE farm.node_execution SET status = 'leased', fence = 1, worker = 7 RETURNING 1")

    threads.delete(acme, thread_id)

    held = (acme.id, run_id, UUID(int=0), run_id, 1, 7)
    with home.connect() as connection, pytest.raises(Exception, match="is lost"):
        connection.execute("SELECT farm.hold(%s, %s, %s, %s, %s, %s)", held)


# --------------------------------------------------------------------------- searching


def test_a_search_finds_by_metadata_that_is_contained(threads: PostgresThreads, acme: Tenant, globex: Tenant) -> None:
    one = make(threads, acme, user={"id": 1, "plan": "free"}, tags=["a", "b"]).thread_id
    two = make(threads, acme, user={"id": 2, "plan": "free"}).thread_id
    make(threads, globex, one, user={"id": 1, "plan": "free"})

    assert found_by(threads, acme, metadata={"user": {"plan": "free"}}) == [two, one]
    assert found_by(threads, acme, metadata={"user": {"id": 1}}) == [one]
    assert found_by(threads, acme, metadata={"tags": ["b"]}) == [one]
    assert found_by(threads, acme, metadata={"user": {"id": "1"}}) == []


def test_a_search_finds_by_status_and_ids(home: Home, threads: PostgresThreads, acme: Tenant, globex: Tenant) -> None:
    ids = [make(threads, acme).thread_id for _ in range(3)]
    theirs = make(threads, globex).thread_id
    PostgresRuns(Databases(home.app), lambda _: serde_of(None)).admit(acme, new_run(ids[1]))

    assert found_by(threads, acme, status="busy") == [ids[1]]
    assert found_by(threads, acme, status="error") == []
    assert found_by(threads, acme, ids=[ids[2], ids[0], theirs]) == [ids[2], ids[0]]
    assert found_by(threads, acme, ids=[ids[0]], status="busy") == []


def test_pages_neither_repeat_nor_skip_and_say_whether_there_are_more(
    home: Home, threads: PostgresThreads, acme: Tenant, globex: Tenant
) -> None:
    ids = [make(threads, acme).thread_id for _ in range(7)]
    make(threads, globex)
    home.query("UPDATE farm.thread SET updated_at = '2026-01-01' RETURNING 1")  # all equal: the id decides

    pages = [threads.search(acme, ThreadQuery(sort_by="updated_at", limit=3, offset=at)) for at in (0, 3, 6)]

    assert [row.thread_id for rows, _ in pages for row in rows] == sorted(ids)
    assert [more for _, more in pages] == [True, True, False]
    assert threads.search(acme, ThreadQuery(limit=7)) == (threads.search(acme, ThreadQuery(limit=99))[0], False)


@pytest.mark.parametrize("sort_by", get_args(ThreadQuery.__annotations__["sort_by"]))
def test_every_order_goes_both_ways(home: Home, threads: PostgresThreads, acme: Tenant, sort_by: str) -> None:
    ids = [make(threads, acme).thread_id for _ in range(3)]
    for at, (thread_id, status) in enumerate(zip(ids, ("busy", "error", "idle"), strict=True)):
        home.query(
            "UPDATE farm.thread SET status = %s, state_updated_at = now() + %s * interval '1 s' WHERE thread_id = %s"
            " RETURNING 1",
            *(status, at, thread_id),
        )

    assert found_by(threads, acme, sort_by=sort_by, sort_order="asc") == ids
    assert found_by(threads, acme, sort_by=sort_by, sort_order="desc") == ids[::-1]


def test_threads_that_never_ran_come_last_by_the_time_of_their_state(
    home: Home, threads: PostgresThreads, acme: Tenant
) -> None:
    ran, never = make(threads, acme).thread_id, make(threads, acme).thread_id
    home.query("UPDATE farm.thread SET state_updated_at = now() WHERE thread_id = %s RETURNING 1", ran)

    for order in ("asc", "desc"):
        assert found_by(threads, acme, sort_by="state_updated_at", sort_order=order) == [ran, never]


def test_counting_stops_at_its_bound(
    threads: PostgresThreads, acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(4):
        make(threads, acme, even=at % 2 == 0)
    make(threads, globex)

    assert threads.count(acme, ThreadQuery()) == 4
    assert threads.count(acme, ThreadQuery(metadata={"even": True})) == 2
    monkeypatch.setattr(module, "MAX_COUNT", 3)
    assert threads.count(acme, ThreadQuery()) == 3


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (ThreadQuery(sort_by="created_at"), "thread_created"),
        (ThreadQuery(sort_by="updated_at"), "thread_updated"),
        (ThreadQuery(status="interrupted"), "thread_not_idle"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_the_common_searches_are_read_from_an_index(home: Home, acme: Tenant, query: ThreadQuery, index: str) -> None:
    statement = module.search_threads(acme, query).limit(11)

    with home.app.transaction(acme) as connection:
        connection.exec_driver_sql("SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off")
        compiled = statement.compile(dialect=home.app.engine.dialect, compile_kwargs={"render_postcompile": True})
        rows = connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params)
        plan = "\n".join(row[0] for row in rows)

    assert f"using {index}" in plan, plan
    assert "Sort" not in plan, plan


# --------------------------------------------------------------------------- how long they are kept


def overdue(home: Home, thread_id: UUID, *, used_minutes_ago: float = 60) -> None:
    home.query(
        "UPDATE farm.thread SET expires_at = now() - interval '1 s', updated_at = now() - %s * interval '1 minute',"
        " state_updated_at = NULL WHERE thread_id = %s RETURNING 1",
        used_minutes_ago,
        thread_id,
    )


def due(home: Home) -> list[UUID]:
    return [thread_id for _, _, thread_id in PostgresHealing(home.ops, home.app, home.settings).expired_threads()]


def test_a_thread_is_kept_for_as_long_as_it_says(threads: PostgresThreads, acme: Tenant) -> None:
    made = threads.create(acme, new_id(), {}, if_exists="raise", ttl=ThreadTtl(30))
    for_ever = make(threads, acme)
    changed = threads.update(acme, for_ever.thread_id, {}, ttl=ThreadTtl(0.5, "keep_latest"))

    assert (made.ttl_minutes, made.ttl_strategy, for_ever.expires_at) == (30, "delete", None)
    assert made.expires_at is not None
    assert changed.expires_at is not None
    assert timedelta(0) <= made.expires_at - made.created_at - timedelta(minutes=30) < timedelta(seconds=5)
    assert timedelta(0) <= changed.expires_at - changed.updated_at - timedelta(seconds=30) < timedelta(seconds=5)
    assert threads.update(acme, made.thread_id, {"a": 1}).expires_at == made.expires_at


def test_a_thread_without_one_gets_the_farm_s_also_when_a_run_makes_it(home: Home, acme: Tenant) -> None:
    databases, ttl = Databases(home.app), ThreadTtl(7, "keep_latest")
    threads = PostgresThreads(databases, lambda _: serde_of(None), default_ttl=ttl)
    runs = PostgresRuns(databases, lambda _: serde_of(None), default_ttl=ttl)
    old = make(PostgresThreads(databases, lambda _: serde_of(None)), acme)
    by_run = new_id()

    mine = make(threads, acme)
    runs.admit(acme, new_run(by_run, create_thread=True))
    runs.admit(acme, new_run(old.thread_id, create_thread=True))

    kept = [threads.get(acme, one) for one in (mine.thread_id, by_run, old.thread_id)]
    assert [(row.ttl_minutes, row.ttl_strategy) for row in kept] == [
        (7, "keep_latest"),
        (7, "keep_latest"),
        (None, None),
    ]


def test_a_thread_whose_time_is_over_is_found_and_deleted(
    home: Home, threads: PostgresThreads, acme: Tenant, globex: Tenant
) -> None:
    gone = threads.create(acme, new_id(), {}, if_exists="raise", ttl=ThreadTtl(1)).thread_id
    fresh = threads.create(acme, new_id(), {}, if_exists="raise", ttl=ThreadTtl(1)).thread_id
    same_id = make(threads, globex, gone)
    home.query(
        "UPDATE farm.thread SET expires_at = now() WHERE thread_id = %s AND ttl_minutes IS NOT NULL RETURNING 1", gone
    )
    home.query("UPDATE farm.thread SET updated_at = now() - interval '1 h' WHERE thread_id = %s RETURNING 1", gone)

    found = due(home)
    for thread_id in (gone, fresh, new_id()):
        threads.expire(acme, thread_id)

    assert found == [gone]
    with pytest.raises(NotFound):
        threads.get(acme, gone)
    assert threads.get(acme, fresh).thread_id == fresh
    assert threads.get(globex, gone).created_at == same_id.created_at
    assert due(home) == []


def test_a_thread_that_was_used_meanwhile_is_kept_for_as_long_again(
    home: Home, threads: PostgresThreads, acme: Tenant
) -> None:
    made = threads.create(acme, new_id(), {}, if_exists="raise", ttl=ThreadTtl(30))
    overdue(home, made.thread_id, used_minutes_ago=10)

    threads.expire(acme, made.thread_id)

    row = threads.get(acme, made.thread_id)
    assert row.expires_at == row.updated_at + timedelta(minutes=30)


@pytest.mark.parametrize("strategy", ["delete", "keep_latest"])
def test_a_thread_with_a_run_that_is_not_over_is_in_use(
    home: Home, threads: PostgresThreads, acme: Tenant, strategy: Any
) -> None:
    made = threads.create(acme, new_id(), {}, if_exists="raise", ttl=ThreadTtl(30, strategy))
    PostgresRuns(Databases(home.app), lambda _: serde_of(None)).admit(acme, new_run(made.thread_id))
    overdue(home, made.thread_id)

    threads.expire(acme, made.thread_id)

    assert threads.get(acme, made.thread_id).status == "busy"
    assert due(home) == []


def test_a_thread_that_keeps_its_latest_state_loses_its_past_and_is_looked_at_again(
    home: Home, threads: PostgresThreads, acme: Tenant
) -> None:
    made = threads.create(acme, new_id(), {}, if_exists="raise", ttl=ThreadTtl(30, "keep_latest"))
    saver = threads.saver(acme, None)
    config: Any = {"configurable": {"thread_id": str(made.thread_id), "checkpoint_ns": ""}}
    for step in range(3):
        config = saver.put(config, {**empty_checkpoint(), "id": str(uuid6(clock_seq=step))}, {"step": step}, {})
    overdue(home, made.thread_id)

    threads.expire(acme, made.thread_id)

    left = list(saver.list({"configurable": {"thread_id": str(made.thread_id)}}))
    assert [one.metadata["step"] for one in left] == [2]
    row = threads.get(acme, made.thread_id)
    assert row.expires_at is not None
    assert row.expires_at > clock.now() + timedelta(minutes=29)


def test_a_healer_looks_again_at_once_only_while_its_batches_are_full(
    home: Home, threads: PostgresThreads, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "EXPIRY_BATCH", 2)
    for _ in range(3):
        overdue(home, threads.create(acme, new_id(), {}, if_exists="raise", ttl=ThreadTtl(1)).thread_id)
    healer = PostgresHealing(home.ops, home.app, home.settings, expiry_seconds=3600)

    sizes = []
    for _ in range(3):
        found = healer.expired_threads()
        sizes.append(len(found))
        for _, _, thread_id in found:
            threads.expire(acme, thread_id)

    assert sizes == [2, 1, 0]
    assert threads.count(acme, ThreadQuery()) == 0
