"""What a message costs, as the tables state it and as it was counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.contract.cost.farm import Cost

Copies = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Price:
    """Of a message in one tier (conftest.py: TIERS).

    round_trips, statements   to Postgres, and {function: how often} in it
    scripts    {script: how often} to the Redis that moves runs; each is a round trip
    commands   to the Redis of streams
    messages   to the broker
    copies     how often the state's large part, which no node touches and which came as the run's input, travels to
               Postgres; from it to a worker that executed the run's last message; to one that never heard of the run
    beside     bytes to Postgres and from it beside the state, at most: ids, specs, metadata, protocol. 5 % above what
               was counted
    redis_copies, redis_beside   the same of the Redis that moves runs
    """

    round_trips: int
    statements: Mapping[str, int]
    scripts: Mapping[str, int] = field(default_factory=dict)
    commands: int = 0
    messages: int = 0
    copies: Copies = (0, 0, 0)
    beside: tuple[int, int] = (0, 0)
    redis_copies: Copies = (0, 0, 0)
    redis_beside: tuple[int, int] = (0, 0)


def priced(cost: Cost, *, like: Price) -> Price:
    """What was counted; of bytes nothing is said here."""
    assert cost.redis.round_trips == cost.redis.said.total(), cost
    return replace(
        like,
        round_trips=cost.postgres.round_trips,
        statements=dict(cost.postgres.said),
        scripts=dict(cost.redis.said),
        commands=cost.streams.said.total(),
        messages=cost.broker.said["LPUSH"],
    )
