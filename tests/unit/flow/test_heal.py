"""What died, got lost or stands still goes on."""

import pytest

from agentfarm.errors import StoreUnavailable
from agentfarm.flow.farm import Farm
from agentfarm.flow.heal import (
    EXPIRED_A_TENANT,
    EXPIRED_TENANTS,
    Cleaned,
    Healed,
    clean_up_once,
    publish_due,
    sweep_once,
)
from agentfarm.ids import new_id
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.store_errors import StoreFailed
from agentfarm.records import BuildUse, Buried, Delayed, Ended, Late, Sweep
from agentfarm.tenancy import Tenant
from tests.unit.flow.world import World


def another() -> ExecuteNode:
    return ExecuteNode(new_id(), "main", new_id(), new_id(), new_id(), "support", queue="cpu")


def test_a_quiet_farm_is_left_alone(farm: Farm, world: World) -> None:
    assert sweep_once(farm).is_quiet
    assert world.calls == []


def test_what_a_dead_worker_held_is_published_and_what_is_buried_is_told(
    farm: Farm, world: World, message: ExecuteNode, ended: Ended
) -> None:
    spent = another()
    world.sweep = Sweep(again=(message,), spent=(spent,))
    world.buried = {spent: Buried(ended)}

    healed = sweep_once(farm)

    assert healed == Healed(taken_over=1, buried=1)
    assert [call[0] for call in world.calls] == ["publish", "bury", "close_run", "mark_announced"]


def test_a_spent_advance_is_buried_told_and_counted_and_who_waited_behind_it_begins(
    farm: Farm, world: World, message: ExecuteNode, ended: Ended
) -> None:
    advance, start = another(), another()
    world.stalled = Sweep(again=(message,), spent=(advance,))
    world.buried = {advance: Buried(ended, (start,))}

    assert sweep_once(farm) == Healed(advanced=1, buried=1)
    assert [call[:2] for call in world.calls[:3]] == [("publish", message), ("bury", advance), ("publish", start)]
    assert world.did("close_run") == [("close_run", ended.run_id, ["end"])]


def test_what_cannot_be_buried_now_keeps_neither_a_message_nor_another_burial_from_its_turn(
    farm: Farm, world: World, message: ExecuteNode, ended: Ended
) -> None:
    silent, broken, locked, spent, start = (another() for _ in range(5))
    world.sweep = Sweep(again=(message,), spent=(silent, broken, locked, spent))
    failed = StoreFailed(sqlstate="23505", where="dead_letter_pkey")
    world.buried = {silent: StoreUnavailable(), broken: failed, locked: None, spent: Buried(ended)}
    slow, free = new_id(), new_id()
    world.waiting = {slow: StoreUnavailable(), free: (start,)}

    assert sweep_once(farm) == Healed(taken_over=1, buried=1, published_again=1)
    assert world.did("publish") == [("publish", message), ("publish", start)]
    assert world.calls[0] == ("publish", message)


@pytest.mark.parametrize("station", ["sweep", "stalled", "in_redis"])
def test_a_station_that_fails_keeps_no_other_from_its_turn(
    farm: Farm, world: World, message: ExecuteNode, station: str
) -> None:
    waiting = Delayed(message.tenant_id, message.run_id, message.checkpoint_id, message.execution_id, due_at=1.0)
    world.late = Late(again=(message,), soon=(waiting,))
    setattr(world, station, StoreUnavailable())

    healed = sweep_once(farm)

    assert (healed, healed.soon) == (Healed(published_again=1), (waiting,))


def test_a_database_that_is_away_is_not_asked_by_each_station(farm: Farm, world: World, message: ExecuteNode) -> None:
    world.sweep = world.stalled = StoreUnavailable()
    world.late = Late(again=(message,))

    with pytest.raises(StoreUnavailable):
        sweep_once(farm)

    assert world.calls == []


def test_a_retry_that_is_due_soon_is_told_and_published_when_asked(
    farm: Farm, world: World, message: ExecuteNode
) -> None:
    waiting = Delayed(message.tenant_id, message.run_id, message.checkpoint_id, message.execution_id, due_at=1.0)
    world.late, world.due = Late(soon=(waiting,)), (message,)

    healed = sweep_once(farm)

    assert healed.is_quiet
    assert (healed.soon, world.calls) == ((waiting,), [])
    publish_due(farm, healed.soon)
    assert world.calls == [("publish", message)]


def test_items_of_stores_that_are_over_are_removed_tenant_by_tenant(farm: Farm, world: World, tenant: Tenant) -> None:
    other = Tenant(id=new_id(), slug="globex")
    world.expired = {tenant: 3, other: 100_000}

    assert clean_up_once(farm) == Cleaned(expired=3 + EXPIRED_A_TENANT)
    assert world.did("sweep_store") == [("sweep_store", tenant), ("sweep_store", other)]


def test_a_cleaning_removes_the_items_of_so_many_tenants(farm: Farm, world: World) -> None:
    world.expired = {Tenant(id=new_id(), slug=""): 1 for _ in range(EXPIRED_TENANTS + 1)}

    assert clean_up_once(farm).expired == EXPIRED_TENANTS
    assert clean_up_once(farm).expired == 1


def test_a_thread_that_cannot_be_expired_keeps_no_other_from_it(farm: Farm, world: World) -> None:
    threads = [new_id() for _ in range(4)]
    world.expired_threads = {one: StoreUnavailable() if one in threads[::2] else None for one in threads}

    assert clean_up_once(farm) == Cleaned(expired_threads=2)
    assert [call[1] for call in world.did("expire")] == threads


def test_a_stateless_runs_thread_that_cannot_be_forgotten_keeps_nothing_else_from_it(farm: Farm, world: World) -> None:
    big, used, done, expired = (new_id() for _ in range(4))
    world.forgettable = {big: StoreUnavailable(), used: False, done: True}
    world.expired_threads = {expired: None}

    assert clean_up_once(farm) == Cleaned(forgotten=1, expired_threads=1)
    assert [call[1] for call in world.did("forget")] == [big, used, done]


def test_a_database_that_is_away_is_not_asked_for_each_thread(farm: Farm, world: World) -> None:
    world.expired_threads = {new_id(): StoreUnavailable() for _ in range(50)}

    assert clean_up_once(farm) == Cleaned()

    assert len(world.did("expire")) == 2


def test_a_sweep_cleans_nothing_up(farm: Farm, world: World) -> None:
    world.expired_threads, world.forgettable = {new_id(): None}, {new_id(): True}

    assert sweep_once(farm).is_quiet
    assert world.calls == []


def test_a_build_that_nobody_serves_is_in_the_log(farm: Farm, world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.builds = (BuildUse("1.4", 0, 3, 0, 0, 60.4), BuildUse("1.5", 2, 1, 0, 0, 90.0))

    clean_up_once(farm)

    (record,) = [one for one in caplog.records if "no worker serves" in one.getMessage()]
    assert (record.__dict__["build"], record.__dict__["waiting"], record.__dict__["oldest_seconds"]) == ("1.4", 3, 60)
