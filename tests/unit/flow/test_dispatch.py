"""Outbox to queue."""

from agentfarm.flow.dispatch import dispatch
from agentfarm.flow.farm import Farm
from agentfarm.messages import ExecuteNode
from tests.unit.flow.world import World


def test_messages_go_to_the_broker_in_one_call(farm: Farm, world: World, message: ExecuteNode) -> None:
    dispatch(farm, [message, message])

    assert world.calls == [("publish", message, message)]


def test_nothing_to_send_asks_nobody(farm: Farm, world: World) -> None:
    dispatch(farm, [])

    assert world.calls == []


def test_a_broker_that_is_away_leaves_the_messages_to_the_healer(
    farm: Farm, world: World, message: ExecuteNode
) -> None:
    world.broker_is_up = False

    dispatch(farm, [message])

    assert world.calls == []
