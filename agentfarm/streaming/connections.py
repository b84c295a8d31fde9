"""How this package reaches Redis: time limits everywhere, and no silent second try that would add an event twice."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

import redis
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from agentfarm.redis_clients import make_async_pool, make_client

#: Seconds an answer may take. Longer than a failover's hiccup, shorter than a client's patience.
ANSWER_SECONDS: Final = 5.0

#: Connections of one process that read streams. A read takes a fraction of a millisecond.
MAX_READERS: Final = 8


def writing_client(url: str, *, connect_seconds: float) -> redis.Redis:
    """For appends. Tries once: writer.py knows when a second time is safe."""
    return make_client(url, retry=Retry(NoBackoff(), 0), **_limits(connect_seconds))


def reading_client(url: str, *, connect_seconds: float) -> redis.asyncio.Redis:
    """For reads, of the event loop that runs now. Tries again, since reading twice does no harm.

    It knows no time limit: ask through `answer_of`.
    """
    pool = make_async_pool(
        redis.asyncio.BlockingConnectionPool,
        url,
        max_connections=MAX_READERS,
        timeout=ANSWER_SECONDS,
        retry=AsyncRetry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), 2),
        **_async_limits(connect_seconds),
    )
    return redis.asyncio.Redis.from_pool(pool)


def subscribing_connection(url: str, *, connect_seconds: float) -> redis.asyncio.Connection:
    """One bare connection, not yet connected. Bare, because a client would reconnect without telling us,
    and a subscription that was lost is something its readers must know."""
    pool = make_async_pool(
        redis.asyncio.ConnectionPool, url, retry=AsyncRetry(NoBackoff(), 0), **_async_limits(connect_seconds)
    )
    connection = pool.make_connection()  # type: ignore[no-untyped-call]
    assert isinstance(connection, redis.asyncio.Connection)
    return connection


async def answer_of(asked: Awaitable[Any]) -> Any:
    """What the server answers. Raises RedisError, also when it does not within ANSWER_SECONDS."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await asked
    except TimeoutError as error:
        raise redis.exceptions.TimeoutError("the stream store did not answer in time") from error


def _async_limits(connect_seconds: float) -> dict[str, Any]:
    # With a socket_timeout redis-py sends under asyncio.wait_for, which in Python 3.11 can swallow a cancellation: a
    # follower whose client had left would have gone on for ever. `answer_of` and the pings of wakeups.py limit instead.
    return {**_limits(connect_seconds), "socket_timeout": None}


def _limits(connect_seconds: float) -> dict[str, Any]:
    # RESP2: a subscription's messages come as plain arrays, on every server from Redis 6.2 on.
    return {
        "protocol": 2,
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": connect_seconds,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),  # asks each new connection in vain
    }
