"""A run that Redis moves is recalled: what is executed keeps its lease or is given back, what can be had arrives."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, cast
from uuid import uuid4

import pytest

from agentfarm import clock
from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import LeaseLost, RedisTierUnavailable, StoreUnavailable
from agentfarm.persistence.database import Database, Databases
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.redis_tier.healing import RedisHealing
from agentfarm.persistence.redis_tier.leases import RedisHeld
from agentfarm.persistence.redis_tier.saver import RedisSaver
from agentfarm.persistence.redis_tier.scripts import OPEN_SECONDS, REMEMBERED_MS, Look, Place
from agentfarm.persistence.redis_tier.servers import Server
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.records import Claimed
from agentfarm.run_options import Persistence
from agentfarm.tenancy import Tenant
from tests.in_redis import keys_of_runs
from tests.integration.persistence.farmhands import (
    Hand,
    advanced,
    begin,
    go_on,
    run_status,
    serde_for,
    settled,
    start,
)
from tests.integration.persistence.postgres import Home, wait_for
from tests.integration.streaming.valkey import Valkey


@pytest.fixture
def tier() -> Persistence:
    return "redis"


@pytest.fixture
def healer(home: Home) -> PostgresHealing:
    return PostgresHealing(home.ops, home.app, home.settings)


@pytest.fixture
def lose_answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Of so many recalls: Postgres carries them out, and the connection is gone before it says so."""

    def lose(count: int) -> None:
        real, lost = Database._call, list[str]()

        def lossy(self: Database, statement: Any, params: Any) -> Any:
            answer = real(self, statement, params)
            if statement.name == "recall" and len(lost) < count:
                lost.append(statement.name)
                raise StoreUnavailable
            return answer

        monkeypatch.setattr(Database, "_call", lossy)

    return lose


def saver_of(claimed: Claimed) -> RedisSaver:
    return cast("RedisSaver", claimed.saver)


def failed() -> SegmentResult:
    """What Redis does not commit."""
    return SegmentResult(status="error", error=ValueError())


def test_a_lease_is_kept_whose_first_answer_was_lost(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence, lose_answers: Callable[[int], None]
) -> None:
    message = start(home, acme, tier=tier)
    first = hand.claim(message)
    lose_answers(1)

    assert hand.commit(first, failed()).ended is not None

    assert run_status(home, message) == "error"


def test_a_lease_of_which_nobody_heard_is_given_back(
    home: Home,
    hand: Hand,
    acme: Tenant,
    tier: Persistence,
    healer: PostgresHealing,
    lose_answers: Callable[[int], None],
) -> None:
    message = start(home, acme, tier=tier)
    first = hand.claim(message)
    lose_answers(2)

    with pytest.raises(StoreUnavailable):
        hand.commit(first, failed())

    (again,) = wait_for(lambda: healer.lost(lambda queue: 10_000).again, what="what was given back", seconds=5)
    assert again.execution_id == message.execution_id
    second = hand.claim(again)
    assert hand.commit(second, failed()).ended is not None


def test_a_lease_that_was_kept_and_is_dropped_is_given_back(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence, healer: PostgresHealing
) -> None:
    message = start(home, acme, tier=tier)
    first = hand.claim(message)
    hand.redis.tier._adopt(saver_of(first))  # type: ignore[union-attr]
    assert home.query("SELECT status FROM farm.node_execution") == [("leased",)]

    del first
    gc.collect()

    (again,) = wait_for(lambda: healer.lost(lambda queue: 10_000).again, what="what was given back", seconds=5)
    assert again.execution_id == message.execution_id


def test_no_more_siblings_are_let_go_than_may_run_at_once(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    claimed = hand.claim(start(home, acme, tier=tier, max_concurrency=2))
    begun = begin(claimed, *(f"node{n}" for n in range(6)))
    begun.max_concurrency = 2
    one, two = map(hand.claim, hand.commit(claimed, begun).ready)
    for sibling in (one, two):
        hand.commit(sibling, settled(sibling))
    place = saver_of(one).place

    hand.behind.recall(place)

    in_postgres = replace(one.message, epoch=0)
    assert sorted(status for status, _ in hand.siblings(in_postgres)) == [*["done"] * 2, *["held"] * 2, *["ready"] * 2]


def test_a_message_that_comes_twice_takes_nothing_from_the_thread_that_works_on_it(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    message = start(home, acme, tier=tier)
    first = hand.claim(message)

    assert hand.refusal(message) == "busy"

    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    assert hand.refusal(to_one) == "busy"
    hand.commit(one, go_on(one))
    wait_for(lambda: run_status(home, message) == "success", what="the run's end, whoever hands it in")


def test_what_takes_long_is_renewed(home: Home, hands: Callable[..., Hand], acme: Tenant, tier: Persistence) -> None:
    hand = hands(lease_seconds=0.3)
    claimed = hand.claim(start(home, acme, tier=tier))
    place = saver_of(claimed).place
    client = hand.scripts.servers.of(place.key).client
    lease = f"x:{claimed.message.execution_id.hex}"

    def renewed() -> bool:
        return len(str(client.hget(place.key, lease)).split(",")) == 5

    wait_for(renewed, what="a lease that was renewed", seconds=5)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, which may be filled."""
    made = Valkey(tmp_path).start()
    yield made
    made.kill()


def test_a_full_server_gives_what_it_has(
    home: Home, acme: Tenant, tier: Persistence, full: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand(home, "hand", full.url)
    monkeypatch.setattr(hand.behind, "begin", lambda: None)  # nothing has arrived in Postgres
    first = hand.claim(start(home, acme, tier=tier))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    with full.client() as client:
        client.config_set("maxmemory", 1)

    committed = hand.commit(one, go_on(one))

    assert committed.ended is not None
    assert home.query("SELECT node, attempts FROM farm.node_execution WHERE node = 'one'") == [("one", 1)]
    hand.stop()


def test_what_a_living_worker_holds_stays_its_own(
    home: Home, hands: Callable[..., Hand], acme: Tenant, tier: Persistence
) -> None:
    dying, living = hands("dying"), hands("living")
    claimed = dying.claim(start(home, acme, tier=tier))
    to_one, to_two, to_three = dying.commit(claimed, begin(claimed, "one", "two", "three")).ready
    one, two = dying.claim(to_one), living.claim(to_two)
    assert dying.redis is not None
    healing = RedisHealing(living.scripts, living.behind, late_seconds=60.0, lease_seconds=60.0)
    dying.lease.stop()

    PostgresHealing(home.ops, home.app, home.settings, redis=healing).in_redis(lambda queue: 0)

    nodes = home.query("SELECT node, status, attempts FROM farm.node_execution WHERE NOT alone ORDER BY node")
    assert nodes == [("one", "ready", 1), ("three", "ready", 0), ("two", "leased", 1)]
    committed = living.commit(two, settled(two))
    assert committed.advance is None
    for message in (to_one, to_three):
        again = living.claim(replace(message, epoch=0))
        committed = living.commit(again, settled(again))
    assert committed.advance is not None
    with pytest.raises(LeaseLost):
        dying.commit(one, settled(one))
    nodes = home.query("SELECT node, status, attempts FROM farm.node_execution WHERE NOT alone ORDER BY node")
    assert nodes == [("one", "done", 2), ("three", "done", 1), ("two", "done", 1)]


def test_the_advance_that_a_living_worker_holds_stays_its_own(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    claimed = hand.claim(start(home, acme, tier=tier))
    (to_one,) = hand.commit(claimed, begin(claimed, "one", sole=False)).ready
    one = hand.claim(to_one)
    advance = hand.commit(one, settled(one)).advance
    assert advance is not None

    hand.behind.recall(saver_of(advance).place)

    assert hand.commit(advance, advanced(advance)).ended is not None


def test_what_is_given_back_is_nobodys(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence, healer: PostgresHealing
) -> None:
    claimed = hand.claim(start(home, acme, tier=tier))
    to_one, to_two = hand.commit(claimed, begin(claimed, "one", "two")).ready
    one, two = hand.claim(to_one), hand.claim(to_two)

    hand.executions.release(one)

    nodes = "SELECT node, status FROM farm.node_execution WHERE NOT alone ORDER BY node"
    wait_for(lambda: home.query(nodes) == [("one", "ready"), ("two", "leased")], what="the run, recalled")
    assert hand.commit(two, settled(two)).advance is None


def test_a_worker_that_ends_keeps_none_of_several_siblings(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand.behind, "begin", lambda: None)  # a round when we say so
    claimed = hand.claim(start(home, acme, tier=tier))
    to_one, to_two = hand.commit(claimed, begin(claimed, "one", "two")).ready
    held = hand.claim(to_one), hand.claim(to_two)

    hand.executions.release_all()
    hand.behind._round()

    nodes = (
        "SELECT node, status, attempts, jsonb_array_length(lost_to) FROM farm.node_execution WHERE NOT alone ORDER BY 1"
    )
    assert home.query(nodes) == [("one", "ready", 0, 1), ("two", "ready", 0, 1)], "neither was its for a moment more"
    del held


def begin_recall(hand: Hand, claimed: Claimed) -> None:
    """As another process does, which has not come to Postgres yet."""
    place = saver_of(claimed).place
    hand.scripts.peek(place.key, recall=place.epoch)


@pytest.mark.parametrize("is_faster", [True, False])
def test_who_commits_into_a_recall_keeps_its_lease_whoever_comes_to_postgres_first(
    home: Home,
    hands: Callable[..., Hand],
    acme: Tenant,
    tier: Persistence,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_faster: bool,
) -> None:
    hand, other = hands(), hands("other")
    first = hand.claim(start(home, acme, tier=tier))
    (to_one,) = hand.commit(first, begin(first, "one")).ready
    one = hand.claim(to_one)
    place = saver_of(one).place
    begin_recall(other, one)
    if not is_faster:
        monkeypatch.setattr(other.behind, "forget", lambda *run: None)  # … it has come to Postgres, and no further
        other.behind.recall(place)

    committed = hand.commit(one, go_on(one))

    other.behind.recall(place)
    assert committed.ended is not None
    assert home.query("SELECT node, attempts FROM farm.node_execution WHERE node = 'one'") == [("one", 1)]


def lose_answer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of the first of these scripts: Redis carries it out, and the connection is gone before it says so."""
    real, lost = Server.run, list[str]()

    def lossy(self: Server, script: str, key: str, *args: Any) -> Any:
        answer = real(self, script, key, *args)
        if script == name and not lost:
            lost.append(script)
            raise RedisTierUnavailable(why="ConnectionError")
        return answer

    monkeypatch.setattr(Server, "run", lossy)


def test_the_advance_of_which_nobody_heard_is_given_back(
    home: Home,
    hand: Hand,
    acme: Tenant,
    tier: Persistence,
    healer: PostgresHealing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = start(home, acme, tier=tier)
    claimed = hand.claim(message)
    (to_one,) = hand.commit(claimed, begin(claimed, "one", sole=False)).ready
    one = hand.claim(to_one)
    lose_answer(monkeypatch, "settle")

    with pytest.raises(LeaseLost):
        hand.commit(one, settled(one))

    (again,) = wait_for(lambda: healer.stalled().again, what="a superstep that nobody advances", seconds=5)
    advance = hand.claim(again)
    assert hand.commit(advance, advanced(advance)).ended is not None


def test_a_sibling_that_was_taken_unnoticed_is_given_back(
    home: Home,
    hand: Hand,
    acme: Tenant,
    tier: Persistence,
    healer: PostgresHealing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claimed = hand.claim(start(home, acme, tier=tier))
    committed = hand.commit(claimed, begin(claimed, "a", "b"), lease_next=True, wake=0)
    assert committed.leased is not None
    assert committed.ready == ()
    lose_answer(monkeypatch, "settle")

    with pytest.raises(LeaseLost):
        hand.commit(committed.leased, settled(committed.leased), lease_next=True)

    again = wait_for(lambda: healer.lost(lambda queue: 10_000).again, what="the sibling", seconds=5)
    assert [message.node for message in again] == ["b"]


def test_a_run_that_has_ended_and_did_not_arrive_yet_hides_no_other(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = hand.claim(start(home, acme, tier=tier))
    (to_one,) = hand.commit(claimed, begin(claimed, "one", sole=False)).ready
    one = hand.claim(to_one)
    advance = hand.commit(one, settled(one)).advance
    assert advance is not None
    place, other = saver_of(one).place, hand.claim(start(home, acme, tier=tier))

    def away(place: Place) -> NoReturn:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(hand.behind, "complete", away)
        patch.setattr(hand.behind, "touch", lambda place: None)
        assert hand.commit(advance, advanced(advance)).ended is None
    server = hand.scripts.servers.of(place.key)
    over, there = hand.scripts.look_many(server, [place, saver_of(other).place])

    assert isinstance(over, Look)
    assert (over.state, over.open) == ("ending", [])
    assert isinstance(there, Look)
    assert len(there.open) == 1


# --------------------------------------------------------------------------- a start whose claim took its time


@pytest.fixture
def on_its_way(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hand, Callable[[], object]], None]:
    """Postgres has told a worker to begin the run in Redis; this happens before it does."""

    def delay(hand: Hand, meanwhile: Callable[[], object]) -> None:
        begin_there = hand.scripts.open

        def late(*args: Any, **more: Any) -> str:
            monkeypatch.setattr(hand.scripts, "open", begin_there)
            meanwhile()
            return begin_there(*args, **more)

        monkeypatch.setattr(hand.scripts, "open", late)

    return delay


def in_redis(hand: Hand, tenant: Tenant) -> list[bytes]:
    return keys_of_runs(hand.scripts.servers.of("any").client, f"t:{tenant.id.hex}:hot:*")


def run_whole(hand: Hand, claimed: Claimed) -> None:
    (to_one,) = hand.commit(claimed, begin(claimed, "one")).ready
    one = hand.claim(to_one)
    assert hand.commit(one, go_on(one)).ended is not None


def test_a_run_that_has_ended_is_not_begun_again_in_redis(
    home: Home,
    hands: Callable[..., Hand],
    acme: Tenant,
    tier: Persistence,
    on_its_way: Callable[[Hand, Callable[[], object]], None],
) -> None:
    hand, other = hands(), hands("other")
    message = start(home, acme, tier=tier)

    def run_it() -> None:
        run_whole(other, other.claim(message))

    on_its_way(hand, run_it)

    assert hand.refusal(message) == "gone"

    assert (run_status(home, message), in_redis(hand, acme)) == ("success", [])


def test_a_run_that_was_recalled_is_not_begun_again_in_redis(
    home: Home,
    hands: Callable[..., Hand],
    acme: Tenant,
    tier: Persistence,
    on_its_way: Callable[[Hand, Callable[[], object]], None],
) -> None:
    hand, other = hands(), hands("other")
    message = start(home, acme, tier=tier)

    def lose_it() -> None:
        held = saver_of(other.claim(message)).held
        other.behind.recall(cast("RedisHeld", held).place, given_back=[held])

    on_its_way(hand, lose_it)

    claimed = hand.claim(message)

    assert not isinstance(claimed.saver, RedisSaver), "it goes on in Postgres"
    assert in_redis(hand, acme) == []
    run_whole(hand, claimed)


def test_a_run_that_was_cancelled_is_not_begun_in_redis(
    home: Home,
    hand: Hand,
    acme: Tenant,
    tier: Persistence,
    on_its_way: Callable[[Hand, Callable[[], object]], None],
) -> None:
    message = start(home, acme, tier=tier)
    runs = PostgresRuns(Databases(home.app), serde_for, behind=hand.behind)
    ((thread_id,),) = home.query("SELECT thread_id FROM farm.run WHERE run_id = %s", message.run_id)
    on_its_way(hand, lambda: runs.cancel(acme, thread_id, message.run_id, rollback=False))

    assert hand.refusal(message) == "gone"

    assert (run_status(home, message), in_redis(hand, acme)) == ("interrupted", [])


def test_a_claim_that_was_on_its_way_for_longer_than_redis_remembers_begins_nothing_there(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = start(home, acme, tier=tier)
    real, passed = Database._call, [0.0]

    def slow(self: Database, statement: Any, params: Any) -> Any:
        passed[0] += (OPEN_SECONDS + 1) * (statement.name == "claim")
        return real(self, statement, params)

    monkeypatch.setattr(Database, "_call", slow)
    monkeypatch.setattr(clock, "monotonic_seconds", lambda: passed[0])

    claimed = hand.claim(message)

    assert not isinstance(claimed.saver, RedisSaver), "it goes on in Postgres"
    assert in_redis(hand, acme) == []
    run_whole(hand, claimed)
    assert run_status(home, message) == "success"


def test_redis_remembers_a_run_for_a_while_and_keeps_nothing_of_it(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence
) -> None:
    claimed = hand.claim(start(home, acme, tier=tier))
    place = saver_of(claimed).place

    run_whole(hand, claimed)

    client = hand.scripts.servers.of(place.key).client
    assert client.hgetall(place.key) == {b"ep": str(place.epoch).encode()}
    assert 0 < int(str(client.pttl(place.key))) <= REMEMBERED_MS


@pytest.mark.parametrize(("trimmed", "is_left"), [(-1, True), (0, False), (1, False)])
def test_what_is_told_of_an_older_epoch_takes_nothing_from_the_run_that_is_there(
    home: Home, hand: Hand, acme: Tenant, tier: Persistence, *, trimmed: int, is_left: bool
) -> None:
    place = saver_of(hand.claim(start(home, acme, tier=tier))).place

    hand.scripts.trim(place.key, place.epoch + trimmed, 0, is_over=True)

    assert (in_redis(hand, acme) != []) == is_left


def test_the_next_run_of_a_thread_begins_where_the_last_one_is_remembered_unless_redis_is_full(
    home: Home, acme: Tenant, tier: Persistence, full: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand(home, "hand", full.url)
    thread_id = uuid4()
    savers = []
    for limit in (0, 0, 1):
        with full.client() as client:
            client.config_set("maxmemory", limit)
        claimed = hand.claim(start(home, acme, thread_id, tier=tier))
        savers.append(isinstance(claimed.saver, RedisSaver))
        run_whole(hand, claimed)

    assert savers == [True, True, False]
    hand.stop()
