"""One farm a module: a migrated database, a stream store, and processes that come and go."""

from collections.abc import Iterator

import psycopg
import pytest
import redis
from pydantic import SecretStr

from agentfarm.conf import Settings
from agentfarm.persistence.node_cache import RedisNodeCaches
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.streaming.log import RedisEventLog
from tests.integration.crash.stories import Farm
from tests.services import OwnDatabase


@pytest.fixture(scope="module")
def farm(database: OwnDatabase, redis_url: str) -> Iterator[Farm]:
    settings = Settings(
        database_url=SecretStr(database.app_url),
        database_ops_url=SecretStr(database.ops_url),
        redis_url=SecretStr(redis_url),
        broker_url=SecretStr("redis://127.0.0.1:1"),
        secret_key=SecretStr("of the tests"),
    )
    log = RedisEventLog(redis_url)
    caches = RedisNodeCaches(redis_url, lambda graph_id: FaithfulSerializer(), max_bytes=1 << 20, max_seconds=60)
    with (
        psycopg.connect(database.root_url, autocommit=True) as root,
        redis.Redis.from_url(redis_url) as streams,
    ):
        made = Farm(settings, root, streams, log, caches)
        try:
            yield made
        finally:
            made.stop()
            log.close()
            caches.close()
