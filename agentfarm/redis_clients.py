"""The way to the Redis that takes writes: at its address, or at the one that Sentinels name each time one connects.

How long an answer may take and what is tried again is the callers' to say; streaming and the node cache have their own.
"""

from collections.abc import Iterable
from hashlib import sha1
from importlib import resources
from typing import Any, TypeVar

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ReadOnlyError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from agentfarm.conf import Sentinels, redis_py_url

AsyncPool = TypeVar("AsyncPool", bound=redis.asyncio.ConnectionPool)

#: Seconds that one Sentinel may take before the next is asked.
SENTINEL_SECONDS = 1.0


class Script:
    """What a server executes whole, by the name that it gives it itself."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def of_files(cls, package: str, names: Iterable[str]) -> "Script":
        """names  of files of the package, one behind the other"""
        folder = resources.files(package)
        return cls("\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names))


def make_client(url: str, **options: Any) -> redis.Redis:
    """url  as REDIS_URL has it; options are redis-py's, of a connection"""
    sentinels = Sentinels.parse(url)
    if sentinels is None:
        return redis.Redis.from_url(redis_py_url(url), **options)
    return redis.Redis.from_pool(
        redis.ConnectionPool(connection_class=_AtPrimary, sentinels=sentinels, **_login(sentinels), **options)
    )


def make_bounded_client(url: str, *, answer_seconds: float, **options: Any) -> redis.Redis:
    """For short commands: each is sent once, and answered within so many seconds or not at all."""
    return make_client(
        url,
        protocol=2,
        socket_timeout=answer_seconds,
        socket_connect_timeout=answer_seconds,
        socket_keepalive=True,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),  # asks each new connection in vain
        **options,
    )


def make_async_pool(kind: type[AsyncPool], url: str, **options: Any) -> AsyncPool:
    """The same for the event loop that runs now, by a pool of this kind."""
    sentinels = Sentinels.parse(url)
    if sentinels is None:
        return kind.from_url(redis_py_url(url), **options)
    return kind(connection_class=_AsyncAtPrimary, sentinels=sentinels, **_login(sentinels), **options)


class _AtPrimary(redis.Connection):
    """Asks for the primary whenever it connects, and leaves one that has become a replica.

    redis-py's own managed connections need a pool of their own kind, which has no bound and no waiting.
    """

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    def _connect(self) -> Any:
        asked = redis.sentinel.Sentinel(self._sentinels.hosts, sentinel_kwargs=_of_sentinels(self._sentinels, Retry))
        try:
            self.host, self.port = asked.discover_master(self._sentinels.service)
        finally:
            for one in asked.sentinels:
                one.close()
        return super()._connect()

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except ReadOnlyError as error:
            self.disconnect()
            raise ConnectionLost("this Redis is no primary any more") from error


class _AsyncAtPrimary(redis.asyncio.Connection):
    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def _connect(self) -> None:
        asked = redis.asyncio.sentinel.Sentinel(
            self._sentinels.hosts, sentinel_kwargs=_of_sentinels(self._sentinels, AsyncRetry)
        )
        try:
            self.host, self.port = await asked.discover_master(self._sentinels.service)
        finally:
            for one in asked.sentinels:
                await one.aclose()
        await super()._connect()

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ReadOnlyError as error:
            await self.disconnect()
            raise ConnectionLost("this Redis is no primary any more") from error


def _login(sentinels: Sentinels) -> dict[str, Any]:
    return {"username": sentinels.username, "password": sentinels.password, "db": sentinels.database}


def _of_sentinels(sentinels: Sentinels, retry: type[Retry] | type[AsyncRetry]) -> dict[str, Any]:
    return {
        "retry": retry(NoBackoff(), 0),  # one that is away is asked ten times else, before the next is
        "username": sentinels.own_username,
        "password": sentinels.own_password,
        "socket_timeout": SENTINEL_SECONDS,
        "socket_connect_timeout": SENTINEL_SECONDS,
    }
