"""One counted farm a module, on Postgres and Valkey of the tests, with a tap before each."""

from collections.abc import Callable, Iterator, Mapping

import pytest

from agentfarm.persistence.redis_tier import servers
from agentfarm.run_options import RunChoices
from tests.contract.cost.farm import CountedFarm, counted_farm
from tests.farm import ROOT
from tests.services import SECRETS, OwnDatabase
from tests.tap import PostgresListener, RedisListener, Tap

#: What the beats of a worker's lease go by: one small statement a second, whatever the worker does.
BEATS = ("agentfarm-lease",)


#: The ways to keep a run's state, each a column of the tables: what its runs ask for.
TIERS: Mapping[str, RunChoices] = {
    "postgres": RunChoices(persistence="postgres"),
    "redis": RunChoices(persistence="redis"),
}

#: {hash: name} of the scripts that move runs.
SCRIPTS: Mapping[str, str] = {script.sha: name for name, script in servers._SCRIPTS.items()}


@pytest.fixture(scope="session")
def unread_broker(own_redis: Callable[[], str]) -> str:
    """Who publishes there executes what it publishes (farm.py)."""
    return own_redis()


@pytest.fixture(scope="module", params=TIERS)
def farm(
    request: pytest.FixtureRequest, database: OwnDatabase, redis_url: str, unread_broker: str
) -> Iterator[CountedFarm]:
    with (
        Tap(database.app_url, PostgresListener, leaves_out=BEATS) as postgres,
        Tap(redis_url, lambda: RedisListener(SCRIPTS)) as redis,
        Tap(redis_url, RedisListener) as streams,
        Tap(unread_broker, RedisListener) as broker,
    ):
        environment = {
            **SECRETS,
            **{name: postgres.url_of(url) for name, url in database.environment.items()},
            "REDIS_URL": streams.url,
            "AGENTFARM_REDIS_TIER_URL": redis.url,
            "CELERY_BROKER_URL": broker.url,
            "AGENTFARM_CONFIG": str(ROOT / "tests/contract/cost/langgraph.json"),
        }
        with counted_farm(
            environment, (postgres, redis, streams, broker), tier=request.param, choices=TIERS[request.param]
        ) as made:
            yield made
