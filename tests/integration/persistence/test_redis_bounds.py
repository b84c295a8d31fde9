"""What is long, large, full or slow in the Redis that moves runs costs its own run, and no other."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import redis

from agentfarm.errors import RedisTierUnavailable
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.persistence.redis_tier import scripts as of_scripts
from agentfarm.persistence.redis_tier.healing import RedisHealing
from agentfarm.persistence.redis_tier.renewal import Renewal
from agentfarm.persistence.redis_tier.saver import RedisSaver
from agentfarm.persistence.redis_tier.scripts import Waiting
from agentfarm.persistence.redis_tier.tier import MAX_BYTES
from agentfarm.persistence.store_errors import CheckpointOutOfOrder
from agentfarm.records import Claimed
from agentfarm.run_options import Persistence
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand, begin, go_on, own_writes, settled, start
from tests.integration.persistence.postgres import Home, wait_for
from tests.integration.streaming.valkey import Valkey


@pytest.fixture
def tier() -> Persistence:
    return "redis"


@pytest.fixture
def hand(hands: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch) -> Hand:
    """Nothing arrives in Postgres but in a round of the test's."""
    made = hands()
    monkeypatch.setattr(made.behind, "begin", lambda: None)
    return made


def saver_of(claimed: Claimed) -> RedisSaver:
    return cast("RedisSaver", claimed.saver)


def client_of(claimed: Claimed, hand: Hand) -> redis.Redis:
    return hand.scripts.servers.of(saver_of(claimed).place.key).client


def begun(home: Home, hand: Hand, tenant: Tenant, *names: str) -> Claimed:
    """The first of these nodes, claimed."""
    first = hand.claim(start(home, tenant, tier="redis"))
    return hand.claim(hand.commit(first, begin(first, *(names or ("one",)))).ready[0])


def is_in_redis(home: Home, claimed: Claimed) -> bool:
    sql = "SELECT redis_run IS NOT NULL FROM farm.thread_head WHERE thread_id = %s"
    return bool(home.query(sql, claimed.thread_id)[0][0])


def save(claimed: Claimed, number: int) -> None:
    """As LangGraph saves the result of a @task."""
    task = f"00000000-0000-0000-0000-{number:012d}"
    config: Any = {"configurable": {"checkpoint_ns": "", "checkpoint_id": str(claimed.message.checkpoint_id)}}
    saver_of(claimed).put_writes(config, [("result", number)], task)


def arrived(home: Home, claimed: Claimed) -> int:
    sql = "SELECT count(*) FROM farm.checkpoint_write WHERE run_id = %s"
    return int(str(home.query(sql, claimed.message.run_id)[0][0]))


@pytest.mark.parametrize("size", [MAX_BYTES // 2, MAX_BYTES * 2])
def test_a_large_result_of_a_sibling_is_postgres_to_keep(home: Home, hand: Hand, acme: Tenant, size: int) -> None:
    one = begun(home, hand, acme, "one", "two")
    result = settled(one)
    result.ops = [own_writes(one, ("text", "x" * size))]

    hand.commit(one, result)

    assert is_in_redis(home, one) == (size < MAX_BYTES)


def test_what_a_node_saves_waits_for_postgres_when_much_has_not_arrived(
    home: Home, hand: Hand, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(home, hand, acme)
    monkeypatch.setattr(of_scripts, "MAX_WAITING", 10)

    for number in range(25):
        save(one, number)

    assert arrived(home, one) >= 15
    hand.commit(one, go_on(one))
    assert arrived(home, one) >= 25


def test_an_answer_has_room_for_some_of_what_waits_and_all_of_it_arrives(
    home: Home, hand: Hand, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(home, hand, acme)
    monkeypatch.setattr(of_scripts, "MAX_WAITING", 10_000)
    for number in range(2_700):
        save(one, number)

    waiting = hand.scripts.peek(saver_of(one).place.key)
    assert waiting is not None
    assert len(waiting.entries) < 2_700
    for _ in range(3):
        hand.behind._round()

    assert arrived(home, one) == 2_700


def test_who_goes_ahead_stops_when_much_has_not_arrived(
    home: Home, hand: Hand, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(home, hand, acme)
    monkeypatch.setattr(of_scripts, "MAX_WAITING", 2)

    committed = hand.commit(one, go_on(one, "two"), lease_next=True)

    assert committed.leased is None
    (to_two,) = committed.ready
    two = hand.claim(to_two)
    assert hand.commit(two, go_on(two)).ended is not None


def test_a_lease_whose_first_answer_was_lost_is_known_to_be_the_callers(
    home: Home, hand: Hand, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(home, hand, acme)
    server = hand.scripts.servers.of(saver_of(one).place.key)
    real, lost = server.run, list[str]()

    def lossy(name: str, key: str, *args: Any) -> Any:
        answer = real(name, key, *args)
        if name == "finish" and not lost:
            lost.append(name)
            raise RedisTierUnavailable(why="ConnectionError")
        return answer

    monkeypatch.setattr(server, "run", lossy)

    two = hand.commit(one, go_on(one, "two"), lease_next=True).leased

    assert two is not None
    assert hand.commit(two, go_on(two)).ended is not None


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, which may be filled."""
    made = Valkey(tmp_path).start()
    yield made
    made.kill()


def test_who_works_on_something_is_not_lost_while_the_server_is_full(home: Home, acme: Tenant, full: Valkey) -> None:
    hand = Hand(home, "hand", full.url)
    one = begun(home, hand, acme)
    key, lease = saver_of(one).place.key, f"x:{one.message.execution_id.hex}"
    client = client_of(one, hand)
    client.pexpire(key, 60_000)
    client.config_set("maxmemory", 1)
    renewal = Renewal(hand.scripts, seconds=60.0)
    renewal.holding = lambda: [cast("Any", saver_of(one).held)]

    renewal.renew()

    assert len(str(client.hget(key, lease)).split(",")) == 5, "its holder has said that it works on it"
    assert cast("int", client.pttl(key)) > 60_000, "and what takes hours is there when it is over"
    hand.stop()


def test_one_that_is_refused_among_many_keeps_no_other_from_its_answer(home: Home, hand: Hand, acme: Tenant) -> None:
    one, two = begun(home, hand, acme), begun(home, hand, acme)
    place = saver_of(one).place
    client_of(one, hand).set(place.key, "no hash")
    server = hand.scripts.servers.of(place.key)

    refused, answered = hand.scripts.peek_many(server, [place.key, saver_of(two).place.key])
    hand.behind._round()

    assert isinstance(refused, RedisTierUnavailable)
    assert isinstance(answered, Waiting)
    assert len(answered.entries) == 1
    entry = "SELECT entry FROM farm.thread_head WHERE thread_id = %s"
    assert home.query(entry, two.thread_id) == [(1,)]
    with pytest.raises(RedisTierUnavailable):
        hand.scripts.peek_many(server, [place.key])
    client_of(one, hand).delete(place.key)


def test_a_thread_that_somebody_has_keeps_no_other_from_arriving(home: Home, hand: Hand, acme: Tenant) -> None:
    one, two = begun(home, hand, acme), begun(home, hand, acme)
    entry = "SELECT entry FROM farm.thread_head WHERE thread_id = %s"
    with home.app.transaction(acme) as connection:
        connection.exec_driver_sql("SELECT 1 FROM farm.thread WHERE thread_id = %s FOR UPDATE", (one.thread_id,))
        hand.behind._round()
        assert (home.query(entry, one.thread_id), home.query(entry, two.thread_id)) == ([(0,)], [(1,)])

    hand.behind._round()

    assert home.query(entry, one.thread_id) == [(1,)]


def test_an_end_that_arrived_is_told_although_redis_does_not_forget_it(
    home: Home, hand: Hand, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(home, hand, acme)

    def silent(*args: object, **more: object) -> NoReturn:
        raise RedisTierUnavailable(why="TimeoutError")

    monkeypatch.setattr(hand.scripts, "trim", silent)

    assert hand.commit(one, go_on(one)).ended is not None


def test_a_start_that_comes_twice_leaves_the_run_alone_whatever_connects_meanwhile(
    home: Home, hands: Callable[..., Hand], acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = hands("first"), hands("second")
    message = start(home, acme, tier="redis")
    claimed = first.claim(message)
    server = second.scripts.servers.of(saver_of(claimed).place.key)
    real = server.run

    def connecting(name: str, key: str, *args: Any) -> Any:
        server.connects += name == "open"
        return real(name, key, *args)

    monkeypatch.setattr(server, "run", connecting)

    assert second.refusal(message) == "busy"

    assert first.commit(claimed, begin(claimed, "one")).ready


def test_what_postgres_refuses_is_no_readers_error(
    hand: Hand, home: Home, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(home, hand, acme)

    def refused(*_: object) -> NoReturn:
        raise CheckpointOutOfOrder

    monkeypatch.setattr(hand.behind, "complete", refused)

    hand.behind.bring(acme.id, acme.home, one.thread_id)


@pytest.mark.parametrize("tier", ["postgres", "redis"])
def test_siblings_without_a_message_wait_as_long_as_another_is_worked_on(
    home: Home, hands: Callable[..., Hand], acme: Tenant, tier: Persistence
) -> None:
    hand, dying = hands(), hands("dying")
    healing = RedisHealing(hand.scripts, hand.behind, late_seconds=0.0, lease_seconds=60.0) if tier == "redis" else None
    settings = home.settings.model_copy(update={"lost_message_seconds": 0.0})
    healer = PostgresHealing(home.ops, home.app, settings, redis=healing)

    def lost() -> list[str]:
        found = [*healer.lost(lambda queue: 0).again, *healer.in_redis(lambda queue: 0)]
        return sorted(message.node for message in found)

    claimed = dying.claim(start(home, acme, tier=tier))
    committed = dying.commit(claimed, begin(claimed, "a", "b", "c"), lease_next=True, wake=0)
    assert committed.leased is not None

    assert lost() == []

    dying.lease.stop()
    healer.sweep()
    wait_for(lambda: {"b", "c"} <= set(lost()), what="those whose part of the wave is dead", seconds=5)
