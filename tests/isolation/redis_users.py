"""A Redis that judges: its user `globex` reaches the keys and channels of that tenant and no others."""

from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis import Redis

ACME, GLOBEX = uuid4(), uuid4()


@pytest.fixture
def server(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def url_of_globex(redis_url: str, server: Redis) -> Iterator[str]:
    """Of a user who may do anything to the keys and channels of globex."""
    name, own = f"globex-{uuid4().hex[:8]}", f"t:{GLOBEX.hex}:*"
    server.acl_setuser(
        name, enabled=True, passwords=["+x"], categories=["+@all"], keys=[own], channels=[own], reset_keys=True,
        reset_channels=True,
    )  # fmt: skip
    parts = urlsplit(redis_url)
    yield parts._replace(netloc=f"{name}:x@{parts.hostname}:{parts.port}").geturl()
    server.acl_deluser(name)
