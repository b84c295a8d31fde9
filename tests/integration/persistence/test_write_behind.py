"""What Redis has of runs arrives in Postgres, whatever becomes of one among them."""

from collections.abc import Callable
from typing import Any, TypedDict
from uuid import UUID, uuid4

import pytest
from langgraph.graph import START, StateGraph

from agentfarm.errors import RedisTierUnavailable
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.bodies import WriteRow
from agentfarm.persistence.redis_tier import write_behind
from agentfarm.persistence.redis_tier.entries import Draft
from agentfarm.persistence.redis_tier.healing import RECALLS, Moved, RedisHealing
from agentfarm.persistence.redis_tier.saver import RedisSaver
from agentfarm.persistence.redis_tier.scripts import Place
from agentfarm.persistence.redis_tier.servers import Server
from agentfarm.records import Claimed
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.test_runs_whole import START_STATE, Worker, _line, make_worker

__all__ = ["make_worker"]

pytestmark = pytest.mark.parametrize("make_worker", ["redis"], indirect=True)


class Count(TypedDict):
    n: int


def count_on(state: Count) -> Count:
    return {"n": state["n"] + 1}


def begun(worker: Worker, state: Any = START_STATE) -> tuple[UUID, ExecuteNode]:
    """A thread whose run has executed its first node, in Redis; and the message for the second."""
    thread_id = uuid4()
    _, (start,) = worker.admit(thread_id, state)
    (second,) = worker.execute(start)
    return thread_id, second


def server_of(worker: Worker) -> Server:
    return worker.scripts.servers.of("of any thread")


def saver_of(worker: Worker, message: ExecuteNode) -> RedisSaver:
    claimed = worker.executions.claim(message)
    assert isinstance(claimed, Claimed)
    assert isinstance(claimed.saver, RedisSaver)
    return claimed.saver


def test_what_postgres_refuses_of_one_run_keeps_no_other_from_arriving(
    home: Home, make_worker: Callable[[Any], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(_line())
    monkeypatch.setattr(worker.behind, "begin", lambda: None)  # one round, with both in it
    thread_id, second = begun(worker)
    worker.behind.bring(second.tenant_id, second.home, thread_id)
    saver = saver_of(worker, second)
    draft = Draft()
    execution = second.execution_id
    draft.add_write("", second.checkpoint_id, WriteRow(execution, execution, 0, "no text of Postgres: \0", b""))
    saver.tier.put(saver, draft)  # type: ignore[attr-defined]  # RedisTier's

    other, _ = begun(worker)

    worker.behind._round()

    head = "SELECT entry, redis_run IS NULL FROM farm.thread_head WHERE thread_id = %s"
    assert home.query(head, other) == [(2, False)], "the other run's commits are there, and it goes on in Redis"
    assert home.query(head, thread_id) == [(2, True)], "this run goes on in Postgres, from before what was refused"
    open_ = "SELECT node, status FROM farm.node_execution WHERE thread_id = %s AND status NOT IN ('done', 'dead')"
    assert home.query(open_, thread_id) == [("b", "leased")], "who executes the next node keeps it"


def test_the_past_of_a_thread_is_forgotten_though_it_is_still_on_its_way(
    home: Home, make_worker: Callable[[Any], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(StateGraph(Count).add_sequence([("a", count_on), ("b", count_on)]).add_edge(START, "a"))
    monkeypatch.setattr(worker.behind, "begin", lambda: None)  # nothing has arrived
    thread_id, second = begun(worker, Count(n=1))

    worker.threads.keep_latest(worker.tenant, thread_id)

    worker.behind.complete(saver_of(worker, second).place)
    kept = home.query("SELECT checkpoint_id FROM farm.checkpoint WHERE thread_id = %s", thread_id)
    assert kept == [(second.checkpoint_id,)]


def test_readers_do_without_a_redis_that_was_silent_and_the_end_of_a_run_does_not(
    home: Home, make_worker: Callable[[Any], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(_line())
    monkeypatch.setattr(worker.behind, "begin", lambda: None)
    thread_id, message = begun(worker)
    asked: list[object] = []

    def silent(*args: object, **more: object) -> None:
        asked.append(args)
        raise RedisTierUnavailable(why="TimeoutError")

    with monkeypatch.context() as patch:
        patch.setattr(server_of(worker), "_ask", silent)
        for _ in range(3):
            worker.behind.bring(message.tenant_id, message.home, thread_id)
    entry = "SELECT entry FROM farm.thread_head WHERE thread_id = %s"
    worker.behind.bring(message.tenant_id, message.home, thread_id)
    assert (len(asked), home.query(entry, thread_id)) == (1, [(0,)])

    worker.behind.bring(message.tenant_id, message.home, thread_id, is_last=True)

    assert home.query(entry, thread_id) == [(2,)]


@pytest.mark.parametrize("is_blind", [True, False])
def test_a_redis_that_was_silent_while_a_run_was_recalled_forgets_it_later(
    home: Home, make_worker: Callable[[Any], Worker], monkeypatch: pytest.MonkeyPatch, *, is_blind: bool
) -> None:
    worker = make_worker(_line())
    monkeypatch.setattr(worker.behind, "begin", lambda: None)
    monkeypatch.setattr(write_behind, "SILENT_SECONDS", 0.0)
    thread_id, message = begun(worker)
    place = Place(message.tenant_id, message.home, thread_id, message.run_id, message.epoch)
    worker.behind.clean(place)  # else it would be handed in once more, and so forgotten

    def silent(*args: object, **more: object) -> None:
        raise RedisTierUnavailable(why="TimeoutError")

    with monkeypatch.context() as patch:
        patch.setattr(server_of(worker), "_ask", silent)
        worker.behind.recall(place, is_blind=is_blind)
        worker.behind._round()  # … and it is silent still
    assert worker.scripts.peek(place.key) is not None

    worker.behind._round()

    assert worker.scripts.peek(place.key) is None


def test_a_sweep_without_redis_gives_up_so_many_runs_and_asks_redis_once(
    home: Home, make_worker: Callable[[Any], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(_line())
    thread_id, message = begun(worker)
    asked = []

    def silent(*args: object, **more: object) -> None:
        asked.append(args)
        raise RedisTierUnavailable(why="TimeoutError")

    monkeypatch.setattr(server_of(worker), "_ask", silent)
    place = Place(message.tenant_id, message.home, thread_id, message.run_id, message.epoch)
    nowhere = [
        Moved(Place(message.tenant_id, message.home, uuid4(), uuid4(), 1), "graph", "io", 0, 60.0)
        for _ in range(RECALLS)
    ]
    healing = RedisHealing(worker.scripts, worker.behind, late_seconds=3.0, lease_seconds=15.0)
    worker.behind.close()
    asked.clear()

    moved = [Moved(place, "graph", "io", 0, 60.0), *nowhere]
    head = "SELECT redis_run IS NULL FROM farm.thread_head WHERE thread_id = %s"
    healing.sweep(moved, frozenset, lambda queue: 0)
    assert home.query(head, thread_id) == [(False,)], "once is a stumble"

    healing.sweep(moved, frozenset, lambda queue: 0)

    assert len(asked) == 2, "a Redis that is silent would be waited for once a run"
    (row,) = home.query("SELECT redis_run FROM farm.thread_head WHERE thread_id = %s", thread_id)
    assert row == (None,)
