"""One farm a module: a migrated database, a stream store, and processes that come and go."""

from collections.abc import Iterator

import psycopg
import pytest
import redis

from agentfarm.persistence.node_cache import RedisNodeCaches
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.streaming.log import RedisEventLog
from tests.integration.crash.stories import Farm
from tests.services import OwnDatabase


@pytest.fixture(scope="module", params=["postgres", "redis"])
def farm(request: pytest.FixtureRequest, database: OwnDatabase, redis_url: str) -> Iterator[Farm]:
    log = RedisEventLog(redis_url)
    caches = RedisNodeCaches(redis_url, lambda graph_id: FaithfulSerializer(), max_bytes=1 << 20, max_seconds=60)
    with (
        psycopg.connect(database.root_url, autocommit=True) as root,
        redis.Redis.from_url(redis_url) as streams,
    ):
        made = Farm(database.settings(redis_url), root, streams, log, caches, tier=request.param)
        try:
            yield made
        finally:
            made.stop()
            log.close()
            caches.close()
