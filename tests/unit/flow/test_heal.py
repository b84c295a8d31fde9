"""What died, got lost or stands still goes on."""

import pytest

from agentfarm.errors import StoreUnavailable
from agentfarm.flow.farm import Farm
from agentfarm.flow.heal import EXPIRED_A_TENANT, EXPIRED_TENANTS, Healed, publish_due, sweep_once
from agentfarm.ids import new_id
from agentfarm.messages import ExecuteNode
from agentfarm.records import BuildUse, Delayed, Ended, Late, Sweep
from agentfarm.tenancy import Tenant
from tests.unit.flow.world import World


def test_a_quiet_farm_is_left_alone(farm: Farm, world: World) -> None:
    assert sweep_once(farm).is_quiet
    assert world.calls == []


def test_what_a_dead_worker_held_is_published_and_what_is_buried_is_told(
    farm: Farm, world: World, message: ExecuteNode, ended: Ended
) -> None:
    world.sweep = Sweep(again=(message,), dead=(message,), ended=(ended,))

    healed = sweep_once(farm)

    assert healed == Healed(taken_over=1, buried=1)
    assert [call[0] for call in world.calls] == ["publish", "close_run", "mark_announced"]


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

    healed = sweep_once(farm)

    assert healed == Healed(expired=3 + EXPIRED_A_TENANT)
    assert world.did("sweep_store") == [("sweep_store", tenant), ("sweep_store", other)]


def test_a_sweep_that_removes_items_keeps_the_next_one_waiting_for_a_bounded_time(farm: Farm, world: World) -> None:
    world.expired = {Tenant(id=new_id(), slug=""): 1 for _ in range(EXPIRED_TENANTS + 1)}

    assert sweep_once(farm).expired == EXPIRED_TENANTS
    assert sweep_once(farm).expired == 1


def test_a_thread_that_cannot_be_expired_keeps_no_other_from_it(farm: Farm, world: World) -> None:
    threads = [new_id() for _ in range(4)]
    world.expired_threads = {one: StoreUnavailable() if one in threads[::2] else None for one in threads}

    assert sweep_once(farm) == Healed(expired_threads=2)
    assert [call[1] for call in world.did("expire")] == threads


def test_a_stateless_runs_thread_that_cannot_be_forgotten_keeps_nothing_else_from_it(farm: Farm, world: World) -> None:
    big, used, done, expired = (new_id() for _ in range(4))
    world.forgettable = {big: StoreUnavailable(), used: False, done: True}
    world.expired_threads = {expired: None}

    assert sweep_once(farm) == Healed(forgotten=1, expired_threads=1)
    assert [call[1] for call in world.did("forget")] == [big, used, done]


def test_a_database_that_is_away_is_not_asked_for_each_thread(farm: Farm, world: World) -> None:
    world.expired_threads = {new_id(): StoreUnavailable() for _ in range(50)}

    with pytest.raises(StoreUnavailable):
        sweep_once(farm)

    assert len(world.did("expire")) == 2


def test_a_build_that_nobody_serves_is_in_the_log(farm: Farm, world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.builds = (BuildUse("1.4", 0, 3, 0, 0, 60.4), BuildUse("1.5", 2, 1, 0, 0, 90.0))

    sweep_once(farm)

    (record,) = [one for one in caplog.records if "no worker serves" in one.getMessage()]
    assert (record.__dict__["build"], record.__dict__["waiting"], record.__dict__["oldest_seconds"]) == ("1.4", 3, 60)
